"""What a report is made of: the stored results of today's tasks, and what several sections ask of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import ArtifactError
from pipeline.results import (
    Attacked,
    Curve,
    DefenceRow,
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
