"""When patience helps: the exact accuracy of PABEE under independent classifiers, Appendix C and Theorem 1.

The model is binary classification with n independent classifiers. The counter is 0 at the first exit and grows by one
per agreement. The row leaves when it equals t; if it never does, the last classifier answers.
"""

from typing import Annotated, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from pipeline.results import Bound, Counterexample, ExamplePoint, RequiredAccuracy, Simulation
from pipeline.settings import Block, Distinct, Seed, Size

Array = np.ndarray
CELLS = 10_000
"""Cases computed at a time; it bounds the memory."""
EXAMPLE = (0.2, 0.1)
"""The paper's example in 3.4: error rates q of the internal classifiers and p of the last."""


class Simulate(Block):
    """Appendix C and Theorem 1."""

    layers: Annotated[int, Field(ge=1, le=200, strict=True)] = 12
    patiences: Annotated[list[Annotated[int, Field(ge=0, le=200, strict=True)]], Distinct] = list(range(1, 12))
    step: Annotated[float, Field(ge=0.001, lt=0.5, strict=True)] = 0.01
    """Step of the original accuracies of Figure 5, and of the error rates of Theorem 1, which lie below 0.5."""
    samples: Size = 10_000
    seed: Seed = 0


def exact(accuracies: ArrayLike, t: int) -> tuple[Array, Array]:
    """Accuracy and expected layers by dynamic programming over (answer right or wrong, run length).

    Args:
        accuracies: P(right) of each classifier, (..., n); leading axes are independent cases.
        t: patience, 0 or more; t >= n means that the last classifier always answers.

    Returns:
        Accuracy (...) and mean layers run (...).

    Raises:
        ValueError: a probability outside [0, 1], no classifier, or a negative patience.

    >>> accuracy, layers = exact([0.8] * 11 + [0.9], t=3)
    >>> round(float(accuracy), 4)
    0.9791
    """
    a = np.asarray(accuracies, dtype=np.float64)
    _check(a, t)
    if t == 0:
        return a[..., 0].copy(), np.ones(a.shape[:-1])
    n = a.shape[-1]
    # running[..., s, c]: still running, answer s (0 wrong, 1 right), run length c.
    running = np.zeros((*a.shape[:-1], 2, t))
    running[..., 0, 0], running[..., 1, 0] = 1 - a[..., 0], a[..., 0]
    right = np.zeros(a.shape[:-1])
    layers = np.zeros(a.shape[:-1])
    for j in range(1, n):
        p = np.stack([1 - a[..., j], a[..., j]], axis=-1)
        left = running[..., :, t - 1] * p
        right += left[..., 1]
        layers += (j + 1) * left.sum(axis=-1)
        moved = np.zeros_like(running)
        moved[..., :, 1:] = running[..., :, :-1] * p[..., :, None]
        moved[..., :, 0] = running.sum(axis=-1)[..., ::-1] * p
        running = moved
    rest = running.sum(axis=-1)
    return right + rest[..., 1], layers + n * rest.sum(axis=-1)


def simulate(accuracies: ArrayLike, t: int, samples: int, generator: np.random.Generator) -> tuple[float, float]:
    """Accuracy and mean layers by simulation (Appendix C), over `samples` rows of drawn answers.

    >>> share, _ = simulate([0.8] * 11 + [0.9], 3, 10_000, np.random.default_rng(0))
    >>> abs(share - 0.9791) < 0.01
    True
    """
    a = np.asarray(accuracies, dtype=np.float64)
    _check(a, t)
    right = generator.random((samples, a.size)) < a
    count = np.zeros(samples, dtype=np.int64)
    exit_index = np.full(samples, 0 if t == 0 else a.size - 1)
    running = np.full(samples, t > 0)
    for j in range(1, a.size):
        count = np.where(right[:, j] == right[:, j - 1], count + 1, 0)
        leaves = running & (count == t)
        exit_index[leaves] = j
        running &= ~leaves
    return float(right[np.arange(samples), exit_index].mean()), float((exit_index + 1).mean())


def required_accuracy(target: ArrayLike, t: int, n: int, iterations: int = 50) -> Array:
    """The accuracy that n equal classifiers need so that patience t reaches `target` (Figure 5a), by bisection.

    Args:
        target: accuracy without early exit, (...), in [0.5, 1].

    >>> required_accuracy([0.8], 1, 12).round(4).tolist()
    [0.6951]
    """
    goal = np.asarray(target, dtype=np.float64)
    if np.any((goal < 0.5) | (goal > 1)):
        raise ValueError(f"target {goal} is outside [0.5, 1]")
    low, high = np.full(goal.shape, 0.5), np.ones(goal.shape)
    for _ in range(iterations):
        middle = (low + high) / 2
        reached = exact(np.repeat(middle[..., None], n, axis=-1), t)[0] >= goal
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def statement_bound(n: int, t: ArrayLike, q: ArrayLike, p: ArrayLike) -> Array:
    """Theorem 1 as stated: n - t < (1/2q)^t (p/q) - p."""
    t, q, p = _arrays(t, q, p)
    return np.asarray(n - t < (1 / (2 * q)) ** t * (p / q) - p)


def header_bound(n: int, t: ArrayLike, q: ArrayLike, p: ArrayLike) -> Array:
    """Theorem 1 as in the proof's header: n - t < (1/2q)^(t+1) p - q."""
    t, q, p = _arrays(t, q, p)
    return np.asarray(n - t < (1 / (2 * q)) ** (t + 1) * p - q)


def equation_11_bound(n: int, t: ArrayLike, q: ArrayLike, p: ArrayLike) -> Array:
    """Theorem 1 as in equation 11: n - t < (1/2q)^t (p/q) - q."""
    t, q, p = _arrays(t, q, p)
    return np.asarray(n - t < (1 / (2 * q)) ** t * (p / q) - q)


BOUNDS = {"statement": statement_bound, "proof header": header_bound, "equation 11": equation_11_bound}


def promised_from(n: int, q: float, p: float) -> int | None:
    """Smallest patience from which Theorem 1 as stated promises a gain over the last of n classifiers; None: never.

    For q < 1/2 it then promises a gain for every larger patience too, since its left side falls with t and its right
    side grows. Patiences from n - 1 on are left out: all layers run, so there is no gain.

    >>> promised_from(12, 0.2, 0.1), promised_from(24, 0.2, 0.1), promised_from(3, 0.2, 0.1)
    (4, 5, None)
    """
    patiences = np.arange(1, n - 1)
    promised = patiences[statement_bound(n, patiences, q, p)]
    return int(promised[0]) if promised.size else None


def compare_bounds(n: int, patiences: list[int], step: float) -> list[Bound]:
    """Where each bound claims that patience beats the last classifier, and where the exact accuracy agrees.

    The grid has every patience up to n - 2 (at n - 1 all layers run, so there is no gain) and every q, p in (0, 0.5) at
    `step`. A bound is a sufficient condition: `false_claims` counts cells where it promises a gain that does not exist,
    `missed` those where it promises none and there is one.
    """
    rates = np.arange(step, 0.5 - 1e-9, step)
    q, p = (grid.ravel() for grid in np.meshgrid(rates, rates, indexing="ij"))
    counts = {name: dict.fromkeys(("cells", "claims", "true_claims", "false_claims", "missed"), 0) for name in BOUNDS}
    worst: dict[str, Counterexample] = {}
    for t in (t for t in patiences if 1 <= t < n - 1):
        gain = _accuracy(n, t, q, p) - (1 - p)
        truth = gain > 1e-12
        for name, bound in BOUNDS.items():
            claim = bound(n, t, q, p)
            cells = {
                "cells": claim.size,
                "claims": claim.sum(),
                "true_claims": (claim & truth).sum(),
                "false_claims": (claim & ~truth).sum(),
                "missed": (~claim & truth).sum(),
            }
            counts[name] = {key: counts[name][key] + int(value) for key, value in cells.items()}
            wrong = np.where(claim & ~truth, gain, np.inf)
            i = int(np.argmin(wrong))
            if np.isfinite(wrong[i]) and (name not in worst or wrong[i] < worst[name].gain):
                worst[name] = Counterexample(t=t, q=float(q[i]), p=float(p[i]), gain=float(wrong[i]))
    return [Bound(name=name, **counts[name], counterexample=_shown(worst.get(name))) for name in BOUNDS]


def _accuracy(n: int, t: int, q: Array, p: Array) -> Array:
    """Exact accuracy of cases with error rates q of all classifiers but the last, and p of the last, (cells,)."""

    def block(at: slice) -> Array:
        early = np.repeat((1 - q[at])[:, None], n - 1, axis=1)
        return exact(np.concatenate([early, (1 - p[at])[:, None]], axis=1), t)[0]

    return np.concatenate([block(slice(i, i + CELLS)) for i in range(0, len(q), CELLS)])


def _shown(case: Counterexample | None) -> Counterexample | None:
    """The counterexample, rounded for the result."""
    if case is None:
        return None
    return Counterexample(t=case.t, q=_rounded(case.q), p=_rounded(case.p), gain=_rounded(case.gain))


def appendix_c(n: int, patiences: list[int], step: float, samples: int, seed: int) -> Simulation:
    """Figure 5, Theorem 1 and the paper's example (q = 0.2, p = 0.1)."""
    generator = np.random.default_rng(seed)
    targets = np.round(np.arange(0.5, 1 + 1e-9, step), 10)
    rows = []
    for t in patiences:
        for target, required in zip(targets, required_accuracy(targets, t, n), strict=True):
            share, _ = simulate(np.full(n, required), t, samples, generator)
            rows.append(
                RequiredAccuracy(
                    t=t,
                    original_accuracy=_rounded(target),
                    required_accuracy=_rounded(required),
                    reduction=_rounded(target - required),
                    simulated_accuracy_at_required=_rounded(share),
                )
            )
    example = []
    q, p = EXAMPLE
    case = np.array([1 - q] * (n - 1) + [1 - p])
    for t in patiences:
        accuracy, layers = exact(case, t)
        share, _ = simulate(case, t, samples, generator)
        example.append(
            ExamplePoint(
                t=t,
                exact_accuracy=_rounded(accuracy),
                simulated_accuracy=_rounded(share),
                mean_layers=_rounded(layers),
            )
        )
    return Simulation(
        layers=n,
        samples=samples,
        rows=tuple(rows),
        theorem=tuple(compare_bounds(n, patiences, step)),
        example=tuple(example),
    )


def _arrays(t: ArrayLike, q: ArrayLike, p: ArrayLike) -> tuple[Array, Array, Array]:
    q, p = np.asarray(q, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if np.any((q <= 0) | (q >= 1) | (p <= 0) | (p >= 1)):
        raise ValueError("q and p are error rates; each must lie strictly between 0 and 1")
    return np.asarray(t, dtype=np.float64), q, p


def _check(a: Array, t: int) -> None:
    if a.ndim == 0 or a.shape[-1] == 0:
        raise ValueError("accuracies: at least one classifier is needed")
    if np.any((a < 0) | (a > 1)):
        raise ValueError(f"accuracies: {a[(a < 0) | (a > 1)][0]} is not a probability")
    if t < 0:
        raise ValueError(f"patience {t} is negative")


def _rounded(value: SupportsFloat) -> float:
    return round(float(value), 6)
