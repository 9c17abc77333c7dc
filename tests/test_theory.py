"""Known answers of the paper's theory, and the dynamic programme against brute force."""

from itertools import product

import numpy as np
import pytest

from pipeline import theory


def test_known_answers() -> None:
    case = [0.8] * 11 + [0.9]
    assert float(theory.exact(case, 3)[0]) == pytest.approx(0.9791, abs=5e-5)
    assert [t for t in range(13) if theory.exact(case, t)[0] > 0.9 + 1e-12] == list(range(1, 11))
    required = [float(theory.required_accuracy([0.8], t, 12)[0]) for t in (1, 2, 3)]
    np.testing.assert_allclose(required, [0.6951, 0.6471, 0.6501], atol=5e-5)


def brute_force(accuracies: np.ndarray, t: int) -> tuple[float, float]:
    right, layers = 0.0, 0.0
    for outcome in product((0, 1), repeat=len(accuracies)):
        weight = float(np.prod([a if o else 1 - a for a, o in zip(accuracies, outcome, strict=True)]))
        count, leave = 0, len(outcome)
        if t == 0:
            leave = 1
        else:
            for j in range(1, len(outcome)):
                count = count + 1 if outcome[j] == outcome[j - 1] else 0
                if count == t:
                    leave = j + 1
                    break
        right += weight * outcome[leave - 1]
        layers += weight * leave
    return right, layers


@pytest.mark.parametrize("t", range(7))
def test_dynamic_programme_against_all_outcomes(t: int) -> None:
    accuracies = np.array([0.55, 0.9, 0.3, 0.7, 1.0, 0.62])
    accuracy, layers = theory.exact(accuracies, t)
    assert (float(accuracy), float(layers)) == pytest.approx(brute_force(accuracies, t))


def test_leading_axes_are_independent_cases() -> None:
    cases = np.random.default_rng(0).random((4, 3, 9))
    accuracy, layers = theory.exact(cases, 2)
    assert accuracy.shape == layers.shape == (4, 3)
    assert float(accuracy[2, 1]) == pytest.approx(float(theory.exact(cases[2, 1], 2)[0]))


def test_simulation_agrees() -> None:
    accuracies = np.linspace(0.6, 0.95, 12)
    for t in (0, 1, 4, 12):
        share, layers = theory.simulate(accuracies, t, 40_000, np.random.default_rng(t))
        exact_share, exact_layers = theory.exact(accuracies, t)
        assert share == pytest.approx(float(exact_share), abs=0.01)
        assert layers == pytest.approx(float(exact_layers), abs=0.1)


def test_bounds_are_sufficient_below_the_last_patience() -> None:
    found = theory.compare_bounds(12, list(range(1, 12)), step=0.02)
    assert {row.name for row in found} == set(theory.BOUNDS)
    for row in found:
        assert row.claims == row.true_claims + row.false_claims
        assert row.claims > 0
        assert row.missed > 0
        assert row.false_claims == 0


@pytest.mark.parametrize("step", [0.25, 0.1, 0.01, 0.3])
def test_theorem_1_is_held_against_cases_at_the_step_that_is_asked_for(step: float) -> None:
    rates = len(np.arange(step, 0.5 - 1e-9, step))
    found = theory.appendix_c(5, [1, 2, 3, 4], step, 10, 0)
    assert [bound.cells for bound in found.theorem] == [3 * rates**2] * 3
    assert len(found.rows) == 4 * len(np.arange(0.5, 1 + 1e-9, step))


def test_the_papers_example_of_the_statement() -> None:
    """Section 3.4: n = 12, q = .2, p = .1 satisfies the statement for t >= 4, and not for 3."""
    claims = theory.statement_bound(12, np.arange(1, 11), 0.2, 0.1)
    assert claims.tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize(("n", "expected"), [(2, None), (4, 2), (6, 3), (12, 4), (24, 5)])
def test_the_patience_that_the_statement_asks_for_depends_on_the_layers(n: int, expected: int | None) -> None:
    assert theory.promised_from(n, 0.2, 0.1) == expected
    claims = [t for t in range(1, n - 1) if theory.statement_bound(n, t, 0.2, 0.1)]
    assert claims == (list(range(expected, n - 1)) if expected else [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.exact([0.5, 1.2], 1), "1.2 is not a probability"),
        (lambda: theory.exact([0.5], -1), "patience -1"),
        (lambda: theory.exact([], 1), "at least one"),
        (lambda: theory.required_accuracy([0.4], 1, 12), "outside"),
        (lambda: theory.statement_bound(12, 3, 0.0, 0.1), "strictly between"),
    ],
)
def test_impossible_values(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
