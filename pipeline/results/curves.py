"""Curves: every setting of every criterion, as CSV beside evaluate's results."""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ArtifactError, shown
from pipeline.results.base import refuse_other_names, refuse_repeats
from pipeline.results.evaluated import Evaluated

LARGEST = 1e30
"""Bound on speed-ups, as in rows."""


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


@dataclass(frozen=True)
class Curve:
    """Every setting of one criterion on one model and split; a setting without a defined score is left out."""

    backbone: str
    method: str
    criterion: str
    seed: int
    split: str
    points: tuple[CurvePoint, ...]


def curves_of(points: Iterable[CurvePoint]) -> Iterator[Curve]:
    """The lines of a curves file as curves, in the file's order."""
    for identity, members in groupby(points, key=lambda p: (p.backbone, p.method, p.criterion, p.seed, p.split)):
        yield Curve(*identity, tuple(point for point in members if point.score == point.score))


def curves_text(points: Iterable[CurvePoint]) -> str:
    """Curves as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CurvePoint._fields)
    writer.writerows(points)
    return text.getvalue()


def read_curves(path: Path, evaluated: Evaluated, remedy: str) -> list[CurvePoint]:
    """Read the curves that `curves_text` wrote, of all models and criteria of the results beside them.

    Raises:
        ArtifactError: missing, other columns, a value of the wrong type or out of its range, or not the curves of
            these results.
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
            points.append(_point(row))
        except ValueError as error:
            raise ArtifactError(f"{path}: line {line}: {error}; {remedy}") from None
    try:
        _refuse_other_curves(points, evaluated)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}; {remedy}") from None
    return points


def _point(row: list[str]) -> CurvePoint:
    if len(row) != len(CurvePoint._fields):
        raise ValueError(f"{len(row)} values for {len(CurvePoint._fields)} columns")
    backbone, method, criterion, seed, split, *numbers = row
    threshold, score, layers, flops = map(_number, numbers)
    if math.isnan(threshold) or threshold == -math.inf:
        raise ValueError(f"threshold {threshold} is no number")
    if not (math.isnan(score) or -1 <= score <= 1):
        raise ValueError(f"score {score} is outside -1 to 1")
    if not (0 < layers <= LARGEST and 0 < flops <= LARGEST):
        raise ValueError(f"speed-ups {layers} and {flops} are not above 0")
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 19):
        raise ValueError(f"seed {shown(seed)} is no seed")
    return CurvePoint(backbone, method, criterion, int(seed), split, threshold, score, layers, flops)


def _number(text: str) -> float:
    try:
        return float(text if "_" not in text else "")
    except ValueError:
        raise ValueError(f"{shown(text)} is not a number") from None


def _refuse_other_curves(points: list[CurvePoint], evaluated: Evaluated) -> None:
    """Raise ValueError where the curves are not one for each model, criterion and split of the results."""
    curves = [(identity, [*members]) for identity, members in groupby(points, key=lambda point: point[:5])]
    refuse_repeats("curves", (identity for identity, _ in curves))
    splits = {entry.split for entry in evaluated.exits}
    expected = (
        (backbone, method, criterion, seed, split)
        for backbone, method, seed, _ in evaluated.models
        for of_backbone, of_method, criterion in evaluated.criteria
        if (backbone, method) == (of_backbone, of_method)
        for split in splits
    )
    refuse_other_names("curves", (identity for identity, _ in curves), expected)
    for identity, members in curves:
        refuse_repeats(f"curve {identity}: thresholds", (point.threshold for point in members))
