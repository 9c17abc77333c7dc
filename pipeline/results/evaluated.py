"""Results of evaluate: operating points with their scores, scores of single exits, diagnoses, curves."""

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
    """Name of the report split."""
    seeds: tuple[int, ...]
    """Seeds of the models."""
    keys: tuple[str, ...]
    """Keys of the models' trials, one per seed."""
    points: tuple[OperatingPoint, ...]
    """Operating point of each seed, all of one criterion; or all layers."""
    score: OverSeeds
    """The task's score: the mean of its metrics."""
    metrics: dict[str, OverSeeds]
    """Each of the task's metrics."""
    layer_speedup: OverSeeds
    """Layers of the plain model / mean layers run."""
    flop_speedup: OverSeeds
    """FLOPs of the plain model / FLOPs spent, embedding and heads included."""
    rule: Literal["window", "speedup", "risk"]
    """Name of the chooser (pipeline/evaluation/choosing.py)."""
    in_window: bool
    """Whether every seed's threshold meets the chooser's condition on selection rows; where it does not, it is the
    nearest, the fastest, or the full model."""
    selected_on: str
    """Split on which the threshold was chosen."""
    risk: OverSeeds | None = None
    """Share of this split's rows lost against the full model; None for a chooser that bounds no risk."""

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

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    split: str
    """Name of the split."""
    seed: int
    """Seed of the trial."""
    key: str
    """Key of the trial."""
    layers: tuple[int, ...]
    """Layer of each exit, from 1."""
    scores: tuple[float | None, ...]
    """Score of each exit."""


class Oracle(Part):
    """The bound of leaving at the first exit that is right, which no criterion can beat with these exits."""

    score: float | None
    """The task's score."""
    layer_speedup: float | None
    """As in a row."""
    flop_speedup: float | None
    """As in a row."""


class Calibration(Part):
    """Expected calibration error: accuracy against confidence."""

    bins: int
    """Number of bins of the confidence."""
    error: tuple[float | None, ...]
    """Calibration error of each exit."""


class Outcome(Part):
    """Where rows leave under a criterion at its operating point, and the rows that it loses and wins."""

    criterion: str
    """Name of the criterion."""
    threshold: float | None
    """Its threshold; None: never."""
    exits: tuple[int, ...]
    """Number of rows that leave at each exit."""
    lost: Share | None
    """Rows with a wrong early answer and a right last exit; None for a regression."""
    won: Share | None
    """Rows with a right early answer and a wrong last exit; None for a regression."""
    lost_rows: tuple[int, ...] | None
    """Ids of the first ten lost rows."""
    won_rows: tuple[int, ...] | None
    """Ids of the first ten won rows."""


class Findings(Part):
    """Why early exit helps or hurts on a trace."""

    rows: int
    """Number of rows, all labelled."""
    layers: tuple[float, ...]
    """Layer of each exit."""
    overthinking: Share | None
    """Rows that some exit has right and the last wrong; None for a regression."""
    oracle: Oracle
    """The oracle's score and speed-up."""
    agreement: tuple[tuple[float | None, ...], ...] | None
    """Share of rows with the same answer at two exits, exits x exits; None for a regression."""
    calibration: Calibration | None
    """Calibration of each exit; None for a regression."""
    criteria: tuple[Outcome, ...]
    """Each criterion at its operating point."""


class Diagnosis(Findings):
    """The findings on one multi-exit model and one report split."""

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    split: str
    """Name of the report split."""
    seed: int
    """Seed of the trial."""
    key: str
    """Key of the trial."""


class Choosing(Part):
    """The chooser of thresholds: the settings of `evaluate.choose`, and the window."""

    rule: Literal["window", "speedup", "risk"]
    """window: best score in the window; speedup: nearest above a target; risk: fastest with a bounded loss."""
    window: tuple[float, float]
    """Lowest and highest layer speed-up of `window`."""
    target: float | None = None
    """Layer speed-up of `speedup`."""
    epsilon: float | None = None
    """Share of rows that `risk` may lose."""
    delta: float | None = None
    """Probability with which `risk` may lose more."""
    loss: Literal["gap", "consistency"] | None = None
    """Meaning of a lost row."""
    tolerance: float | None = None
    """Regression: label units by which an answer may be worse."""


class Evaluated(Result):
    """`outputs/evaluate/<task>.json`."""

    made_by: ClassVar[str] = "evaluate"
    task: str
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the task's rows."""
    kind: Literal["classification", "regression"]
    """Kind of the answers."""
    metrics: tuple[str, ...]
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
    """An entry per multi-exit model and report split."""


class CurvePoint(NamedTuple):
    """A line of `outputs/evaluate/<task>.curves.csv`: one setting of a criterion on one model and split.

    Threshold `inf` is the full model; score `nan` is undefined.
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
    """Read the curves that `curves_text` wrote.

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
