"""Why early exit helps or hurts on a trace: overthinking, the oracle, agreement and calibration of exits, rows lost.

All rows of the trace need labels. Findings without a meaning for a regression, or for hard labels, are None.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.criteria import make
from pipeline.evaluation.criteria.base import log_probabilities, negative_entropy
from pipeline.evaluation.metrics import pearson, score
from pipeline.evaluation.point import sweep_at
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace, require_labels
from pipeline.results import (
    Calibration,
    Constant,
    Diagnosis,
    Evaluated,
    Findings,
    ModelGroup,
    OfClass,
    OperatingPoint,
    Oracle,
    Outcome,
    Row,
    Share,
)

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""
EXAMPLES = 10
"""Largest number of row ids in a list."""
NOTHING = "this model has learned nothing: with all layers it is no better than one answer for every row"
INDEPENDENT = 0.05
"""p from which on answers may well not depend on the labels."""


def diagnose(trace: Trace, metrics: tuple[str, ...], points: Sequence[OperatingPoint] = ()) -> Findings:
    """All findings on a trace, with shares rounded to six places.

    Args:
        metrics: the task's, for the oracle's score.
        points: criteria at their thresholds.

    Raises:
        ArtifactError: a row has no label.
        InvalidLogitsError: a logit is NaN.
    """
    require_labels(trace)
    classes = trace.kind == "classification"
    calibrated = classes and not trace.hard
    best = sweep(trace, make("oracle"), np.array([1.0]))
    return Findings(
        rows=trace.rows,
        layers=tuple(round(float(layer), 6) for layer in trace.layers),
        constant=beside_constant(trace, metrics),
        classes=tuple(by_class(trace)) if classes else None,
        overthinking=_among(overthought(trace)) if classes else None,
        oracle=Oracle(
            score=_plain(best.metrics(metrics)["score"][0]),
            layer_speedup=_plain(best.layer_speedup[0]),
            flop_speedup=_plain(best.flop_speedup[0]),
        ),
        agreement=tuple(tuple(map(_plain, row)) for row in agreement(trace)) if classes else None,
        calibration=Calibration(bins=BINS, error=tuple(map(_plain, calibration_error(trace)))) if calibrated else None,
        error=tuple(round(float(share), 6) for share in wrong(trace)) if classes else None,
        entropy=tuple(round(float(nats), 6) for nats in mean_entropy(trace)) if calibrated else None,
        criteria=tuple(outcome(trace, point) for point in points),
    )


def beside_constant(trace: Trace, metrics: tuple[str, ...]) -> Constant:
    """The last exit beside an answer that is the same for every row.

    A score alone does not tell: always the larger class of MRPC has 68.4% right, and a model that learned nothing can
    be above it by luck on few rows.

    Args:
        metrics: the task's.
    """
    last, labels = trace.answers()[:, -1], trace.labels
    if trace.kind == "regression":
        return Constant(score=None, p=_p_of_correlation(last, labels))
    classes = np.arange(trace.logits.shape[-1])
    constants = score(metrics, np.repeat(classes[:, None], trace.rows, axis=1), labels)
    return Constant(score=_plain(np.nanmax(constants)), p=_p_of_independence(last, labels))


def _p_of_independence(answers: np.ndarray, labels: np.ndarray) -> float:
    """p of the chi-squared test on the table of answers by labels; 1 where either is constant."""
    from scipy.special import chdtrc  # scipy.stats takes a second to import

    table = np.zeros((int(answers.max()) + 1, int(labels.max()) + 1))
    np.add.at(table, (answers.astype(np.int64), labels.astype(np.int64)), 1)
    table = table[table.any(axis=1)][:, table.any(axis=0)]
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(chdtrc(freedom, np.sum((table - expected) ** 2 / expected))) if freedom else 1.0


def _p_of_correlation(answers: np.ndarray, labels: np.ndarray) -> float:
    """Two-sided p of the Pearson correlation by Student's t; 1 where either is constant, or below 3 rows."""
    from scipy.special import stdtr

    r, freedom = float(pearson(answers[None], labels)[0]), len(labels) - 2
    if np.isnan(r) or freedom < 1:
        return 1.0
    return float(2 * stdtr(freedom, -abs(r) * np.sqrt(freedom / (1 - r * r)))) if abs(r) < 1 else 0.0


def by_class(trace: Trace) -> list[OfClass]:
    """What the last exit makes of each class: rows, those of them that it has right, and how often it says so."""
    last, names = trace.answers()[:, -1], trace.label_names or tuple(map(str, range(trace.classes)))
    return [
        OfClass(name=name, rows=own, right=right, answered=answered)
        for name, own, right, answered in zip(
            names,
            _per_class(trace, trace.labels),
            _per_class(trace, trace.labels[last == trace.labels]),
            _per_class(trace, last),
            strict=True,
        )
    ]


def _per_class(trace: Trace, classes: np.ndarray) -> tuple[int, ...]:
    """How often each class is there, (classes,)."""
    return tuple(np.bincount(classes.astype(np.int64), minlength=trace.classes).tolist())


@dataclass(frozen=True)
class Learned:
    """Which of a group's models, a seed each, know more through all layers than one answer for every row.

    Attributes:
        by_seed: of every seed that has a diagnosis.
    """

    by_seed: Mapping[int, bool]

    @property
    def ignorant(self) -> int:
        """Number of seeds that do not."""
        return sum(not knows for knows in self.by_seed.values())

    @property
    def nothing(self) -> bool:
        """Whether the group has learned nothing: fewer than half of its seeds have, so its medians are of those that
        have not."""
        return 2 * self.ignorant > len(self.by_seed)


def learned(full: Row, models: Iterable[Diagnosis]) -> Learned:
    """Which seeds of a group have learned: all layers score better than the best constant answer, and what they answer
    depends on the labels.

    Args:
        full: the row of all layers.
        models: diagnoses, of these models among others.
    """
    scores = dict(zip(full.seeds, full.score.values, strict=True))
    wanted = (full.backbone, full.method, full.split)
    own = [one for one in models if (one.backbone, one.method, one.split) == wanted]
    return Learned({one.seed: _knows(scores.get(one.seed), one.constant) for one in own})


def model_learned(evaluated: Evaluated, group: ModelGroup, split: str) -> bool:
    """Whether the first seed's model of a group, the one that answers, knows more than one answer for every row."""
    full = evaluated.all_layers(group.backbone, group.method, split)
    return learned(full, evaluated.diagnosis).by_seed[group.trials[0].seed]


def _knows(score: float | None, constant: Constant) -> bool:
    return (score or 0.0) > (constant.score or 0.0) and constant.p < INDEPENDENT


def wrong(trace: Trace) -> np.ndarray:
    """Share of rows that each exit alone has wrong, (exits,)."""
    return np.asarray(np.mean(trace.answers() != trace.labels[:, None], axis=0))


def mean_entropy(trace: Trace) -> np.ndarray:
    """Mean entropy of each exit's prediction in nats, (exits,): -sum_c p(c) ln p(c), as in the paper's Figure 2b."""
    return np.array([-np.mean(negative_entropy(trace.logits[:, j].astype(np.float64))) for j in range(trace.exits)])


def overthought(trace: Trace) -> np.ndarray:
    """Rows that some exit gets right and the last gets wrong (Kaya et al. 2019, "destructive" overthinking), (n,)."""
    right = trace.answers() == trace.labels[:, None]
    return np.asarray(right.any(axis=1) & ~right[:, -1])


def agreement(trace: Trace) -> np.ndarray:
    """Share of rows with the same answer at two exits, (exits, exits): symmetric, 1 on the diagonal."""
    answers = trace.answers()
    return np.stack([np.mean(answers == answers[:, [j]], axis=0) for j in range(trace.exits)])


def calibration_error(trace: Trace, bins: int = BINS) -> np.ndarray:
    """Expected calibration error of each exit, (exits,) (Naeini et al. 2015; Guo et al. 2017).

    ECE = sum_b |B_b| / n * |accuracy(B_b) - confidence(B_b)|, over `bins` bins ((b-1)/bins, b/bins] of the largest
    softmax probability.
    """
    errors = []
    for j in range(trace.exits):
        confidence = np.exp(np.max(log_probabilities(trace.logits[:, j]), axis=-1))
        right = np.argmax(trace.logits[:, j], axis=-1) == trace.labels
        index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        gaps = np.bincount(index, weights=right - confidence, minlength=bins)
        errors.append(np.sum(np.abs(gaps)) / trace.rows)
    return np.array(errors)


def outcome(trace: Trace, point: OperatingPoint) -> Outcome:
    """Where rows leave at an operating point, and the rows that it loses and wins against the full model.

    A row is lost where the early answer is wrong and the full model right, and won in the opposite case.
    """
    swept = sweep_at(trace, point)
    exits = tuple(int(count) for count in swept.exit_counts[0])
    name = point.criterion or "all layers"
    if trace.kind == "regression":
        return Outcome(
            criterion=name, threshold=point.threshold, exits=exits, lost=None, won=None, lost_rows=None, won_rows=None,
            lost_by_class=None, won_by_class=None,
        )  # fmt: skip
    early, full = swept.predictions[0] == trace.labels, trace.answers()[:, -1] == trace.labels
    return Outcome(
        criterion=name,
        threshold=point.threshold,
        exits=exits,
        lost=_among(full & ~early),
        won=_among(early & ~full),
        lost_rows=_some(trace, full & ~early),
        won_rows=_some(trace, early & ~full),
        lost_by_class=_per_class(trace, trace.labels[full & ~early]),
        won_by_class=_per_class(trace, trace.labels[early & ~full]),
    )


def _among(flags: np.ndarray) -> Share:
    return Share(rows=int(flags.sum()), share=round(float(flags.mean()), 6))


def _some(trace: Trace, flags: np.ndarray) -> tuple[int, ...]:
    return tuple(int(row) for row in trace.row_ids[flags][:EXAMPLES])


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
