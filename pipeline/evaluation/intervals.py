"""Intervals for the few numbers a table reports: medians over seeds, proportions, means over examples."""

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

from pipeline.results import OverExamples, OverSeeds


def median_interval(values: Sequence[float]) -> OverSeeds:
    """Median over seeds with the range of the seeds as interval.

    The range of k independent runs covers the population median with probability 1 - 2 * 0.5^k, whatever the
    distribution (order statistics); for five seeds 93.75%. With one seed there is no interval: low and high are None.

    >>> median_interval([0.8, 0.9, 0.7]).median, median_interval([0.8, 0.9, 0.7]).coverage
    (0.8, 0.75)
    """
    array = np.asarray(values, dtype=np.float64)
    single = len(array) < 2
    return OverSeeds(
        median=_number(np.median(array)),
        low=None if single else _number(np.min(array)),
        high=None if single else _number(np.max(array)),
        coverage=None if single else 1 - 2 * 0.5 ** len(array),
        values=tuple(_number(v) for v in array),
    )


def median_range(values: Sequence[float], coverage: float = 0.75) -> tuple[float, float]:
    """The narrowest range of order statistics that holds the population median with a probability of `coverage`.

    Up to five values that is from the smallest to the largest; more values leave the extremes out, so that more of them
    tell more.

    >>> median_range([1.2, 1.0, 1.1]), median_range([1.0, 1.1, 1.2, 1.3, 1.4, 9.0])
    ((1.0, 1.2), (1.1, 1.4))
    """
    ordered, count = sorted(values), len(values)
    cut = 0
    while 2 * (cut + 2) <= count and 1 - 2 * sum(comb(count, i) for i in range(cut + 2)) / 2**count >= coverage:
        cut += 1
    return ordered[cut], ordered[-1 - cut]


def proportion_interval(successes: int, total: int, confidence: float = 0.95) -> OverExamples:
    """A share with its Wilson interval."""
    from scipy import stats

    if total == 0:
        return OverExamples(value=None, n=0)
    interval = stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return OverExamples(
        value=_number(successes / total), low=_number(interval.low), high=_number(interval.high), n=total
    )


def mean_interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> OverExamples:
    """A mean over examples with its bootstrap (BCa) interval; none for fewer than three or all-equal values."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        return OverExamples(value=None, n=0)
    mean = _number(np.mean(array))
    if len(array) < 3 or np.ptp(array) == 0:
        return OverExamples(value=mean, n=len(array))
    from scipy import stats

    result = stats.bootstrap(
        (array,), np.mean, confidence_level=confidence, n_resamples=2000, rng=np.random.default_rng(seed)
    )
    low, high = result.confidence_interval
    return OverExamples(value=mean, low=_number(low), high=_number(high), n=len(array))


def sign_test(better: int, worse: int) -> float:
    """Two-sided p-value of rows that are as often better as worse; on right and wrong answers McNemar's exact test.

    >>> sign_test(0, 0), sign_test(5, 0)
    (1.0, 0.0625)
    """
    from scipy import stats

    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _number(value: float | np.floating[Any]) -> float | None:
    """Round for stored results; None where the value is not defined, so that no reader takes it for 0."""
    return None if not np.isfinite(value) else round(float(value), 6)
