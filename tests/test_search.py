"""Searches of a grid: which trials they run, stop and choose, in any order of ends and after any kill."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ParamsError
from pipeline.params import load_params
from pipeline.results import TrialResult
from pipeline.running.ray.search import engines_of
from pipeline.training.halving import Halving, Stop
from pipeline.training.plan import HISTORY, RESUME, WEIGHTS, Group, Plan, Search, Trial
from pipeline.training.progress import Progress
from pipeline.training.search import search_key
from pipeline.training.selection import searched
from tests.test_plan import scored
from tests.workspace import Workspace

EPOCHS = 9
RATES = (0.3, 0.5, 0.2, 0.1, 0.4)


def plan(search: Search, parent: bool = False, rates: tuple[float, ...] = RATES) -> Plan:
    settings = {"training": {"epochs": EPOCHS}}
    groups = [Group("a", settings, batch_sizes=(8,), learning_rates=rates, search=search)]
    if parent:
        settings = settings | {"method": "b"}
        groups.append(Group("b", settings, "a", batch_sizes=(8,), learning_rates=rates, search=search))
    return Plan(tuple(groups), (1, 2))


def score_of(trial: Trial, epoch: int = EPOCHS) -> float:
    """Best where the learning rate is 0.2, and better with each epoch."""
    return 1 - abs(float(trial.settings["learning_rate"]) - 0.2) + epoch / 1000


def finish(root: Path, trial: Trial) -> TrialResult:
    """What a trial leaves on disk that ran to its end."""
    folder = root / trial.key
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": epoch, "selection": score_of(trial, epoch)} for epoch in range(1, EPOCHS + 1)]
    (folder / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / WEIGHTS).touch()
    result = scored(score_of(trial)).model_copy(update={"epochs_run": EPOCHS, "best_epoch": EPOCHS})
    result.write(folder / "result.json")
    return result


class Workers:
    """Workers that train an epoch of any running trial at a time, and keep what each epoch leaves on disk.

    Attributes:
        epochs: number of trained epochs by trial, over all drivers.
    """

    def __init__(self, todo: Plan, root: Path, count: int = 1, seed: int = 0) -> None:
        self.plan, self.root, self.count = todo, root, count
        self.random = random.Random(seed)
        self.epochs: dict[str, int] = {}

    def run(self, until: int | None = None, lost: Sequence[str] = ()) -> Progress:
        """Run a plan in a new driver, which is killed after so many epochs.

        Args:
            lost: trials that fail.
        """
        progress = Progress(self.plan, self.root, engines_of(self.plan))
        told: dict[str, int] = {}
        while until is None or until > 0:
            while len(progress.running) < self.count and (trial := progress.next()) is not None:
                told[trial.key] = 0
            if not progress.running:
                return progress
            until = None if until is None else until - 1
            self._epoch(progress, self.random.choice(sorted(progress.running)), told, lost)
        return progress

    def _epoch(self, progress: Progress, key: str, told: dict[str, int], lost: Sequence[str]) -> None:
        trial = progress.running[key]
        told[key] += 1
        self.epochs[key] = max(self.epochs.get(key, 0), told[key])  # one that goes on tells of its epochs again
        if progress.stops(key, told[key], score_of(trial, told[key])):
            progress.stop(key)
        elif key in lost:
            progress.end(key, None, "lost")
        elif told[key] == EPOCHS:
            progress.end(key, finish(self.root, trial))


def grid_of(progress: Progress) -> list[Trial]:
    return [trial for trial in progress.trials_of(progress.plan.groups[0]) if trial.settings["seed"] == 1]


def rate_of(progress: Progress) -> float:
    best = progress.best(progress.plan.groups[0])
    assert best is not None
    return float(best.settings["learning_rate"])


ASHA = Search("asha", reduction=3)


def test_one_that_is_behind_at_a_rung_stops_there(tmp_path: Path) -> None:
    """With one worker, in the order of the grid: 0.3 is the first, 0.2 the best."""
    todo = plan(ASHA)
    workers = Workers(todo, tmp_path / "trials")
    progress = workers.run()
    stopped = {trial.settings["learning_rate"]: progress.stopped.get(trial.key) for trial in grid_of(progress)}
    behind = {rate: Stop(1, pytest.approx(score)) for rate, score in ((0.5, 0.701), (0.1, 0.901), (0.4, 0.801))}
    assert stopped == {0.3: None, 0.2: None, **behind}
    assert rate_of(progress) == 0.2
    assert not progress.reasons
    of = searched(todo.groups[0], progress)
    assert (of.method, of.stopped, of.epochs, of.epochs_saved) == ("asha", 3, 2 * EPOCHS + 3, 3 * (EPOCHS - 1))
    assert len(progress.selected(todo.groups[0])) == 2, "further seeds are trained to their end"
    assert sum(workers.epochs.values()) == of.epochs + EPOCHS
    assert not progress.unfinished()


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_a_halving_that_ended_answers_the_same_for_ever(tmp_path: Path, count: int, seed: int) -> None:
    todo = plan(ASHA, parent=True)
    workers = Workers(todo, tmp_path / "trials", count, seed)
    before = workers.run()
    assert before.stopped
    again = Progress(todo, tmp_path / "trials", engines_of(todo))
    assert (again.next(), again.stopped, again.results) == (None, before.stopped, before.results)
    assert [again.best(group) for group in todo.groups] == [before.best(group) for group in todo.groups]


@pytest.mark.parametrize("until", range(0, 45, 4))
def test_one_worker_killed_anywhere_stops_and_chooses_as_if_it_had_not_been(tmp_path: Path, until: int) -> None:
    todo = plan(ASHA, rates=(0.5, 0.3, 0.1, 0.2, 0.4))
    expected = Workers(todo, tmp_path / "a" / "trials").run()
    workers = Workers(todo, tmp_path / "b" / "trials")
    workers.run(until)
    progress = workers.run()
    assert progress.stopped == expected.stopped
    assert rate_of(progress) == rate_of(expected)
    assert max(workers.epochs.values()) == EPOCHS


def test_a_trial_that_one_search_stopped_goes_on_in_another(tmp_path: Path) -> None:
    root = tmp_path / "trials"
    halved = Workers(plan(ASHA), root).run()
    for stopped in halved.stopped:
        (root / stopped).mkdir()
        (root / stopped / RESUME).touch()
    halved.prune()
    assert all((root / stopped / RESUME).is_file() for stopped in halved.stopped), "their state stays"
    whole = Workers(plan(Search()), root)
    whole.run()
    assert whole.epochs.keys() == halved.stopped.keys()
    assert Workers(plan(ASHA), root).run().stopped == halved.stopped, "and are stopped for the first as before"


@pytest.mark.parametrize("reduction", [2, 3])
def test_trials_that_another_search_trained_stop_where_they_would_have(tmp_path: Path, reduction: int) -> None:
    """So the choice does not depend on what lies on the disk."""
    todo = plan(Search("asha", reduction=reduction), rates=(0.2, 0.5, 0.3, 0.1, 0.4))
    expected = Workers(todo, tmp_path / "a" / "trials").run()
    root = tmp_path / "b" / "trials"
    Workers(plan(Search(), rates=(0.2, 0.5, 0.3, 0.1, 0.4)), root).run()
    workers = Workers(todo, root)
    progress = workers.run()
    assert workers.epochs == {}
    assert progress.stopped == expected.stopped
    assert not root.with_name("searches").exists(), "to read is not to write"


def test_where_none_is_left_the_best_stopped_one_goes_on(tmp_path: Path) -> None:
    todo = plan(ASHA, rates=(0.2, 0.5, 0.35))
    first, _, third = todo.grid(todo.groups[0])
    workers = Workers(todo, tmp_path / "trials", count=3)
    progress = Progress(todo, tmp_path / "trials", engines_of(todo))
    keys = [trial.key for trial in (progress.next(), progress.next(), progress.next()) if trial]
    for key in keys:
        if progress.stops(key, 1, score_of(progress.running[key], 1)):
            progress.stop(key)
    assert set(progress.stopped) == set(keys[1:])
    progress.end(first.key, None, "lost")
    assert set(progress.stopped) == {keys[1]}
    going = progress.next()
    assert going == third
    assert not progress.stops(third.key, 1, 0.0)
    again = workers.run(lost=[first.key])  # another driver, as after a kill
    assert rate_of(again) == 0.35
    assert Workers(todo, tmp_path / "trials").run(lost=[first.key]).best(todo.groups[0]) == third


def test_an_undefined_score_stops_nothing(tmp_path: Path) -> None:
    todo = plan(ASHA)
    engines = engines_of(todo)
    assert engines is not None
    halving = Halving(engines.cut(todo.groups[0]), EPOCHS, tmp_path / "j.jsonl")
    assert not halving.stops("a", 1, 0.9)
    assert not halving.stops("b", 1, float("nan"))
    assert halving.stops("c", 1, 0.5)
    assert not halving.stops("a", EPOCHS, 0.0), "a trial ends its last epoch itself"
    again = Halving(engines.cut(todo.groups[0]), EPOCHS, tmp_path / "j.jsonl")
    assert again.stopped == halving.stopped == {"c": Stop(1, 0.5)}
    assert not again.stops("d", 1, 0.95)
    (tmp_path / "j.jsonl").write_text('{"trial": "a", "epoch": 1, "selection": 0.9, "stops": false}\n{"tri')
    assert Halving(engines.cut(todo.groups[0]), EPOCHS, tmp_path / "j.jsonl").stopped == {}


BAYES = Search("bayes", trials=9)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_suggestions_depend_neither_on_workers_nor_on_ends_nor_on_kills(tmp_path: Path, count: int) -> None:
    todo = plan(BAYES)
    expected = Workers(todo, tmp_path / "a" / "trials").run()
    assert len(grid_of(expected)) == BAYES.trials
    assert all(0.1 <= trial.settings["learning_rate"] <= 0.5 for trial in grid_of(expected))
    for seed in range(3):
        root = tmp_path / f"b{seed}" / "trials"
        workers = Workers(todo, root, count, seed)
        for until in (5, 30, None):
            progress = workers.run(until)
        assert grid_of(progress) == grid_of(expected)
        assert progress.best(todo.groups[0]) == expected.best(todo.groups[0])
        assert len(workers.epochs) == BAYES.trials + 1


def test_suggestions_learn_from_scores_and_go_on_from_fewer(tmp_path: Path) -> None:
    few = Workers(plan(Search("bayes", trials=6)), tmp_path / "trials").run()
    workers = Workers(plan(Search("bayes", trials=20)), tmp_path / "trials")
    more = workers.run()
    assert grid_of(more)[:6] == grid_of(few)
    misses = [abs(trial.settings["learning_rate"] - 0.2) for trial in grid_of(more)]
    assert sum(misses[10:]) < sum(misses[:10]), misses


def test_a_failed_suggestion_holds_up_nothing(tmp_path: Path) -> None:
    todo = plan(BAYES)
    lost = Progress(todo, tmp_path / "trials", engines_of(todo)).next()
    assert lost is not None
    progress = Workers(todo, tmp_path / "trials", 2).run(lost=[lost.key])
    assert len(grid_of(progress)) == BAYES.trials
    assert [*progress.reasons] == [lost.key]


def test_a_search_is_its_inputs() -> None:
    (group,) = plan(ASHA).groups
    (other,) = plan(Search("asha", reduction=2)).groups
    (suggested,) = plan(BAYES).groups
    (more,) = plan(Search("bayes", trials=3), rates=(0.5, 0.1)).groups
    keys = [search_key(group, 1, None), search_key(group, 2, None), search_key(group, 1, "k")]
    assert len({*keys, search_key(other, 1, None), search_key(suggested, 1, None)}) == 5
    assert search_key(suggested, 1, None) == search_key(more, 1, None), "the same range"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"grid.search": "hyperband"}, ["grid.search", "'hyperband'", "grid", "asha"]),
        ({"grid.search": "asha"}, ["grid.search", "'asha'", "training.epochs is 1", "set grid"]),
        ({"images.grid.search": "asha", "images.training.epochs": 1}, ["images.grid.search", "images.training.epochs"]),
        ({"grid.search": "bayes"}, ["grid", "bayes", "smallest and a largest learning_rate"]),
        ({"grid.trials": 4}, ["grid", "trials", "bayes", "take it out"]),
        ({"grid.search": "bayes", "grid.reduction": 4}, ["grid", "reduction", "asha", "take it out"]),
        ({"grid.search": "asha", "grid.reduction": 1}, ["grid.reduction", "1"]),
    ],
)
def test_bad_settings_are_one_line(workspace: Workspace, changes: dict[str, Any], parts: list[str]) -> None:
    workspace.write_params(changes)
    with pytest.raises(ParamsError) as error:
        load_params()
    line = str(error.value)
    assert "\n" not in line
    assert all(part in line for part in parts), line


def test_without_optuna_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ParamsError, match=r"^grid.search: 'bayes' needs Optuna, .* `pip install optuna`"):
        engines_of(plan(BAYES))
    assert engines_of(plan(Search())) is None
