"""What a report is made of: the stored results of today's tasks, and what several sections ask of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import ArtifactError
from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.diagnosis import Learned, learned
from pipeline.results import (
    Attacked,
    Curve,
    DefenceRow,
    Diagnosis,
    Evaluated,
    LatencyRow,
    Measured,
    ModelGroup,
    Row,
    Selected,
    Simulation,
    TrialRecord,
)

SINGLE_EXIT = "single_exit"
"""The method that trains a model plainly, with its last exit only."""


@dataclass(frozen=True)
class TaskResults:
    """All that was stored of one task.

    Attributes:
        latency: None where params.yaml did not ask for it.
        attacks: one per attacked split; empty where params.yaml did not ask for it.
        demo: whether its data are generated.
        train_rows: training rows that params.yaml cut it to; None: all.
    """

    evaluated: Evaluated
    selected: Selected
    curves: tuple[Curve, ...]
    latency: Measured | None
    attacks: tuple[Attacked, ...]
    demo: bool
    train_rows: int | None

    @property
    def name(self) -> str:
        return self.evaluated.task

    @property
    def image(self) -> bool:
        return self.evaluated.modality == "image"

    @property
    def regression(self) -> bool:
        return self.evaluated.kind == "regression"

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.evaluated.rows

    @property
    def groups(self) -> tuple[ModelGroup, ...]:
        return self.selected.groups

    @property
    def splits(self) -> list[str]:
        """Reported splits, in the order stored."""
        return list(dict.fromkeys(row.split for row in self.rows))

    @property
    def early_exits(self) -> tuple[Diagnosis, ...]:
        """Diagnoses of the models with early exits."""
        return tuple(one for one in self.evaluated.diagnosis if len(one.layers) > 1)

    def diagnosed(self, row: Row) -> tuple[Diagnosis, ...]:
        """Diagnoses of a row's models on its split, in the order of its seeds."""
        by_key = {one.key: one for one in self.evaluated.diagnosis if one.split == row.split}
        return tuple(by_key[key] for key in row.keys)

    def all_layers(self, row: Row) -> Row:
        """The same models on the same split through all layers."""
        return self.evaluated.all_layers(row.backbone, row.method, row.split)

    def learned(self, row: Row) -> Learned:
        """On which seeds a row's models, through all layers, know more than one answer for every row."""
        return learned(self.all_layers(row), self.evaluated.diagnosis)

    def one_exit(self, row: Row) -> tuple[float | None, ...]:
        """For each seed the layer after which every row leaves under an exit rule that could tell rows apart; None
        where they leave at several exits, or at the last."""
        if row.criterion is None or not CRITERIA[row.criterion].adaptive:
            return (None,) * len(row.seeds)
        return tuple(_only_exit(model, row.criterion) for model in self.diagnosed(row))

    def heading(self, split: str) -> str:
        """The name of the task in tables, with the split where there are several."""
        return self.name if len(self.splits) == 1 else f"{self.name} {split}"

    def group(self, row: Row | LatencyRow | DefenceRow) -> ModelGroup:
        """The models that a row rests on.

        Raises:
            ArtifactError: models were selected anew since.
        """
        for group in self.groups:
            if (group.backbone, group.method) == (row.backbone, row.method):
                return group
        raise ArtifactError(
            f"results of {self.name}: no model of {row.backbone}/{row.method} is selected, and a row has one; run "
            "`dvc repro`"
        )


def _only_exit(model: Diagnosis, criterion: str) -> float | None:
    exits = model.outcome(criterion).exits
    used = [layer for layer, rows in zip(model.layers, exits, strict=True) if rows]
    return used[0] if len(used) == 1 and used[0] != model.layers[-1] else None


@dataclass(frozen=True)
class Stored:
    """Everything that a report is made of.

    Attributes:
        tasks: in the order of params.yaml, texts and images alike.
        trials: every trial of the plan, by its key.
    """

    tasks: tuple[TaskResults, ...]
    trials: Mapping[str, TrialRecord]
    simulation: Simulation

    @property
    def texts(self) -> tuple[TaskResults, ...]:
        return tuple(task for task in self.tasks if not task.image)

    @property
    def images(self) -> tuple[TaskResults, ...]:
        return tuple(task for task in self.tasks if task.image)

    @property
    def groups(self) -> list[tuple[TaskResults, ModelGroup]]:
        """Every group of models with its task."""
        return [(task, group) for task in self.tasks for group in task.groups]
