"""What evaluate leaves: operating points with what they give, scores of exits, diagnoses, curves."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pipeline.errors import ArtifactError
from pipeline.results.base import Part, Result
from pipeline.results.numbers import OverSeeds, Share
from pipeline.results.point import OperatingPoint


class Row(Part):
    """One group of models (backbone, method; a model per seed) under one criterion on one split."""

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    split: str
    """The reported split."""
    seeds: tuple[int, ...]
    """Seeds of the models."""
    keys: tuple[str, ...]
    """Trials of the models, one per seed."""
    points: tuple[OperatingPoint, ...]
    """Each seed's operating point, one criterion for all; all layers where there is none."""
    score: OverSeeds
    """The task's score: the mean of its metrics."""
    metrics: dict[str, OverSeeds]
    """Each of the task's metrics."""
    layer_speedup: OverSeeds
    """Layers of the plain model / mean layers run."""
    flop_speedup: OverSeeds
    """FLOPs of the plain model / FLOPs spent, embedding and heads included."""
    rule: Literal["window", "speedup", "risk"]
    """How the threshold was chosen (pipeline/evaluation/choosing.py)."""
    in_window: bool
    """Whether the rule's condition could be met on every seed's selection rows; else the nearest setting, the fastest
    or the full model stands here."""
    selected_on: str
    """Split that chose the threshold."""
    risk: OverSeeds | None = None
    """Share of this split's rows lost against the full model; None under a rule that bounds no risk."""

    @property
    def criterion(self) -> str | None:
        """Name of the criterion; None: all layers."""
        return self.points[0].criterion

    def point(self, key: str) -> OperatingPoint:
        """The operating point of a trial's model.

        Raises:
            ArtifactError: models were selected anew since.
        """
        if key not in self.keys:
            raise ArtifactError(
                f"operating points of {self.backbone}/{self.method}: none of trial {key}; run `dvc repro evaluate`"
            )
        return self.points[self.keys.index(key)]


class ExitScores(Part):
    """The score of each exit taken alone, of one model on one split."""

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    split: str
    """Name of the split."""
    seed: int
    """Of the trial."""
    key: str
    """Of the trial."""
    layers: tuple[int, ...]
    """Layer of each exit, from 1."""
    scores: tuple[float | None, ...]
    """Score of each exit."""


class Oracle(Part):
    """Leaving at the first exit that is right: what no criterion can beat with these exits."""

    score: float | None
    """The task's score."""
    layer_speedup: float | None
    """As in a row."""
    flop_speedup: float | None
    """As in a row."""


class Calibration(Part):
    """Expected calibration error: accuracy against confidence."""

    bins: int
    """Bins of the confidence."""
    error: tuple[float | None, ...]
    """Error of each exit."""


class Outcome(Part):
    """Where rows leave under a criterion at its operating point, and which it loses and wins against the full model."""

    criterion: str
    """Name of the criterion."""
    threshold: float | None
    """Its threshold; None: never."""
    exits: tuple[int, ...]
    """Rows that leave at each exit."""
    lost: Share | None
    """Wrong here and right at the last exit; None for a regression."""
    won: Share | None
    """Right here and wrong at the last exit; None for a regression."""
    lost_rows: tuple[int, ...] | None
    """Ids of the first ten lost rows."""
    won_rows: tuple[int, ...] | None
    """Ids of the first ten won rows."""


class Findings(Part):
    """Why early exit helps or hurts on a trace."""

    rows: int
    """Labelled rows."""
    layers: tuple[float, ...]
    """Layer of each exit."""
    overthinking: Share | None
    """Right at some exit and wrong at the last; None for a regression."""
    oracle: Oracle
    """The bound."""
    agreement: tuple[tuple[float | None, ...], ...] | None
    """Share of rows that two exits answer alike, exits x exits; None for a regression."""
    calibration: Calibration | None
    """None for a regression."""
    criteria: tuple[Outcome, ...]
    """Each criterion at its operating point."""


class Diagnosis(Findings):
    """The findings on one model of several exits and one reported split."""

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    split: str
    """The reported split."""
    seed: int
    """Of the trial."""
    key: str
    """Of the trial."""


class Choosing(Part):
    """How thresholds were chosen: the settings of `evaluate.choose`, and the window."""

    rule: Literal["window", "speedup", "risk"]
    """window: best score in the window; speedup: nearest to a target; risk: fastest with a bounded loss."""
    window: tuple[float, float]
    """Layer speed-ups of the rule `window`."""
    target: float | None = None
    """Layer speed-up of the rule `speedup`."""
    epsilon: float | None = None
    """Share of rows that the rule `risk` may lose."""
    delta: float | None = None
    """Chance with which it may lose more."""
    loss: Literal["gap", "consistency"] | None = None
    """What counts as lost."""
    tolerance: float | None = None
    """Regression: label units that do not count."""


class Evaluated(Result):
    """`outputs/evaluate/<task>.json`."""

    made_by: ClassVar[str] = "evaluate"
    task: str
    """The task's name."""
    modality: Literal["text", "image"]
    """Of the task."""
    kind: Literal["classification", "regression"]
    """What an exit answers with."""
    metrics: tuple[str, ...]
    """What the score is the mean of."""
    protocol: Literal["holdout", "paper"]
    """Whether selection rows, or the reported ones, chose."""
    choosing: Choosing
    """How thresholds were chosen."""
    rows: tuple[Row, ...]
    """Every group, criterion and reported split."""
    exits: tuple[ExitScores, ...]
    """Every model and split, selection rows included."""
    diagnosis: tuple[Diagnosis, ...]
    """Every model of several exits and reported split."""


class CurvePoint(NamedTuple):
    """A line of `outputs/evaluate/<task>.curves.csv`: one setting of a criterion on one model and split.

    threshold `inf` is the full model; score `nan` is not defined.
    """

    backbone: str
    method: str
    criterion: str
    seed: int
    split: str
    threshold: float
    score: float
    layer_speedup: float
    flop_speedup: float


def curves_text(points: Iterable[CurvePoint]) -> str:
    """Curves as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CurvePoint._fields)
    writer.writerows(points)
    return text.getvalue()


def read_curves(path: Path, remedy: str) -> list[CurvePoint]:
    """Read what `curves_text` gave, in its order.

    Raises:
        ArtifactError: missing, other columns, or a value of the wrong type.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path}: unreadable ({error}); {remedy}") from None
    if not rows or tuple(rows[0]) != CurvePoint._fields:
        raise ArtifactError(f"{path}: its columns are not {', '.join(CurvePoint._fields)}; {remedy}")
    points = []
    for line, row in enumerate(rows[1:], start=2):
        try:
            backbone, method, criterion, seed, split, *numbers = row
            threshold, score, layers, flops = map(float, numbers)
            points.append(CurvePoint(backbone, method, criterion, int(seed), split, threshold, score, layers, flops))
        except ValueError as error:
            raise ArtifactError(f"{path}: line {line}: {error}; {remedy}") from None
    return points
