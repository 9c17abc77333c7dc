"""The laws of an exit criterion, over one case table; hand-made answers; live equals replay."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import theory
from pipeline.errors import ArtifactError, InvalidLogitsError, ParamsError, UnsupportedError
from pipeline.evaluation.criteria import CRITERIA, Criterion, fitted_values, make
from pipeline.evaluation.leaving import Leaving, Rule, leave_recorded
from pipeline.evaluation.sweep import NEVER, exits_at, first_past, scan, sweep
from pipeline.evaluation.trace import Trace

EXITS = 7
FITTED = {
    "temperature": {"temperatures": [0.5, 1.5, 2.0, 1.0, 0.7, 3.0, 1.1]},
    "ensemble": {
        "weights": [[0.3 + 0.1 * i for i in range(j + 1)] for j in range(EXITS)],
        "biases": [[0.1 * j, 0.0, -0.2] for j in range(EXITS)],
    },
    "gates": {"gates": [[2.0 + j, -0.5, 0.3 * j, 0.4, -2.0 + 0.1 * j] for j in range(EXITS - 1)]},
    "scheduled": {
        "scores": [[0.3, -0.2, 0.1, 2.0, 1.0, *([0.2] * j), -1.0] for j in range(EXITS)],
        "cuts": [*(0.9 - 0.05 * j for j in range(EXITS - 1)), 0.0],
    },
}
"""Criteria that learn from rows are held to the laws twice: as they are, and as if they had learned this."""


@dataclass(frozen=True)
class Case:
    criterion: Criterion
    regression: bool

    def __str__(self) -> str:
        kind = "r" if self.regression else "c"
        return f"{self.criterion.name}-{kind}{'-fitted' if any(fitted_values(self.criterion).values()) else ''}"


def cases_of(criterion: Criterion) -> list[Case]:
    """What the laws hold a criterion to: classification, and regression where it has a meaning there."""
    return [Case(criterion, regression) for regression in (False, True) if criterion.regression or not regression]


CASES = [case for name in CRITERIA for case in cases_of(make(name))] + [
    Case(make(name, fitted=fitted), regression=False) for name, fitted in FITTED.items()
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_causal_case = pytest.mark.parametrize("case", [c for c in CASES if c.criterion.causal], ids=str)


def trace_of(logits: np.ndarray, labels: np.ndarray | None = None, **channels: np.ndarray) -> Trace:
    n, exits, classes = logits.shape
    return Trace(
        kind="regression" if classes == 1 else "classification",
        logits=logits.astype(np.float32),
        labels=np.zeros(n) if labels is None else labels,
        row_ids=np.arange(n),
        layers=np.arange(1.0, exits + 1),
        flops=np.tile(np.arange(1.0, exits + 1), (n, 1)),
        full_flops=np.full(n, float(exits)),
        channels=channels,
    )


def criterion_scores(trace: Trace, criterion: Criterion) -> np.ndarray:
    return scan(trace, criterion)[0]


def exit_indices(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """First exit whose score reaches each threshold, else the last: (n, exits), ascending (k,) to (k, n), 0-based."""
    return exits_at(first_past(scores, thresholds), np.arange(len(thresholds)))


def take(trace: Trace, rows: np.ndarray) -> Trace:
    names = ("logits", "labels", "row_ids", "flops", "full_flops")
    channels = {name: values[rows] for name, values in trace.channels.items()}
    return replace(trace, channels=channels, **{name: getattr(trace, name)[rows] for name in names})


def random_trace(case: Case, seed: int, rows: int = 40, exits: int = EXITS) -> Trace:
    classes = 1 if case.regression else 3
    generator = np.random.default_rng(seed)
    # Rounded, so that ties and exact repeats happen.
    logits = generator.normal(size=(rows, exits, classes)).round(1)
    labels = generator.normal(size=rows).round(1) if case.regression else generator.integers(0, 3, rows).astype(float)
    said = generator.uniform(size=(rows, exits)).round(2).astype(np.float32)
    reads = case.criterion.reads
    return trace_of(logits, labels, **({reads: said} if reads != "logits" and case.criterion.causal else {}))


seeds = st.integers(0, 2**32 - 1)


@each_case
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_scores_are_within_reach(case: Case, scale: float) -> None:
    """A warning about a threshold outside would be wrong else."""
    trace = random_trace(case, seed=3, rows=200)
    trace = replace(trace, logits=trace.logits * np.float32(scale))
    low, high = case.criterion.reach(trace.exits, trace.classes)
    scores = criterion_scores(trace, case.criterion)
    if type(case.criterion).reach is not Criterion.reach:  # a criterion of one's own need not say
        assert np.isfinite([low, high]).all()
    assert low - 1e-12 <= scores.min() <= scores.max() <= high + 1e-12
    thresholds = case.criterion.thresholds(trace.exits, trace.classes)
    assert low - 1e-12 <= thresholds[0] <= thresholds[-1] <= high + 1e-12


def test_a_criterion_that_says_nothing_has_no_bounds() -> None:
    class Mine(type(make("confidence"))):  # type: ignore[misc]
        reach = Criterion.reach

    assert Mine().reach(3, 2) == (-np.inf, np.inf)


def check_never_peeks(case: Case, seed: int, exit_index: int) -> None:
    trace, other = random_trace(case, seed), random_trace(case, seed + 1)
    later = np.arange(trace.exits) > exit_index
    changed = replace(
        trace,
        logits=np.where(later[None, :, None], other.logits, trace.logits),
        channels={n: np.where(later[None, :], other.channels[n], v) for n, v in trace.channels.items()},
    )
    for before, after in zip(scan(trace, case.criterion), scan(changed, case.criterion), strict=True):
        np.testing.assert_array_equal(before[:, ~later], after[:, ~later])


def check_monotone(case: Case, seed: int) -> None:
    swept = sweep(random_trace(case, seed), case.criterion)
    assert (np.diff(swept.thresholds) > 0).all()
    assert (np.diff(swept.exit_index, axis=0) >= 0).all()
    assert (np.diff(swept.layer_speedup) <= 1e-12).all()


def check_top_is_the_full_model(case: Case, seed: int) -> None:
    trace = random_trace(case, seed)
    top = sweep(trace, case.criterion, np.array([NEVER]))
    assert (top.exit_index == trace.exits - 1).all()
    np.testing.assert_array_equal(top.predictions[0], trace.answers()[:, -1])
    assert top.layer_speedup[0] == 1.0


def check_rows_are_independent(case: Case, seed: int) -> None:
    trace = random_trace(case, seed)
    together = scan(trace, case.criterion)
    order = np.random.default_rng(seed).permutation(trace.rows)
    batches = [order, *np.split(order, [1, 2, 3, 10])]  # all of them, one alone, batches of several sizes
    for rows in batches:
        for expected, found in zip(together, scan(take(trace, rows), case.criterion), strict=True):
            np.testing.assert_array_equal(found, expected[rows])


def check_torch_and_numpy_agree(case: Case, seed: int) -> None:
    import torch

    trace, criterion = random_trace(case, seed), case.criterion
    values, logits = torch.from_numpy(criterion.values(trace)), torch.from_numpy(trace.logits)
    state = criterion.start(trace.rows, values[:, 0])
    scores, answers = scan(trace, criterion)
    for j in range(trace.exits):
        state, score = criterion.step(state, values[:, j])
        np.testing.assert_allclose(score.numpy(), scores[:, j], rtol=1e-12, atol=1e-12)
        given = criterion.answer(state, logits[:, j]).float()
        if j < trace.exits - 1:
            found = given[:, 0] if case.regression else given.argmax(-1)
            np.testing.assert_array_equal(found.double().numpy(), answers[:, j])


@each_causal_case
@settings(max_examples=20, deadline=None)
@given(seed=seeds, exit_index=st.integers(0, EXITS - 2))
def test_never_peeks_past_its_exit(case: Case, seed: int, exit_index: int) -> None:
    check_never_peeks(case, seed, exit_index)


@each_case
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_higher_threshold_never_exits_earlier(case: Case, seed: int) -> None:
    check_monotone(case, seed)


@each_case
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_the_top_threshold_is_the_full_model(case: Case, seed: int) -> None:
    check_top_is_the_full_model(case, seed)


@each_case
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_rows_influence_neither_each_other_nor_their_batch(case: Case, seed: int) -> None:
    check_rows_are_independent(case, seed)


@each_case
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_torch_and_numpy_take_the_same_exits(case: Case, seed: int) -> None:
    check_torch_and_numpy_agree(case, seed)


@each_case
def test_nan_is_a_named_error(case: Case) -> None:
    trace = random_trace(case, 0)
    logits = trace.logits.copy()
    logits[3, 2] = np.nan
    with pytest.raises(InvalidLogitsError, match="logits of row 3 are NaN at exit 3"):
        sweep(replace(trace, logits=logits), case.criterion)
    for name, values in trace.channels.items():
        said = values.copy()
        said[4, 1] = np.nan
        with pytest.raises(InvalidLogitsError, match=f"channel '{name}' of row 4 are NaN at exit 2"):
            sweep(replace(trace, channels={name: said}), case.criterion)


@each_case
def test_ties_and_a_dominating_class_are_decided_like_any_row(case: Case) -> None:
    classes = 1 if case.regression else 3
    tie, sure = np.zeros((EXITS, classes)), np.zeros((EXITS, classes))
    sure[:, 0] = 1e30  # beyond what exp can hold
    two = np.zeros((EXITS, classes))
    two[:, -2:] = 4.0
    labels = np.array([0.0, sure[0, 0], 4.0]) if case.regression else np.array([0.0, 0.0, 1.0])
    trace = replace(random_trace(case, 0, rows=3), logits=np.stack([tie, sure, two]).astype(np.float32), labels=labels)
    scores, answers = scan(trace, case.criterion)
    assert np.isfinite(scores).all()
    if not case.regression:  # a tie is the lower index, unless a criterion that answers for itself learned otherwise
        expected = [[0.0] * EXITS, [0.0] * EXITS, [1.0] * EXITS]
        np.testing.assert_array_equal(answers if not FITTED.get(case.criterion.name) else expected, expected)
    swept = sweep(trace, case.criterion)
    assert (swept.exit_index[-1] == EXITS - 1).all()


@each_case
def test_infinite_logits_never_leave_silently(case: Case) -> None:
    """A class that is ruled out (-inf) is decided like any other; +inf, or -inf in every class, has no distribution."""
    if case.regression or case.criterion.reads != "logits":
        return
    trace = random_trace(case, 0)
    ruled_out, overflown = trace.logits.copy(), trace.logits.copy()
    ruled_out[5, 3, 0], overflown[5, 3, 0] = -np.inf, np.inf
    assert np.isfinite(scan(replace(trace, logits=ruled_out), case.criterion)[0][5, 3])
    nothing = overflown.copy()
    nothing[5, 3] = -np.inf
    for logits in (overflown, nothing):
        with pytest.raises(InvalidLogitsError, match=r"of row 5 at exit 4 are .* which is no answer; write finite"):
            scan(replace(trace, logits=logits), case.criterion)


# Live equals replay


@each_causal_case
def test_live_equals_replay(case: Case) -> None:
    """Every row leaves where replay says, with the answer that replay says, in batches of any size."""
    check_live_equals_replay(case)


def check_live_equals_replay(case: Case) -> None:
    import torch

    from pipeline.models.live import LiveEngine
    from tests.chain import chain_model

    reads = case.criterion.reads
    channels = () if reads == "logits" else (reads,)
    model = chain_model(1 if case.regression else 3, layers=EXITS, channels=channels)
    x = torch.randn(48, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, said = model.record({"x": x}, channels)
    trace = trace_of(logits.numpy(), **{name: values.numpy() for name, values in said.items()})
    scores, answers = scan(trace, case.criterion)
    levels = np.unique(scores[:, :-1])
    between = (levels[1:] + levels[:-1])[np.linspace(0, len(levels) - 2, 6, dtype=int)] / 2
    spread = set()
    for threshold in (-np.inf, *between, NEVER):
        expected = exit_indices(scores, np.array([threshold]))[0]
        engine = LiveEngine(model, case.criterion, threshold)
        recorded, of_channels = engine.record({"x": x})
        np.testing.assert_array_equal(recorded, logits)
        leaving = leave_recorded(engine.rule, recorded, of_channels)
        np.testing.assert_array_equal(leaving.exit_index, expected)
        np.testing.assert_allclose(leaving.logits, engine({"x": x}).logits, rtol=1e-5, atol=1e-6)
        for size in (48, 7, 1):
            found = [engine({"x": part}) for part in x.split(size)]
            np.testing.assert_array_equal(np.concatenate([a.exit_index for a in found]), expected)
            given = np.concatenate([a.logits for a in found])
            if case.regression:
                np.testing.assert_allclose(given[:, 0], answers[np.arange(48), expected], rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(given.argmax(-1), answers[np.arange(48), expected])
        spread |= set(expected.tolist())
    assert len(spread) > 3, "the case must hold rows that leave at different exits"


def asked_at(criterion: Criterion, threshold: float, logits: np.ndarray, **channels: np.ndarray) -> list[int]:
    """The exit behind whose layer each exit is asked, for rows, (n, exits, outputs), that run together."""
    rule = Rule(criterion, threshold, logits.shape[1], logits.shape[2], tuple(channels))
    leaving, running = Leaving(rule, len(logits)), np.arange(len(logits))
    passed: list[int] = []
    asked: list[int] = []
    values = logits if rule.reads == "logits" else channels[rule.reads]

    def ask(exits: Sequence[int], states: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        asked.extend(passed[-1:] * len(exits))
        given = [logits[rows, at] for at, rows in zip(exits, states, strict=True)]
        if values is logits:
            return [(one, one) for one in given]
        return [(one, values[rows, at]) for one, at, rows in zip(given, exits, states, strict=True)]

    for exit_index in range(logits.shape[1]):
        passed.append(exit_index)
        stay = leaving.after_layer(exit_index, running, ask)
        running = running if stay is None else running[stay]
        if not len(running):
            break
    recorded = leave_recorded(rule, logits, channels)
    np.testing.assert_array_equal(leaving.exit_index, recorded.exit_index)
    np.testing.assert_array_equal(leaving.logits, recorded.logits)
    return asked


@each_causal_case
@settings(max_examples=20, deadline=None)
@given(seed=seeds, rows=st.sampled_from([1, 2, 9]))
def test_exits_at_which_no_row_can_leave_are_asked_later_and_change_nothing(case: Case, seed: int, rows: int) -> None:
    check_waits(case, seed, rows)


def check_waits(case: Case, seed: int, rows: int) -> None:
    trace = random_trace(case, seed, rows)
    thresholds = case.criterion.thresholds(trace.exits, trace.classes)
    for threshold in (-np.inf, *thresholds[:: max(1, len(thresholds) // 8)], *(thresholds[:8] + 0.5), NEVER):
        asked = asked_at(case.criterion, threshold, trace.logits, **trace.channels)
        assert asked == sorted(asked)


def test_when_an_exit_is_asked_by_hand() -> None:
    """Of one row. Patience t: the first t + 1 exits together; behind a change, the t that must agree with it."""
    agree, late, never = one_hot([[1] * 7]), one_hot([[0, 0, 1, 1, 1, 1, 1]]), one_hot([[0, 1, 0, 1, 0, 1, 0]])
    patience = make("patience")
    assert asked_at(patience, 0, agree) == [0]
    assert asked_at(patience, 3, agree) == [3, 3, 3, 3]
    assert asked_at(patience, 2.5, agree) == [3, 3, 3, 3]
    assert asked_at(patience, 3, late) == [3, 3, 3, 3, 5, 5]
    assert asked_at(patience, 3, never) == [3, 3, 3, 3, 6, 6, 6]
    assert asked_at(patience, 3, np.concatenate([agree, late, never])) == [0, 1, 2, 3, 4, 5, 6], "a batch never waits"
    assert asked_at(patience, NEVER, agree) == [6] * 7
    assert asked_at(make("fixed"), 5, never) == [4] * 5
    assert asked_at(make("voting", {"power": 0.0}), 3, never) == [2, 2, 2, 3, 4]
    assert asked_at(make("voting"), 2, agree) == [3, 3, 3, 3]
    assert asked_at(make("patient_confidence"), 3, never) == [2, 2, 2]
    assert asked_at(make("confidence"), 1.0, one_hot([[0] * 7])) == [*range(7)]
    # What an exit costs is measured as for a criterion that may leave at each.
    from pipeline.models.costs import EveryExit

    assert asked_at(EveryExit(), 5, never) == [*range(5)]


def test_a_row_that_leaves_before_its_criterion_said_is_an_error() -> None:
    class Mine(type(make("confidence"))):  # type: ignore[misc]
        def wait(self, state: Any, threshold: float, exits_left: int) -> int:
            return exits_left + 1

    assert asked_at(Mine(), NEVER, one_hot([[0] * 7])) == [6] * 7
    with pytest.raises(ArtifactError, match="'confidence': a row leaves before `wait` said that one can; mend `wait`"):
        asked_at(Mine(), 0.5, one_hot([[0] * 7]))


def test_live_refuses_what_it_cannot_run() -> None:
    from pipeline.models.live import LiveEngine
    from tests.chain import chain_model

    model = chain_model(3, channels=())
    for name in ("oracle", "random"):
        with pytest.raises(UnsupportedError, match=f"'{name}' is a bound that only replay can compute"):
            LiveEngine(model, make(name))
    with pytest.raises(UnsupportedError, match=r"reads channel 'lte', which the model lacks; .* 'berxit'"):
        LiveEngine(model, make("learned"))


def test_live_refuses_nan_in_a_channel() -> None:
    import torch

    from pipeline.models.live import LiveEngine
    from tests.chain import chain_model

    model = chain_model(3)
    with torch.no_grad():
        model.channels["lte"].bias.fill_(torch.nan)
    with pytest.raises(InvalidLogitsError, match="answered NaN"):
        LiveEngine(model, make("learned"), 0.5)({"x": torch.zeros(2, 16)})


# By hand


def one_hot(classes: list[list[int]]) -> np.ndarray:
    return np.eye(3)[np.array(classes)] * 5


def test_patience_by_hand() -> None:
    trace = trace_of(one_hot([[0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1], [2, 2, 2, 2, 2, 0]]))
    scores = criterion_scores(trace, make("patience"))
    np.testing.assert_array_equal(scores, [[0, 1, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 0]])
    exits = exit_indices(scores, np.array([0.0, 1, 2, 4, 9]))
    np.testing.assert_array_equal(exits.T, [[0, 1, 4, 5, 5], [0, 5, 5, 5, 5], [0, 1, 2, 4, 5]])


def test_patience_leaves_at_layer_t_plus_1_at_the_earliest() -> None:
    trace = trace_of(one_hot([[1] * 12]))
    assert sweep(trace, make("patience"), np.array([6.0])).layer_speedup[0] == 12 / 7


def test_regression_patience_takes_the_absolute_difference() -> None:
    falling = np.array([[[3.0], [1.0], [0.9], [0.95], [4.0]]])
    scores = criterion_scores(trace_of(falling), make("patience", {"tau": 0.5}))
    np.testing.assert_array_equal(scores, [[0, 0, 1, 2, 0]])


def test_confidence_and_entropy_by_hand() -> None:
    p = np.array([0.7, 0.2, 0.1])
    trace = trace_of(np.log(p)[None, None, :] + 3.0)
    np.testing.assert_allclose(criterion_scores(trace, make("confidence")), [[0.7]], rtol=1e-6)
    np.testing.assert_allclose(criterion_scores(trace, make("entropy")), [[np.sum(p * np.log(p))]], rtol=1e-6)


def test_entropy_at_its_lowest_threshold_leaves_at_once() -> None:
    swept = sweep(trace_of(np.zeros((4, 5, 3))), make("entropy"))
    assert swept.exit_index[0].max() == 0


def test_huge_logits_are_certain_and_not_nan() -> None:
    trace = trace_of(np.array([[[1e30, -1e30, 0.0]]]))
    assert criterion_scores(trace, make("confidence"))[0, 0] == 1.0
    assert criterion_scores(trace, make("entropy"))[0, 0] == 0.0


def test_classification_rules_refuse_regression() -> None:
    trace = trace_of(np.zeros((2, 3, 1)))
    for name in (name for name, cls in CRITERIA.items() if not cls.regression):
        with pytest.raises(UnsupportedError, match="use patience"):
            sweep(trace, make(name))


def test_unknown_names_are_answered() -> None:
    with pytest.raises(ParamsError, match="did you mean 'patience'"):
        make("patince")
    with pytest.raises(ParamsError, match="unknown setting of patience 'tua'; did you mean 'tau'"):
        make("patience", {"tua": 0.5})


@pytest.mark.parametrize("seed", [-1, 0.5, np.nan, np.inf, 2**64])
def test_a_seed_that_throws_no_dice_is_refused_before_anything_runs(seed: float) -> None:
    with pytest.raises(ParamsError, match=r"^random\.seed: .* is not a whole number"):
        CRITERIA["random"](seed=seed)  # type: ignore[call-arg]
    assert make("random", {"seed": 3.0}).values(trace_of(np.zeros((2, 3, 2)))).shape == (2, 3)


@pytest.mark.parametrize(("name", "setting"), [("patience", "tau"), ("voting", "power"), ("random", "seed")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_settings_that_are_not_finite_are_refused(name: str, setting: str, value: float) -> None:
    with pytest.raises(ParamsError, match=rf"^evaluate\.criteria\.{name}\.{setting}: {value} is not a finite number"):
        make(name, {setting: value}, key="evaluate.criteria")


def test_a_missing_channel_names_the_method_that_records_it() -> None:
    with pytest.raises(ArtifactError, match=r"no channel 'lte', .* 'learned' reads; train with method 'berxit'"):
        sweep(trace_of(np.zeros((2, 3, 3))), make("learned"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.full((2, 3, 4), 0.5),
            r"channel 'lte' has shape \(rows, exits, 4\), and criterion 'learned' reads \(rows, exits\)",
        ),
        (np.full((2, 3, 1), 0.5), r"channel 'lte' has shape \(rows, exits, 1\)"),
        (
            np.array([[0.5, 0.5, 0.5], [0.5, 2.0, 0.5]]),
            "'lte' of row 1 is 2 at exit 2, .*; write it from 0 to 1",
        ),
        (np.array([[0.5, 0.5, 0.5], [-0.1, 0.5, 0.5]]), "channel 'lte' of row 1 is -0.1 at exit 1"),
    ],
)
def test_a_channel_that_learned_cannot_read(values: np.ndarray, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        sweep(trace_of(np.zeros((2, 3, 3)), lte=values), make("learned"))


@pytest.mark.parametrize(
    ("width", "shape", "reads"),
    [(4, (2, 3), r"\(rows, exits, 4\)"), (4, (2, 3, 3), r"\(rows, exits, 4\)"), (None, (2, 3), r"\(rows, exits, k\)")],
)
def test_a_channel_of_another_width(width: int | None, shape: tuple[int, ...], reads: str) -> None:
    class Wide(type(make("confidence"))):  # type: ignore[misc]
        reads = "hidden"

    Wide.width = width
    with pytest.raises(ArtifactError, match=rf"channel 'hidden' .* reads {reads}; write it in that shape"):
        sweep(trace_of(np.zeros((2, 3, 3)), hidden=np.zeros(shape)), Wide())
    sweep(trace_of(np.zeros((2, 3, 3)), hidden=np.zeros((2, 3, 4))), Wide())


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("temperature", {"temperatures": [1.0, 1.0]}),
        ("ensemble", {"weights": [[1.0], [0.5, 0.5]], "biases": [[0.0] * 3] * 2}),
        ("ensemble", {"weights": [[1.0], [0.5, 0.5], [0.3, 0.3]], "biases": [[0.0] * 3] * 3}),
        ("ensemble", {"weights": [[1.0], [0.5, 0.5], [0.3, 0.3, 0.3]], "biases": [[0.0] * 2] * 3}),
    ],
)
def test_a_fit_to_another_model_is_refused_by_both_engines(name: str, fitted: dict[str, Any]) -> None:
    from pipeline.models.live import LiveEngine
    from tests.chain import chain_model

    criterion = make(name, fitted=fitted)
    message = f"criterion '{name}': what it learned is not for 3 exits and 3 classes; .*dvc repro -f evaluate"
    with pytest.raises(ArtifactError, match=message):
        sweep(trace_of(np.zeros((2, 3, 3))), criterion)
    with pytest.raises(ArtifactError, match=message):
        LiveEngine(chain_model(3, layers=3), criterion, 0.5)


def probabilities(p: list[list[float]]) -> np.ndarray:
    """One row whose exits predict these distributions, (1, exits, classes)."""
    return np.log(np.array(p))[None]


def test_normalised_entropy_by_hand() -> None:
    trace = trace_of(probabilities([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25]]))
    half = 1.5 * np.log(2) / np.log(3)
    np.testing.assert_allclose(criterion_scores(trace, make("normalised_entropy")), [[-1, -half]], rtol=1e-6)


def test_patient_confidence_by_hand() -> None:
    sure, unsure = [0.999, 0.0005, 0.0005], [0.4, 0.3, 0.3]
    other = [0.0005, 0.999, 0.0005]  # sure of something else: still sure
    trace = trace_of(probabilities([sure, other, unsure, sure, sure, other]))
    scores = criterion_scores(trace, make("patient_confidence", {"tau": 0.1}))
    np.testing.assert_array_equal(scores, [[1, 2, 0, 1, 2, 3]])


def test_divergence_by_hand() -> None:
    from scipy.spatial.distance import jensenshannon

    from pipeline.evaluation.criteria.divergence import jensen_shannon

    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.1, 0.8])
    apart = jensenshannon(p, q) ** 2
    np.testing.assert_allclose(jensen_shannon(np.log(p)[None], np.log(q)[None]), [apart], rtol=1e-12)
    trace = trace_of(probabilities([list(p), list(p), list(q), list(q), list(q)]))
    np.testing.assert_array_equal(criterion_scores(trace, make("divergence")), [[0, 1, 0, 1, 2]])
    np.testing.assert_array_equal(criterion_scores(trace, make("divergence", {"tau": apart + 1e-6})), [[0, 1, 2, 3, 4]])


def test_divergence_of_certain_and_opposite_exits_is_ln_2() -> None:
    from pipeline.evaluation.criteria.divergence import jensen_shannon

    with np.errstate(divide="ignore"):
        certain = np.log(np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(jensen_shannon(certain, certain[::-1]), [np.log(2)] * 2, rtol=1e-12)
    np.testing.assert_array_equal(jensen_shannon(certain, certain), [0, 0])


def test_voting_by_hand() -> None:
    trace = trace_of(one_hot([[1, 0, 0, 1, 2, 0]]))
    scores, answers = scan(trace, make("voting", {"power": 0.5}))
    np.testing.assert_allclose(scores, [[1, 1 / 2**0.5, 2 / 3**0.5, 2 / 2, 2 / 5**0.5, 3 / 6**0.5]], rtol=1e-12)
    # Ties at exits 2 and 4 go to the exit's own class; exit 5 names a third one, so the tie goes to the lower index.
    np.testing.assert_array_equal(answers, [[1, 0, 0, 1, 0, 0]])
    np.testing.assert_array_equal(criterion_scores(trace, make("voting", {"power": 0.0})), [[1, 1, 2, 2, 2, 3]])
    with pytest.raises(ParamsError, match=r"voting\.power: 1\.0 is not in \[0, 1\)"):
        make("voting", {"power": 1.0})


def test_learned_by_hand() -> None:
    said = np.array([[0.1, 0.9, 0.3]], dtype=np.float32)
    np.testing.assert_array_equal(criterion_scores(trace_of(np.zeros((1, 3, 1)), lte=said), make("learned")), said)


def test_plain_ensemble_is_the_geometric_mean_and_answers_with_it() -> None:
    p, q, r = [0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.8, 0.1, 0.1]
    trace = trace_of(probabilities([p, q, r]))
    scores, answers = scan(trace, make("ensemble"))
    two = np.sqrt(np.array(p) * np.array(q))
    three = np.cbrt(np.array(p) * np.array(q) * np.array(r))
    np.testing.assert_allclose(scores, [[0.5, (two / two.sum()).max(), (three / three.sum()).max()]], rtol=1e-6)
    np.testing.assert_array_equal(answers, [[0, 1, 0]])  # exit 2 alone names class 1; the last exit answers alone


def test_oracle_leaves_at_the_first_right_exit() -> None:
    trace = trace_of(one_hot([[1, 0, 2, 0], [1, 1, 1, 1], [2, 2, 2, 2]]), np.array([0.0, 0.0, np.nan]))
    np.testing.assert_array_equal(sweep(trace, make("oracle")).exit_index[0], [1, 3, 3])
    near = trace_of(np.array([[[1.0], [2.4], [2.0], [2.5]]]), np.array([2.2]))
    np.testing.assert_array_equal(criterion_scores(near, make("oracle")), [[0, 1, 1, 1]])


def test_the_oracle_scores_no_less_than_any_rule() -> None:
    generator = np.random.default_rng(0)
    trace = trace_of(generator.normal(size=(300, EXITS, 3)), generator.integers(0, 3, 300).astype(float))
    best = sweep(trace, make("oracle")).metrics(("accuracy",))["accuracy"][0]
    for name in ("patience", "confidence", "entropy", "random", "fixed"):
        assert sweep(trace, make(name)).metrics(("accuracy",))["accuracy"].max() <= best


def test_random_exits_are_even_and_repeatable() -> None:
    from pipeline.evaluation.criteria.random import _mix

    assert _mix(np.array([0], dtype=np.uint64))[0] == 0xE220A8397B1DCDAF  # SplitMix64's published first output
    trace = trace_of(np.zeros((20_000, 4, 2)))
    coins = make("random").values(trace)
    assert ((coins >= 0) & (coins < 1)).all()
    share, _ = np.histogram(coins, bins=10, range=(0, 1))
    assert np.abs(share / coins.size - 0.1).max() < 4 * np.sqrt(0.09 / coins.size)
    left = np.bincount(sweep(trace, make("random"), np.array([0.75])).exit_index[0], minlength=4) / 20_000
    np.testing.assert_allclose(left, [0.25, 0.75 * 0.25, 0.75**2 * 0.25, 0.75**3], atol=0.015)
    assert (coins != make("random", {"seed": 1}).values(trace)).any()
    assert np.abs(np.corrcoef(coins.T) - np.eye(4)).max() < 0.03


# Criteria that learn from selection rows


def rows_that_follow(p: np.ndarray, times: int = 10) -> np.ndarray:
    """Labels whose shares are exactly p, (10 x times,)."""
    return np.repeat(np.arange(len(p)), np.round(p * 10 * times).astype(int)).astype(float)


def test_temperatures_make_the_predicted_shares_the_true_ones() -> None:
    p = np.array([0.6, 0.3, 0.1])
    labels = rows_that_follow(p)
    logits = np.log(p)[None, None, :] * np.array([3.0, 1.0, 0.25])[None, :, None] + 7.0
    trace = trace_of(np.repeat(logits, len(labels), axis=0), labels)
    criterion = make("temperature").fit(trace)
    np.testing.assert_allclose(criterion.temperatures, [3.0, 1.0, 0.25], rtol=1e-4)  # type: ignore[attr-defined]
    np.testing.assert_allclose(criterion_scores(trace, criterion)[0], [0.6] * 3, rtol=1e-4)


def test_ensemble_weights_find_the_exit_that_knows() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 2000)
    knows = np.eye(3)[labels] * 2 + generator.normal(size=(2000, 3))  # its logits are calibrated: labels follow softmax
    guesses = generator.normal(size=(2000, 3))
    trace = trace_of(np.stack([guesses, 2 * knows, guesses[::-1]], axis=1), labels.astype(float))
    criterion = make("ensemble").fit(trace)
    weights, biases = (np.array(fitted_values(criterion)[name][1]) for name in ("weights", "biases"))
    assert weights[0] < 0.1
    assert weights[1] == pytest.approx(1.0, abs=0.15)
    assert np.ptp(biases) < 0.3
    plain = sweep(trace, make("fixed"), np.array([2.0])).metrics(("accuracy",))["accuracy"][0]
    assert np.mean(scan(trace, criterion)[1][:, 1] == labels) >= plain - 0.01


@pytest.mark.parametrize("name", sorted(FITTED))
def test_what_was_learned_travels_through_json(name: str) -> None:
    import json

    case = Case(make(name), regression=False)
    trace = random_trace(case, 3, rows=200)
    learned = make(name).fit(trace)
    assert learned != make(name)
    again = make(name, {}, json.loads(json.dumps(fitted_values(learned))))
    assert again == learned
    np.testing.assert_array_equal(criterion_scores(trace, again), criterion_scores(trace, learned))
    with pytest.raises(ParamsError, match=f"unknown setting of {name}"):
        make(name, {next(iter(FITTED[name])): 1.0})


@pytest.mark.parametrize("name", sorted(FITTED))
def test_learning_needs_labels_and_classes(name: str) -> None:
    with pytest.raises(ArtifactError, match="no row has a label"):
        make(name).fit(trace_of(np.zeros((2, 3, 3)), np.full(2, np.nan)))
    with pytest.raises(UnsupportedError, match="is a regression"):
        make(name).fit(trace_of(np.zeros((2, 3, 1))))


def test_criteria_that_learn_nothing_stay_as_they_are() -> None:
    for name in set(CRITERIA) - set(FITTED):
        criterion = make(name)
        assert criterion.fit(trace_of(np.zeros((2, 3, 3)))) is criterion
        assert fitted_values(criterion) == {}


@pytest.mark.parametrize("t", [0, 1, 3, 6, 11])
def test_replay_agrees_with_the_exact_probability(t: int) -> None:
    """Sampled binary traces with independent answers against the dynamic programme."""
    generator = np.random.default_rng(t)
    accuracies = np.linspace(0.6, 0.9, 12)
    n = 20_000
    right = generator.random((n, 12)) < accuracies
    labels = generator.integers(0, 2, n)
    answers = np.where(right, labels[:, None], 1 - labels[:, None])
    swept = sweep(trace_of(np.eye(2)[answers], labels.astype(float)), make("patience"), np.array([float(t)]))
    accuracy, layers = theory.exact(accuracies, t)
    assert swept.metrics(("accuracy",))["accuracy"][0] == pytest.approx(float(accuracy), abs=4 * 0.5 / np.sqrt(n))
    assert 12 / swept.layer_speedup[0] == pytest.approx(float(layers), abs=4 * 4 / np.sqrt(n))
