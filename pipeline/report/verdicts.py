"""Does patience win? Paired by seed: the same trained model under two criteria, on the same rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.intervals import median_interval
from pipeline.report.between import line_of, scores_at
from pipeline.report.cells import slug
from pipeline.report.stored import SINGLE_EXIT, TaskResults
from pipeline.results import Curve, Interval, OverSeeds, Row

CHAMPION = "patience"
ALL_LAYERS, SINGLE = "all layers", "single exit"


@dataclass(frozen=True)
class Verdict:
    """Patience against one rival, both at their operating points; differences are patience minus rival.

    Attributes:
        champion, rival: their rows.
        name: of the rival: a criterion, "all layers" of the same model, or another model of the same seed: "single
            exit", or the method of a model that was made smaller.
        own_points: difference at each one's own operating point.
        same_speed: difference to the rival's curve at patience's layer speed-up; None for a rival without a curve.
    """

    task: TaskResults
    champion: Row
    rival: Row
    name: str
    own_points: OverSeeds
    same_speed: OverSeeds | None

    @property
    def compared(self) -> bool:
        """Whether both models have learned: else neither is ahead of anything."""
        return not any(self.task.learned(row).nothing for row in (self.champion, self.rival))


def word(difference: Interval) -> str:
    """The verdict in a word or two: ahead or behind on every seed; a range that holds 0 decides nothing.

    >>> ahead, open_range = OverSeeds(median=0.4, low=0.1, high=0.9), OverSeeds(median=0.4, low=-0.1, high=0.9)
    >>> word(ahead), word(open_range), word(OverSeeds(median=0.4))
    ('ahead', 'not told apart', 'ahead (one seed)')
    """
    if difference.centre is None:
        return "n/a"
    if difference.low is None or difference.high is None:
        side = "ahead" if difference.centre > 0 else "behind" if difference.centre < 0 else "equal"
        return f"{side} (one seed)"
    if difference.low == difference.high == 0:
        return "equal"
    if difference.low > 0:
        return "ahead"
    return "behind" if difference.high < 0 else "not told apart"


def verdicts(tasks: Iterable[TaskResults]) -> list[Verdict]:
    """Patience against every other criterion of the same split, backbone and method, and against models without early
    exits, task by task. Bounds (oracle, random) are no rivals: nobody can run them."""
    return [
        verdict
        for task in tasks
        for champion in task.rows
        if champion.criterion == CHAMPION
        for verdict in sorted((_against(task, champion, rival) for rival in _rivals(task, champion)), key=place)
    ]


def _rivals(task: TaskResults, champion: Row) -> list[Row]:
    return [
        row
        for row in task.rows
        if (row.split, row.backbone) == (champion.split, champion.backbone)
        and row is not champion
        and (row.method == champion.method or not task.group(row).multi_exit)
        and (row.criterion is None or CRITERIA[row.criterion].causal)
    ]


def place(verdict: Verdict) -> int:
    """Sorts rivals: criteria keep their order and come first, then all layers, the single exit, smaller models."""
    if verdict.rival.criterion:
        return 0
    return (ALL_LAYERS, SINGLE).index(verdict.name) + 1 if verdict.name in (ALL_LAYERS, SINGLE) else 3


def _against(task: TaskResults, champion: Row, rival: Row) -> Verdict:
    same_model = rival.method == champion.method
    other = SINGLE if rival.method == SINGLE_EXIT else rival.method.replace("_", " ")
    name = rival.criterion or (ALL_LAYERS if same_model else other)
    same = None
    if same_model and rival.criterion:
        curves = _curves(task, champion, rival.criterion)
        same = _over_seeds([_at_its_speed(champion, i, curves.get(seed)) for i, seed in enumerate(champion.seeds)])
    return Verdict(task, champion, rival, name, paired(champion, rival), same)


def paired(row: Row, other: Row) -> OverSeeds:
    """A row's score minus another's, paired by seed, over the seeds that both have."""
    scores = dict(zip(other.seeds, other.score.values, strict=True))
    of_seed = zip(row.seeds, row.score.values, strict=True)
    return _over_seeds([_minus(score, scores[seed]) for seed, score in of_seed if seed in scores])


def _curves(task: TaskResults, champion: Row, criterion: str) -> dict[int, Curve]:
    """A rival's curve of each seed, on the champion's model and split."""
    wanted = (champion.backbone, champion.method, criterion, champion.split)
    return {c.seed: c for c in task.curves if (c.backbone, c.method, c.criterion, c.split) == wanted}


def _at_its_speed(champion: Row, i: int, curve: Curve | None) -> float | None:
    """One seed: patience's score minus the rival's curve at patience's speed; None outside what the curve reaches."""
    speed = champion.layer_speedup.values[i]
    if curve is None or speed is None:
        return None
    return _minus(champion.score.values[i], score_at(curve, speed))


def score_at(curve: Curve, speed: float) -> float | None:
    """A curve's score at a layer speed-up; None where it does not reach."""
    score = float(scores_at(line_of(curve), np.array([speed]))[0])
    return None if np.isnan(score) else score


def headlines(every: Sequence[Verdict]) -> dict[str, float]:
    """Numbers for the tracking server: patience minus each rival, in points, and how often it was told apart.

    Models that have learned nothing are left out.
    """
    every = [v for v in every if v.compared]
    decided = [v.own_points for v in every if v.own_points.low is not None and v.own_points.high is not None]
    out = {
        "comparisons": float(len(every)),
        "patience_ahead": float(sum((gap.low or 0) > 0 for gap in decided)),
        "patience_behind": float(sum((gap.high or 0) < 0 for gap in decided)),
    }
    for v in every:
        if v.own_points.centre is not None:
            names = (v.task.name, v.champion.split, v.champion.backbone, v.champion.method)
            out[f"{'.'.join(map(slug, names))}.minus_{slug(v.name).replace('-', '_')}"] = 100 * v.own_points.centre
    return out


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _over_seeds(differences: Sequence[float | None]) -> OverSeeds:
    """Median and range of paired differences; not defined as soon as one seed's is not."""
    values = [value for value in differences if value is not None]
    if not values or len(values) < len(differences):
        return OverSeeds(median=None)
    return median_interval(values)
