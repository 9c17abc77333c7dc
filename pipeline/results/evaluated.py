"""Results of evaluate: operating points with their scores, scores of single exits, diagnoses."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pipeline.errors import ArtifactError, shown
from pipeline.results.base import (
    Amount,
    Fraction,
    Name,
    Natural,
    Part,
    Positive,
    Result,
    Score,
    Seed,
    Text,
    refuse_descending,
    refuse_lengths,
    refuse_other_names,
    refuse_repeats,
)
from pipeline.results.diagnosis import Diagnosis
from pipeline.results.latency import RunsIn
from pipeline.results.numbers import OverSeeds
from pipeline.results.point import OperatingPoint

Rule = Literal["window", "speedup", "risk", "online", "latency"]
"""Names of the choosers."""
Model = tuple[str, str, int, str]
"""Backbone, method, seed and key of a model."""


class Row(Part):
    """One group of models (backbone, method; a model per seed) under one criterion on one split."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    split: Name
    """Name of the report split."""
    seeds: tuple[Seed, ...]
    """Seeds of the models."""
    keys: tuple[Text, ...]
    """Keys of the models' trials, one per seed."""
    points: tuple[OperatingPoint, ...]
    """Operating point of each seed, all of one criterion; or all layers."""
    score: OverSeeds
    """The task's score: the mean of its metrics."""
    metrics: dict[Text, OverSeeds]
    """Each of the task's metrics."""
    layer_speedup: OverSeeds
    """Layers of the plain model / mean layers run."""
    flop_speedup: OverSeeds
    """FLOPs of the plain model / FLOPs spent, embedding and heads included."""
    rule: Rule
    """Name of the chooser (pipeline/evaluation/choosing.py)."""
    in_window: bool
    """Whether every seed's threshold meets the chooser's condition on selection rows; where it does not, it is the
    nearest, the fastest, or the full model."""
    selected_on: Text
    """Split on which the threshold was chosen."""
    preferred: bool = False
    """Whether the rows that chose the thresholds prefer this exit rule of these models, by which they then answer where
    no other is asked for."""
    risk: OverSeeds | None = None
    """Mean loss of this split's rows against the full model, in the meaning of `choosing.loss`: for a loss of 0 or 1
    the share lost; None for a chooser that bounds no risk."""
    cost_ms: OverSeeds | None = None
    """Mean milliseconds of this split's rows, one at a time, by the measured cost of the exit at which each left; None
    but for rule `latency`."""

    def check(self) -> None:
        refuse_repeats("seeds", self.seeds)
        refuse_repeats("keys", self.keys)
        seeds = len(self.seeds)
        numbers = {"score": self.score, "layer_speedup": self.layer_speedup, "flop_speedup": self.flop_speedup}
        numbers |= {f"metrics.{name}": metric for name, metric in self.metrics.items()}
        numbers |= {} if self.risk is None else {"risk": self.risk}
        numbers |= {} if self.cost_ms is None else {"cost_ms": self.cost_ms}
        scores = {f"metrics.{name}" for name in self.metrics}
        values = {name: number.values for name, number in numbers.items()}
        refuse_lengths(max(seeds, 1), "seeds", keys=self.keys, points=self.points, seeds=self.seeds, **values)
        if len({(point.criterion, *point.settings.items()) for point in self.points}) > 1:
            raise ValueError("points are of several criteria")
        if not self.metrics:
            raise ValueError("metrics: there is none")
        for name, number in numbers.items():
            low, high = (-1, 1) if name in ("score", "risk") or name in scores else (0, 1e30)
            if any(value is not None and not low <= value <= high for value in number.values):
                raise ValueError(f"{name}: a value is outside {low:g} to {high:g}")

    @property
    def criterion(self) -> str | None:
        """Name of the criterion; None: all layers."""
        return self.points[0].criterion

    def point(self, key: str) -> OperatingPoint:
        """The operating point of a trial's model.

        Raises:
            ArtifactError: the trial is not among the evaluated ones.
        """
        if key not in self.keys:
            raise ArtifactError(
                f"operating points of {self.backbone}/{self.method}: none of trial {key}; run `dvc repro evaluate`"
            )
        return self.points[self.keys.index(key)]


class ExitScores(Part):
    """The score of each exit taken alone, of one model on one split."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    split: Name
    """Name of the split."""
    seed: Seed
    """Seed of the trial."""
    key: Name
    """Key of the trial."""
    layers: tuple[Natural, ...]
    """Layer of each exit, from 1."""
    scores: tuple[Score | None, ...]
    """Score of each exit."""

    def check(self) -> None:
        refuse_descending("layers", self.layers)
        refuse_lengths(len(self.layers), "layers", scores=self.scores)


class ExitCosts(Part):
    """What it costs to run one model to each of its exits, with the exits on the way, one row at a time."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    engine: RunsIn
    """What ran."""
    machine: Text
    """The processor with its number of CPUs, or the GPU."""
    threads: Natural
    """Number of compute threads."""
    rows: Natural
    """Selection rows that were timed."""
    ms: tuple[Amount, ...]
    """Milliseconds to leave at each exit, in the mean over these rows."""
    full_ms: Amount
    """Milliseconds of all layers with the last exit alone."""


class Choosing(Part):
    """The chooser of thresholds: the settings of `evaluate.choose`, and the window."""

    rule: Rule
    """window: best score in the window; speedup: nearest above a target; risk: fastest with a bounded loss; online: a
    bandit's, without labels; latency: best score within a budget of milliseconds."""
    window: tuple[Positive, Positive]
    """Lowest and highest layer speed-up of `window`."""
    target: Positive | None = None
    """Layer speed-up of `speedup`."""
    epsilon: Fraction | None = None
    """Share of rows that `risk` may lose."""
    delta: Fraction | None = None
    """Probability with which `risk` may lose more."""
    loss: Literal["gap", "consistency", "brier", "brier_consistency", "error"] | None = None
    """Meaning of a lost row, or of a graded loss; None: gap."""
    tolerance: Positive | None = None
    """Regression: label units by which an answer may be worse."""
    bound: Literal["binomial", "betting", "crc"] | None = None
    """Sense in which `risk` bounds the loss; None: binomial."""
    cost: Amount | None = None
    """Cost of all layers for `online`; None: 1."""
    budget_ms: Positive | None = None
    """Milliseconds a row that `latency` may expect, in the mean over selection rows."""
    engine: RunsIn | None = None
    """Engine in which `latency` measured the cost of each exit."""
    machine: Text | None = None
    """The machine that it measured on."""

    def check(self) -> None:
        if self.window[0] > self.window[1]:
            raise ValueError(f"window {list(self.window)} is empty")
        risk = ("epsilon",) if self.bound == "crc" else ("epsilon", "delta")
        needed = {"window": (), "speedup": ("target",), "risk": risk, "online": ()} | {
            "latency": ("budget_ms", "engine", "machine")
        }
        for name in needed[self.rule]:
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing for rule {self.rule!r}")


class Evaluated(Result):
    """`outputs/evaluate/<task>.json`."""

    schema_version: ClassVar[int] = 6
    """Version 5 said neither what a constant answer scores, nor what becomes of each class."""
    made_by: ClassVar[str] = "evaluate"
    task: Name
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the task's rows."""
    kind: Literal["classification", "regression"]
    """Kind of the answers."""
    metrics: tuple[Text, ...]
    """Metrics, whose mean is the score."""
    protocol: Literal["holdout", "paper"]
    """Whether selection rows chose (holdout), or the first report split (paper)."""
    choosing: Choosing
    """The chooser of thresholds."""
    rows: tuple[Row, ...]
    """A row per group, criterion and report split."""
    exits: tuple[ExitScores, ...]
    """An entry per model and split, selection included."""
    diagnosis: tuple[Diagnosis, ...]
    """An entry per model and report split."""
    costs: tuple[ExitCosts, ...] = ()
    """What each exit costs, of each multi-exit backbone and method; empty but for rule `latency`."""

    def all_layers(self, backbone: str, method: str, split: str) -> Row:
        """The row of a group's models through all layers."""
        wanted = (backbone, method, split, None)
        return next(row for row in self.rows if (row.backbone, row.method, row.split, row.criterion) == wanted)

    @property
    def models(self) -> set[Model]:
        """The models of all rows."""
        return {
            (row.backbone, row.method, seed, key)
            for row in self.rows
            for seed, key in zip(row.seeds, row.keys, strict=True)
        }

    @property
    def criteria(self) -> set[tuple[str, str, str]]:
        """Backbone, method and criterion of every row under a criterion."""
        return {(row.backbone, row.method, row.criterion) for row in self.rows if row.criterion is not None}

    def check(self) -> None:
        self._check_rows()
        self._check_models()
        refuse_repeats("costs", ((one.backbone, one.method) for one in self.costs))

    def _check_rows(self) -> None:
        refuse_repeats("rows", ((row.backbone, row.method, row.split, row.criterion) for row in self.rows))
        splits = {row.split for row in self.rows}
        kinds = {(row.backbone, row.method, row.criterion) for row in self.rows}
        kinds |= {(backbone, method, None) for backbone, method, _ in kinds}
        given = ((row.backbone, row.method, row.criterion, row.split) for row in self.rows)
        refuse_other_names("rows", given, ((*kind, split) for kind in kinds for split in splits))
        for row in self.rows:
            refuse_other_names(f"rows of {row.backbone}/{row.method}: metrics", row.metrics, self.metrics)
            if row.rule != self.choosing.rule or (row.risk is None) != (row.rule != "risk"):
                raise ValueError(f"rows of {row.backbone}/{row.method}: rule and risk are not those of choosing")
            if row.criterion is not None and (row.cost_ms is None) != (row.rule != "latency"):
                raise ValueError(f"rows of {row.backbone}/{row.method}: cost_ms is not that of choosing")
        refuse_repeats("rows: preferred", ((row.backbone, row.method, row.split) for row in self.rows if row.preferred))
        models = [(backbone, method, seed) for backbone, method, seed, _ in self.models]
        refuse_repeats("rows: keys of a seed", models)

    def _check_models(self) -> None:
        """Every model has its exits on every split, and its diagnosis on every report split."""
        for model in [*map(_model, self.exits), *map(_model, self.diagnosis)]:
            if model not in self.models:
                raise ValueError(f"exits and diagnosis: {shown(model)} is no model of the rows")
        refuse_repeats("exits", ((*_model(entry), entry.split) for entry in self.exits))
        refuse_repeats("diagnosis", ((*_model(entry), entry.split) for entry in self.diagnosis))
        splits = {row.split for row in self.rows}
        measured = splits | {entry.split for entry in self.exits}
        expected = ((*model, split) for model in self.models for split in measured)
        refuse_other_names("exits", ((*_model(entry), entry.split) for entry in self.exits), expected)
        layers = {(entry.backbone, entry.method): entry.layers for entry in self.exits}
        for entry in self.exits:
            if entry.layers != layers[entry.backbone, entry.method]:
                raise ValueError(f"exits of {entry.backbone}/{entry.method}: layers differ between models")
        models = ((*model, split) for model in self.models for split in splits)
        refuse_other_names("diagnosis", ((*_model(entry), entry.split) for entry in self.diagnosis), models)
        diagnosed = [(*_model(entry), entry.split, outcome) for entry in self.diagnosis for outcome in _named(entry)]
        under = ((*model, split, name) for model in self.models for split in splits for name in self._of(model))
        refuse_other_names("diagnosis", diagnosed, under)

    def _of(self, model: Model) -> Iterator[str]:
        return (name for backbone, method, name in self.criteria if (backbone, method) == model[:2])


def _model(entry: ExitScores | Diagnosis) -> Model:
    return entry.backbone, entry.method, entry.seed, entry.key


def _named(entry: Diagnosis) -> Iterator[str]:
    return (outcome.criterion for outcome in entry.criteria)
