"""The plan: which trials there are, in what order they run, which are selected, and what stays on disk. No Ray."""

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TrialsFailedError
from pipeline.results import TrialResult
from pipeline.running.ledger import MACHINES, Ledger
from pipeline.storage import file_hash
from pipeline.training import plan as plan_module
from pipeline.training import progress as progress_module
from pipeline.training.losses import losses, refuse_empty
from pipeline.training.plan import WEIGHTS, Group, Plan, Trial, read_result, run_trial
from pipeline.training.progress import Progress

Result = TrialResult | None
BATCH_SIZES = (16, 32)
EMPTY = hashlib.sha256(hashlib.sha256(b"").digest()).hexdigest()
"""Hash of an empty file of weights."""


def scored(selection: float) -> TrialResult:
    """A result with this selection score; NaN: not defined."""
    return TrialResult(
        best_epoch=1, epochs_run=1, selection=None if math.isnan(selection) else selection, train_seconds=0.0,
        train_seconds_to_best=0.0, micro_batch=None, metrics={}, parameters=1, early_exit_parameters=0, layers=1,
        exits=(1,), weights_sha256=EMPTY,
    )  # fmt: skip


def with_grid(groups: Iterable[Group], batch_sizes: tuple[int, ...], rates: tuple[float, ...]) -> tuple[Group, ...]:
    return tuple(replace(group, batch_sizes=batch_sizes, learning_rates=rates) for group in groups)


def plan(
    groups: tuple[Group, ...] = (Group("a", {"task": "a"}),),
    rates: tuple[float, ...] = (0.1, 0.2),
    seeds: tuple[int, ...] = (1, 2, 3),
) -> Plan:
    return Plan(with_grid(groups, BATCH_SIZES, rates), seeds)


def store(root: Path, key: str, result: Result) -> None:
    """Leave on disk what a trial leaves that ended so."""
    if result is not None:
        (root / key).mkdir(exist_ok=True)
        result.write(root / key / "result.json")
        (root / key / WEIGHTS).touch()


def played(todo: Plan, root: Path, scores: Mapping[tuple[int, float], float | None]) -> Progress:
    """Run a plan to its end: a trial scores by its grid point; None fails."""
    progress = Progress(todo, root)
    while trial := progress.next():
        value = scores[trial.settings["batch_size"], trial.settings["learning_rate"]]
        result = None if value is None else scored(value)
        store(root, trial.key, result)
        progress.end(trial.key, result)
    return progress


SCORES: dict[tuple[int, float], float | None] = {(16, 0.1): 0.5, (16, 0.2): 0.9, (32, 0.1): 0.9, (32, 0.2): 0.7}
TWO = (Group("a", {"task": "a"}), Group("b", {"task": "a", "method": "b"}, parent="a"))


def points(trials: list[Trial]) -> list[tuple[int, float, int]]:
    return [(t.settings["batch_size"], t.settings["learning_rate"], t.settings["seed"]) for t in trials]


def test_a_grid_with_the_first_seed_then_the_chosen_point_with_the_others(tmp_path: Path) -> None:
    todo = plan()
    grid = [(16, 0.1, 1), (16, 0.2, 1), (32, 0.1, 1), (32, 0.2, 1)]
    assert points(Progress(todo, tmp_path).trials()) == grid
    progress = played(todo, tmp_path, SCORES)
    assert points(progress.trials()) == [*grid, (16, 0.2, 2), (16, 0.2, 3)]  # the first of the best
    assert len(progress.results) == todo.total == 6
    chosen = progress.selected(todo.groups[0])
    assert points(list(chosen.values())) == [(16, 0.2, seed) for seed in (1, 2, 3)]
    assert list(chosen) == [1, 2, 3]


def test_failed_and_undefined_points_are_not_chosen(tmp_path: Path) -> None:
    todo = plan()
    progress = played(todo, tmp_path, SCORES | {(16, 0.2): None, (32, 0.1): float("nan")})
    assert points([progress.best(todo.groups[0])]) == [(32, 0.2, 1)]  # type: ignore[list-item]
    assert points([t for t in progress.trials() if t.key in progress.reasons]) == [(16, 0.2, 1)]
    refuse_empty(progress)


def test_a_group_of_which_all_failed_is_named(tmp_path: Path) -> None:
    progress = played(plan(), tmp_path, dict.fromkeys(SCORES))
    assert len(progress.results) == 4
    with pytest.raises(TrialsFailedError, match=r"^a: no trial of its grid finished .*; see error.txt .*; mend "):
        refuse_empty(progress)


def test_a_child_starts_from_the_chosen_trial_of_the_same_seed(tmp_path: Path) -> None:
    todo = plan(TWO)
    assert all(t.group == "a" for t in Progress(todo, tmp_path).trials())  # the child's cannot be made yet
    progress = played(todo, tmp_path, SCORES)
    assert len(progress.results) == todo.total == 12
    parents, children = (progress.selected(group) for group in todo.groups)
    assert {seed: trial.parent for seed, trial in children.items()} == {s: t.key for s, t in parents.items()}
    grid = [t for t in progress.trials_of(todo.groups[1]) if t.settings["seed"] == 1]
    assert len(grid) == 4
    assert {t.parent for t in grid} == {parents[1].key}


def test_a_seed_that_failed_has_no_child(tmp_path: Path) -> None:
    todo = plan(TWO)
    progress = Progress(todo, tmp_path)
    while trial := progress.next():
        lost = (trial.group, trial.settings["seed"]) == ("a", 2)
        progress.end(trial.key, None if lost else scored(trial.settings["learning_rate"]))
    assert list(progress.selected(todo.groups[0])) == [1, 2, 3]
    assert list(progress.selected(todo.groups[1])) == [1, 3]
    (failed, why), (child, blocked) = (losses(progress, group)[0] for group in todo.groups)
    assert (failed.settings["seed"], why) == (2, "")
    assert (child.settings["seed"], child.parent) == (2, failed.key)
    assert blocked == f"not run: the trial {failed.key} that it starts from failed"


def test_the_key_is_what_changes_the_result() -> None:
    first = Trial("a", {"task": "a", "learning_rate": 1e-5, "seed": 1})
    assert first.key == Trial("other name", dict(reversed(first.settings.items()))).key
    assert first.key == "4ae030e597dbc79a", "a stored trial would be run again"
    others = [Trial("a", {**first.settings, name: value}) for name, value in (("seed", 2), ("parent", "k"))]
    assert len({first.key, *(other.key for other in others)}) == 3


def test_the_marker_is_last_and_a_finished_trial_is_not_run_again(tmp_path: Path) -> None:
    ran = []

    def train(folder: Path) -> TrialResult:
        assert not (folder / "result.json").exists()
        ran.append(1)
        (folder / WEIGHTS).touch()
        return scored(1.0)

    def killed(folder: Path) -> TrialResult:
        (folder / WEIGHTS).touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial({"seed": 1}, tmp_path / "k", killed)
    assert read_result(tmp_path / "k") is None
    assert run_trial({"seed": 1}, tmp_path / "k", train) == run_trial({"seed": 1}, tmp_path / "k", train)
    assert len(ran) == 1
    (tmp_path / "k/result.json").write_text('{"selection": 0.')  # a disk that was full
    assert run_trial({"seed": 1}, tmp_path / "k", train) == scored(1.0)
    assert len(ran) == 2


def kept(root: Path) -> set[str]:
    return {path.parent.name for path in root.glob(f"*/{WEIGHTS}")}


def test_weights_of_points_that_were_not_chosen_are_dropped(tmp_path: Path) -> None:
    todo = plan()
    progress = played(todo, tmp_path, SCORES)
    assert len(kept(tmp_path)) == 6
    progress.prune()
    assert kept(tmp_path) == {trial.key for trial in progress.selected(todo.groups[0]).values()}
    again = Progress(todo, tmp_path)
    assert (again.results, again.unfinished(), again.next()) == (progress.results, 0, None)
    # Chosen for the first time, without weights: to run again, and nothing is chosen before it has.
    smaller = Progress(Plan(with_grid(todo.groups, (32,), (0.1,)), (1, 2)), tmp_path)
    trial = smaller.next()
    assert trial is not None
    assert points([trial]) == [(32, 0.1, 1)]
    assert (smaller.results, smaller.best(smaller.plan.groups[0]), smaller.next()) == ({}, None, None)
    smaller.end(trial.key, scored(0.9))
    assert points(smaller.trials()) == [(32, 0.1, 1), (32, 0.1, 2)]


def test_a_trial_whose_worker_never_came_up_is_one_failed_trial(tmp_path: Path) -> None:
    """Tune then tells of the end without a start."""
    told: list[str] = []

    class Told:
        def started(self, trial: Trial) -> None:
            told.append("started")

        def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None:
            told.append("epoch")

        def ended(self, trial: Trial, result: TrialResult | None) -> None:
            told.append(f"ended {result}")

    progress = Progress(plan(), tmp_path)
    ledger = Ledger(progress, Told(), show=False, retries=0)
    trial = progress.next()
    assert trial is not None
    ledger.end(trial.key, None)
    assert told == ["started", "ended None"]
    assert progress.results[trial.key] is None
    assert ledger.ran == 1


def test_what_failed_for_the_same_reason_before_is_given_up(tmp_path: Path) -> None:
    class Silent:
        def started(self, trial: Trial) -> None: ...
        def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None: ...
        def ended(self, trial: Trial, result: TrialResult | None) -> None: ...

    progress = Progress(plan(), tmp_path)
    ledger = Ledger(progress, Silent(), show=False, retries=3)
    first, second = progress.next(), progress.next()
    assert first is not None
    assert second is not None

    def attempt(key: str, reason: str, certain: bool = False) -> bool:
        """Whether the trial waits again after it failed."""
        if key not in progress.running:
            assert progress.next().key == key  # type: ignore[union-attr]
        ledger.begin(key)
        assert not ledger.told(key)
        ledger.fault(key, reason, certain=certain)
        assert ledger.told(key)
        ledger.failed(key)
        return key not in progress.results

    assert ledger.idle
    ledger.begin(first.key)
    assert not ledger.idle
    assert attempt(first.key, "out of memory: 5 of 8 GiB")
    assert ledger.idle
    assert attempt(first.key, "no such device"), "another reason"
    assert not attempt(first.key, "no such device")
    assert progress.reasons == {first.key: "no such device"}
    assert attempt(second.key, "loss is nan in epoch 1"), "of another trial"
    assert not attempt(second.key, "loss is nan in epoch 2"), "numbers do not count"
    third, fourth = progress.next(), progress.next()
    assert third is not None
    assert fourth is not None
    assert not attempt(third.key, "no such file", certain=True)
    for tries in range(4):  # a worker that dies cannot say why
        assert fourth.key in progress.running or progress.next() == fourth, tries
        ledger.begin(fourth.key)
        ledger.failed(fourth.key, "its worker died")
    assert progress.reasons[fourth.key] == "its worker died"


def test_a_lost_machine_is_no_failure(tmp_path: Path) -> None:
    class Silent:
        def started(self, trial: Trial) -> None: ...
        def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None: ...
        def ended(self, trial: Trial, result: TrialResult | None) -> None: ...

    progress = Progress(plan(), tmp_path)
    ledger = Ledger(progress, Silent(), show=False, retries=0)
    trial, other = progress.next(), progress.next()
    assert trial is not None
    assert other is not None
    for epoch in range(1, 2 * MACHINES):  # it gets further each time
        ledger.begin(trial.key)
        for known in range(1, epoch + 1):
            ledger.epoch(trial.key, {"epoch": known})
        ledger.lost(trial.key)
        assert progress.next() == trial, "it comes before those that have not begun"
    for machine in range(1, MACHINES):  # one was lost after its last epoch
        assert trial.key in progress.running or progress.next() == trial, machine
        ledger.begin(trial.key)
        ledger.epoch(trial.key, {"epoch": 1})
        ledger.lost(trial.key)
    assert progress.reasons == {trial.key: f"{MACHINES} machines in a row were lost under it; give it more memory"}
    assert progress.next() not in (trial, other)


# Against the definitions


class Definitions:
    """What `Progress` does, worked out anew from the plan, the results and the disk after every event."""

    def __init__(self, todo: Plan, root: Path) -> None:
        self.plan, self.root = todo, root
        self.results: dict[str, Result] = {}
        self.running: set[str] = set()
        self.look()

    def grid(self, group: Group) -> list[Trial]:
        parent = self.parent(group, self.plan.seeds[0])
        return [] if group.parent and parent is None else self.plan.grid(group, parent)

    def best(self, group: Group) -> Trial | None:
        grid = self.grid(group)
        if not grid or any(trial.key not in self.results for trial in grid):
            return None
        ended = [(result.selection, t) for t in grid if (result := self.results[t.key]) is not None]
        defined = [(value, t) for value, t in ended if value is not None]
        return max(defined, key=lambda pair: pair[0])[1] if defined else None

    def further(self, group: Group) -> list[Trial]:
        best = self.best(group)
        if best is None:
            return []
        parents = {seed: self.parent(group, seed) for seed in self.plan.seeds[1:]}
        return [
            self.plan.reseeded(group, best, seed, parent)
            for seed, parent in parents.items()
            if group.parent is None or parent is not None
        ]

    def selected(self, group: Group) -> dict[int, Trial]:
        best = self.best(group)
        return {} if best is None else {t.settings["seed"]: t for t in (best, *self.further(group))}

    def parent(self, group: Group, seed: int) -> str | None:
        by_name = {group.name: group for group in self.plan.groups}
        trial = self.selected(by_name[group.parent]).get(seed) if group.parent else None
        return trial.key if trial is not None and self.results.get(trial.key) is not None else None

    def trials(self) -> list[Trial]:
        groups = self.plan.groups
        return [t for g in groups for t in self.grid(g)] + [t for g in groups for t in self.further(g)]

    def look(self) -> None:
        """Read what is on disk; what is selected without its weights has not run."""
        before = -1
        while len(self.results) > before:
            before = len(self.results)
            for trial in self.trials():
                if trial.key not in self.results and trial.key not in self.running:
                    result = read_result(self.root / trial.key)
                    if result is not None:
                        self.results[trial.key] = result
        for group in self.plan.groups:
            for trial in self.selected(group).values():
                if self.results.get(trial.key) is not None and not (self.root / trial.key / WEIGHTS).is_file():
                    del self.results[trial.key]

    def waiting(self) -> list[str]:
        keys = [trial.key for trial in self.trials()]
        return list(dict.fromkeys(key for key in keys if key not in self.results and key not in self.running))

    def next(self) -> str | None:
        for key in self.waiting()[:1]:
            self.running.add(key)
            return key
        return None

    def end(self, key: str, result: Result) -> None:
        self.running.remove(key)
        self.results[key] = result
        self.look()


def compare(progress: Progress, expected: Definitions) -> None:
    keys = [trial.key for trial in expected.trials()]
    assert [trial.key for trial in progress.trials()] == keys
    for group in progress.plan.groups:
        assert progress.best(group) == expected.best(group)
        assert list(progress.selected(group).items()) == list(expected.selected(group).items())
        assert progress.trials_of(group) == [*expected.grid(group), *expected.further(group)]
    results = {key: expected.results[key] for key in keys if key in expected.results}
    assert progress.results == results
    assert [t.key for t in progress.trials() if t.key in progress.reasons] == [
        key for key in keys if key in results and results[key] is None
    ]
    assert progress.unfinished() == len(expected.running) + len(expected.waiting())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Groups in any order of parent and child, some alike in all but the name and the parent; a point may be twice in a
    grid."""
    names = draw(st.permutations("abcd"))[: draw(st.integers(1, 4))]
    batch_sizes = st.lists(st.sampled_from(BATCH_SIZES), min_size=1, max_size=2)
    rates = st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=2)
    grids = {task: (tuple(draw(batch_sizes)), tuple(draw(rates))) for task in "xyz"}
    groups = {}
    for at, name in enumerate(names):
        task = draw(st.sampled_from("xyz"))
        groups[name] = Group(name, {"task": task}, draw(st.sampled_from([None, *names[:at]])), {}, *grids[task])
    seeds = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3, unique=True))
    return Plan(tuple(groups[name] for name in sorted(groups)), tuple(seeds))


OUTCOMES = st.sampled_from([None, float("nan"), 0.1, 0.1, 0.2, 0.3])


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_hands_out_and_selects_what_the_definitions_say(data: st.DataObject) -> None:
    """Over drivers one after another, of one plan or another: each finds on disk what the ones before it left, which
    were killed at any moment or went through to the end."""
    with tempfile.TemporaryDirectory() as folder:
        root, todo = Path(folder), data.draw(plans(), "plan")
        for _ in range(data.draw(st.integers(1, 3), "drivers")):
            progress, expected = Progress(todo, root), Definitions(todo, root)
            if run_until_killed(progress, expected, data):
                end_of_run(progress, expected)
            if data.draw(st.booleans(), "another plan"):
                todo = data.draw(plans(), "plan")
            for key in data.draw(st.lists(st.sampled_from(sorted(kept(root)) or [""]), unique=True), "weights go"):
                (root / key / WEIGHTS).unlink(missing_ok=True)


def run_until_killed(progress: Progress, expected: Definitions, data: st.DataObject) -> bool:
    """Whether the plan went through to its end."""
    workers = data.draw(st.integers(1, 4), "workers")
    until = data.draw(st.none() | st.integers(0, 20), "killed after")
    compare(progress, expected)
    while True:
        while len(progress.running) < workers:
            trial = progress.next()
            assert (trial and trial.key) == expected.next()
            if trial is None:
                break
        compare(progress, expected)
        if not progress.running:
            return True
        if until == 0:
            return False
        until = None if until is None else until - 1
        key = data.draw(st.sampled_from(sorted(progress.running)), "ends")
        value = data.draw(OUTCOMES, "with")
        result = None if value is None else scored(value)
        store(progress.root, key, result)
        progress.end(key, result)
        expected.end(key, result)
        compare(progress, expected)


def end_of_run(progress: Progress, expected: Definitions) -> None:
    assert set(progress.results) == {trial.key for trial in progress.trials()}
    for group in progress.plan.groups:  # no seed of a group that has a choice vanishes
        named = {loss.trial.settings["seed"] for loss in losses(progress, group)}
        finished = {t.settings["seed"] for t in progress.trials_of(group) if progress.results[t.key] is not None}
        assert expected.best(group) is None or named | finished == set(progress.plan.seeds)
    lost = [group.name for group in progress.plan.groups if expected.best(group) is None and expected.grid(group)]
    if lost:
        with pytest.raises(TrialsFailedError, match=f"^{lost[0]}: no trial of its grid finished"):
            refuse_empty(progress)
        return
    refuse_empty(progress)
    before = kept(progress.root)
    selected = {t.key for group in progress.plan.groups for t in expected.selected(group).values()}
    progress.prune()
    assert kept(progress.root) == before - {trial.key for trial in expected.trials()} | before & selected


def test_each_trial_is_hashed_and_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the cost of a plan would grow faster than the plan."""
    counts: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(plan_module, "content_key", counting("hashed", plan_module.content_key))
    monkeypatch.setattr(progress_module, "read_result", counting("read", progress_module.read_result))
    todo = plan((*TWO, Group("c", {"task": "c"}, parent="b"), Group("d", {"task": "d"})))
    progress = played(todo, tmp_path, SCORES)
    refuse_empty(progress)
    progress.prune()
    assert len(progress.results) == todo.total == 24
    assert counts == {"hashed": 24, "read": 24}


@pytest.mark.parametrize(
    ("scores", "best"), [((-0.2, None, -0.1), -0.1), ((None, 0.0), 0.0), ((0.3, 0.4, None), 0.4), ((None,), None)]
)
def test_the_headline_of_a_grid_is_its_best_score_also_below_0(
    scores: tuple[float | None, ...], best: float | None
) -> None:
    from pipeline.results import GridPoint
    from stages.finetune import best_selection
    from tests.selections import group_of

    grid = tuple(GridPoint(batch_size=i + 1, learning_rate=0.1, selection=s, key=f"k{i}") for i, s in enumerate(scores))
    assert best_selection(group_of("t", "b", "joint", {1: "k0"}).model_copy(update={"grid": grid})) == best


@pytest.mark.parametrize("damage", ["cut", "noise", "gone", "cut description"])
def test_chosen_weights_that_are_not_those_of_the_result_are_trained_again(damage: str, tmp_path: Path) -> None:
    todo = plan(rates=(0.1,), seeds=(1, 2))
    before = played(todo, tmp_path, {(16, 0.1): 0.5, (32, 0.1): 0.9})
    (group,) = todo.groups
    chosen = before.selected(group)[2]
    weights = tmp_path / chosen.key / WEIGHTS
    content = np.random.default_rng(0).bytes(1000)
    weights.write_bytes(content)
    result = read_result(weights.parent)
    assert result is not None
    result.model_copy(update={"weights_sha256": file_hash(weights)}).write(weights.parent / "result.json")
    assert Progress(todo, tmp_path).unfinished() == 0
    if damage == "cut":
        weights.write_bytes(content[:-1])
    elif damage == "cut description":
        (weights.parent / "model.json").write_text('{"schema": ')
    elif damage == "noise":
        weights.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    else:
        weights.unlink()
    again = Progress(todo, tmp_path)
    assert again.unfinished() == 1
    waiting = again.next()
    assert waiting is not None
    assert waiting.key == chosen.key
    trained = []
    run_trial(waiting.settings, weights.parent, lambda folder: trained.append(folder) or scored(0.9))
    assert trained == [weights.parent]
