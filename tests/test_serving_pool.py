"""The pool of rows: *live equals replay*, whoever else runs, in whatever order rows arrive."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidLogitsError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.leaving import Rule, leave_recorded
from pipeline.models.deploy.runtime import Deployed
from pipeline.models.deploy.segments import Segments
from pipeline.serving.pool import Policy, Pool
from pipeline.serving.rows import Ticket
from tests.exported_folders import texts, texts_folder

TEXTS = texts(40, seed=3)
RULES: tuple[tuple[str, float], ...] = (
    ("patience", 1.0), ("patience", 2.0), ("confidence", 0.6), ("confidence", 0.9), ("entropy", -0.8), ("voting", 0.5),
    ("learned", 0.5), ("ensemble", 0.6), ("full", 0.0),
)  # fmt: skip
"""Of several kinds: with a state per row, with an answer of its own, on another channel, and none."""


@pytest.fixture(scope="module")
def models(texts_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deployed]:
    """Weights that layers share, in both precisions; and layers of their own, with relative positions."""
    own = texts_folder(tmp_path_factory.mktemp("own") / "mpnet", "mpnet")
    return {
        "float32": Deployed.open(texts_model),
        "int8": Deployed.open(texts_model, "int8"),
        "mpnet": Deployed.open(own),
    }


def rule_of(segments: Segments, which: int) -> tuple[Rule, str]:
    name, threshold = RULES[which]
    return segments.rule(None if name == "full" else make(name), threshold), name


ARRIVALS = st.lists(
    st.tuples(
        st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=5),  # rows of a request
        st.integers(0, len(RULES) - 1),
        st.integers(0, 5),  # steps before it arrives
    ),
    min_size=1,
    max_size=8,
)


def check_live_equals_replay(model: Deployed, arrivals: Any, batch: int, policy: Policy) -> None:
    """Every request is answered as if it were alone."""
    pool = Pool(model.segments, batch=batch, policy=policy)
    asked: list[tuple[Ticket, Any, Rule]] = []
    finished: list[Ticket] = []
    for rows, which, steps in arrivals:
        for _ in range(steps):
            finished += pool.step()
        rule, name = rule_of(model.segments, which)
        inputs = model.inputs([TEXTS[i] for i in rows])
        asked.append((pool.add(inputs, rule, name), inputs, rule))
    while len(pool):
        finished += pool.step()
    assert sorted(map(id, finished)) == sorted(id(ticket) for ticket, _, _ in asked), "each is done once"
    for ticket, inputs, rule in asked:
        alone = model.segments.answer(inputs, rule)
        assert ticket.error is None
        np.testing.assert_array_equal(ticket.leaving.exit_index, alone.exit_index)
        if model.segments.alone:
            np.testing.assert_array_equal(ticket.leaving.logits, alone.logits)
        else:
            np.testing.assert_allclose(ticket.leaving.logits, alone.logits, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["float32", "int8", "mpnet"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(arrivals=ARRIVALS, batch=st.integers(1, 8), policy=st.sampled_from(["deepest", "fullest"]))
def test_live_equals_replay(models: dict[str, Deployed], name: str, arrivals: Any, batch: int, policy: Policy) -> None:
    check_live_equals_replay(models[name], arrivals, batch, policy)


def test_images_too(images_model: Path) -> None:
    model = Deployed.open(images_model)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    pool, rule = Pool(model.segments, batch=5), model.segments.rule(make("patience"), 1.0)
    tickets = []
    for start in range(0, 12, 3):
        tickets.append(pool.add(model.inputs(images[start : start + 3]), rule, "patience"))
        pool.step()
    while len(pool):
        pool.step()
    exits = np.concatenate([ticket.leaving.exit_index for ticket in tickets])
    np.testing.assert_array_equal(exits, model.segments.answer(model.inputs(images), rule).exit_index)
    assert len(set(exits.tolist())) > 1


# Who runs with whom


class Counted(Pool):
    """A pool that notes the requests and layers of each step."""

    steps: list[list[tuple[int, int]]]

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.steps = []

    def _run(self, rows: Any) -> Any:
        self.steps.append([(row.number, row.layer) for row in rows])
        return super()._run(rows)


def run(pool: Pool) -> None:
    while len(pool):
        pool.step()


def test_rows_of_several_requests_and_depths_run_together(models: dict[str, Deployed]) -> None:
    model = models["float32"]  # layers 1 and 2 share their weights, and 3 and 4
    pool, (full, name) = Counted(model.segments, batch=8), rule_of(model.segments, 8)
    same = " ".join(["w5"] * 6)
    pool.add(model.inputs([same, same]), full, name)
    pool.step()
    pool.add(model.inputs([same]), full, name)
    run(pool)
    assert pool.steps[:2] == [[(0, 0), (1, 0)], [(0, 1), (1, 1), (2, 0)]]
    assert sum(map(len, pool.steps)) == 3 * 4, "no row runs a layer twice"


def test_a_row_of_another_length_waits_for_the_next_batch(models: dict[str, Deployed]) -> None:
    model = models["mpnet"]
    pool, (full, name) = Counted(model.segments, batch=8), rule_of(model.segments, 8)
    pool.add(model.inputs(["w5 " * 20, "w5", "w5 " * 18]), full, name)
    pool.step()
    assert pool.steps == [[(0, 0), (2, 0)]]


def test_fullest_leaves_no_row_waiting_for_ever(models: dict[str, Deployed]) -> None:
    model, seconds = models["mpnet"], 0.0
    pool = Pool(model.segments, batch=2, policy="fullest", wait=3.0, clock=lambda: seconds)
    (full, name), at_once = rule_of(model.segments, 8), model.segments.rule(make("patience"), 0.0)
    lonely = pool.add(model.inputs(["w5"]), full, name)
    pool.step()
    while not lonely.done and seconds < 40:  # the first layer's pool is always the fullest
        pool.add(model.inputs(["w5", "w6"]), at_once, "patience")
        pool.step()
        seconds += 1.0
    assert 3 < seconds < 6


def test_rows_that_fit_do_not_pass_by_one_that_does_not_for_ever(models: dict[str, Deployed]) -> None:
    model, seconds = models["float32"], 0.0
    shared = replace(model.segments, layers=model.segments.layers[:1] * 4)  # as where all layers share their weights
    pool, (full, name) = Pool(shared, batch=4, wait=3.0, clock=lambda: seconds), rule_of(model.segments, 8)
    pool.add(model.inputs(["w5"]), full, name)
    pool.step()
    long = pool.add(model.inputs(["w5 " * 20]), full, name)
    while not long.done and seconds < 40:  # a short row always runs
        pool.add(model.inputs(["w5"]), full, name)
        pool.step()
        seconds += 1.0
    assert 8 < seconds < 16


def test_int8_rows_run_one_by_one_in_their_order(models: dict[str, Deployed]) -> None:
    model = models["int8"]
    pool, (full, name) = Counted(model.segments, batch=8, policy="fullest"), rule_of(model.segments, 8)
    for text in ("w5 w6", "w7"):
        pool.add(model.inputs([text]), full, name)
    run(pool)
    assert pool.steps == [[(number, layer)] for number in (0, 1) for layer in range(4)]


# Requests that end otherwise


def test_rows_of_a_cancelled_request_run_no_further(models: dict[str, Deployed]) -> None:
    model = models["float32"]
    pool, (full, name) = Pool(model.segments), rule_of(model.segments, 8)
    left, other = pool.add(model.inputs(["w5"]), full, name), pool.add(model.inputs(["w6"]), full, name)
    pool.step()
    pool.drop(left)
    finished = []
    while len(pool):
        finished += pool.step()
    assert finished == [other]
    assert not left.done


def test_a_row_that_cannot_be_answered_fails_its_own_request(models: dict[str, Deployed]) -> None:
    model = models["float32"]
    pool, (full, name) = Pool(model.segments), rule_of(model.segments, 8)
    bad, good = pool.add(model.inputs(["w5 w6"]), full, name), pool.add(model.inputs(["w6 w7"]), full, name)
    pool.step()
    for row in [row for line in pool._waiting for row in line if row.ticket is bad]:
        row.state = {**row.state, "hidden": np.full_like(row.state["hidden"], np.nan)}
    finished: list[Ticket] = []
    while len(pool):
        finished += pool.step()
    assert set(finished) == {bad, good}
    assert isinstance(bad.error, InvalidLogitsError)
    assert good.error is None
    np.testing.assert_allclose(
        good.leaving.logits, model.segments.answer(model.inputs(["w6 w7"]), full).logits, atol=2e-5
    )


class Everything:
    """A watch that follows every row to the last exit."""

    def __init__(self) -> None:
        self.left: list[tuple[str, float, int]] = []
        self.deepest_exit: int | None = None
        self.seen: list[tuple[str, int, np.ndarray, np.ndarray]] = []

    def deepest(self, criterion: str, rule: Rule) -> int | None:
        return self.deepest_exit

    def answered(self, criterion: str, rule: Rule, exit_index: int) -> bool:
        self.left.append((criterion, rule.threshold, exit_index))
        return self.deepest_exit is None

    def compared(self, criterion: str, exit_index: int, logits: np.ndarray, last: np.ndarray) -> None:
        self.seen.append((criterion, exit_index, logits.copy(), last.copy()))

    def request(self, status: int, seconds: float) -> None:
        raise AssertionError("the pool knows no requests")

    def metrics(self) -> str:
        return ""


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_watched_row_goes_on_after_its_answer(models: dict[str, Deployed], precision: str) -> None:
    model, watch = models[precision], Everything()
    rule, name = rule_of(model.segments, 2)
    pool, inputs = Counted(model.segments, watch=watch), model.inputs(TEXTS[:10])
    ticket = pool.add(inputs, rule, name)
    while not ticket.done:
        pool.step()
    early = int((ticket.leaving.exit_index < 3).sum())
    assert 0 < early < 10
    assert len(pool) == early - len(watch.seen) > 0, "the answer did not wait for them"
    run(pool)
    exits = sorted(ticket.leaving.exit_index.tolist())
    assert sorted(index for _, _, index in watch.left) == exits
    assert {(criterion, threshold) for criterion, threshold, _ in watch.left} == {(name, 0.6)}
    assert sorted(index for _, index, _, _ in watch.seen) == [index for index in exits if index < 3]
    full = model.segments.answer(inputs, model.segments.rule(None, np.inf)).logits
    for _, _, logits, last in watch.seen:
        place = int(np.abs(ticket.leaving.logits - logits).max(axis=1).argmin())
        np.testing.assert_allclose(last, full[place], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("which", range(len(RULES)))
def test_rows_leave_at_the_deepest_exit_that_the_watch_allows(models: dict[str, Deployed], which: int) -> None:
    model, watch = models["float32"], Everything()
    rule, name = rule_of(model.segments, which)
    inputs = model.inputs(TEXTS[:10])
    alone = model.segments.answer(inputs, rule)
    free = alone.exit_index
    watch.deepest_exit = 1
    pool = Pool(model.segments, watch=watch)
    ticket = pool.add(inputs, rule, name)
    run(pool)
    np.testing.assert_array_equal(ticket.leaving.exit_index, np.minimum(free, 1))
    at_exit = model.segments.record(inputs)[0][:, 1]
    held = free > 1
    assert held.any() or name in ("voting", "learned", "ensemble"), "the cap has rows to hold"
    if not rule.answers_itself:
        np.testing.assert_allclose(ticket.leaving.logits[held], at_exit[held], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(ticket.leaving.logits[~held], alone.logits[~held], rtol=1e-4, atol=2e-5)
    assert watch.seen == []


@pytest.mark.parametrize(("name", "settings"), [("ensemble", {}), ("voting", {}), ("patience", {})])
def test_a_cap_does_not_change_the_answer_of_rows_that_it_does_not_shorten(
    name: str, settings: dict[str, float], models: dict[str, Deployed]
) -> None:
    """The last exit that is allowed is where they leave, and what the criterion says there is their answer."""
    segments = models["float32"].segments
    inputs = models["float32"].inputs(TEXTS[:10])
    logits, _ = segments.record(inputs)
    for threshold in np.linspace(-1, 3, 41):
        rule = segments.rule(make(name, settings), float(threshold))
        alone = leave_recorded(rule, logits, {})
        for cap in range(3):
            same = alone.exit_index <= cap
            capped = leave_recorded(rule.within(cap), logits, {})
            np.testing.assert_array_equal(capped.logits[same], alone.logits[same])
            np.testing.assert_array_equal(capped.exit_index, np.minimum(alone.exit_index, cap))


def test_a_layer_that_fails_for_a_watched_row_fails_no_request(
    models: dict[str, Deployed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 0 has left and runs for the watch; row 1 of the same request still runs. Only a layer for row 1 counts."""
    model, watch = models["mpnet"], Everything()
    pool = Pool(model.segments, batch=1, watch=watch)
    logits, _ = model.segments.record(model.inputs(TEXTS[:10]))
    sure = np.exp(logits[:, 0]).max(axis=1) / np.exp(logits[:, 0]).sum(axis=1)
    first, second = int(sure.argmax()), int(sure.argmin())
    rule = model.segments.rule(make("confidence"), float(sure[[first, second]].mean()))
    ticket = pool.add(model.inputs([TEXTS[first], TEXTS[second]]), rule, "confidence")
    while not pool._watched[1]:
        pool.step()
    assert ticket.running == 1
    taken = pool._waiting
    pool._waiting = [[] for _ in taken]  # as if other rows were before it: the watched row is next
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_run", lambda rows: (_ for _ in ()).throw(MemoryError("no memory for a layer")))
        assert pool.step() == []
    pool._waiting = taken
    assert ticket.error is None
    run(pool)
    assert ticket.done
    assert ticket.error is None
