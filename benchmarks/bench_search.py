"""Searches: epochs trained, and the score of the chosen point, of asha and bayes against the grid.
python benchmarks/bench_search.py [--rows 1200 --epochs 6 --methods 1 --reduction 3]

The three searches really run, through Ray, on the demo's sentences. First asha; then the grid, in which asha's stopped
trials go on, so that nothing is trained twice; then bayes with three quarters of the grid's points. The second table
shows the grid's epochs to asha again, trial by trial in 200 random orders: what it stops with one worker."""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import options, table
from pipeline.layout import HERE
from pipeline.models.encoders.tokenizer import tokenizer_of
from pipeline.params import Params
from pipeline.results import TrialResult
from pipeline.running.ray.search import engines_of
from pipeline.running.ray.tune import run_plan
from pipeline.tasks.prepare import prepare
from pipeline.training.groups import plan_of
from pipeline.training.halving import Halving
from pipeline.training.plan import Group, Plan, Search, Trial, read_history
from pipeline.training.progress import Progress
from pipeline.training.selection import searched
from pipeline.training.trial import RUNNER

TASK, BACKBONE = "demo-sentences", "demo-albert"
GRID: dict[str, Any] = {"batch_size": [32, 64], "learning_rate": [0.0003, 0.001, 0.002, 0.005]}
ORDERS = 200


class Silent:
    """Tracks nothing."""

    def started(self, trial: Trial) -> None: ...
    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None: ...
    def ended(self, trial: Trial, result: TrialResult | None) -> None: ...
    def stopped(self, trial: Trial) -> None: ...


def main() -> None:
    given = options("Searches of a grid", rows=1200, epochs=6, methods=1, reduction=3)
    root = Path.cwd()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)  # of the workers
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            compare(given)
        finally:
            os.chdir(root)


def compare(given: Any) -> None:
    """Run the searches one after another, and print both tables."""
    searches = {
        "asha": {"search": "asha", "reduction": given.reduction},
        "grid": {},
        "bayes": {"search": "bayes", "trials": 3 * len(GRID["batch_size"]) * len(GRID["learning_rate"]) // 4},
    }
    ran = {}
    for name, search in searches.items():
        params = settings(given, search)
        if not HERE.manifest(TASK).is_file():
            task, spec = params.task(TASK), params.backbone(BACKBONE)
            prepare(task, {spec.name: tokenizer_of(spec, task, None)}, "holdout", HERE.data(TASK), None, {})
        ran[name] = run(params, given.device)
    rows = []
    for index, group in enumerate(ran["grid"].plan.groups):
        whole, best = searched(group, ran["grid"]), score(ran["grid"], group)
        for name in ("grid", "asha", "bayes"):
            own = ran[name].plan.groups[index]
            of = searched(own, ran[name])
            chosen, share = score(ran[name], own), of.epochs / whole.epochs
            rows.append([own.settings["method"], name, own.points, of.stopped, of.epochs, share, chosen, chosen - best])
    table(["method", "search", "points", "stopped", "epochs", "of the grid's", "chosen score", "to the grid's"], rows)
    again = [row for group in ran["grid"].plan.groups for row in replayed(ran["grid"], group)]
    heads = ["method", "reduction", "epochs of the grid's", "from", "to", "same choice", "loss of score", "at most"]
    table(heads, again)


def settings(given: Any, search: Mapping[str, Any]) -> Params:
    return Params.model_validate(
        {
            "tasks": {TASK: {"rows": {"train": given.rows, "selection": 600, "report": 100}}},
            "backbones": {BACKBONE: {}},
            "methods": ["joint", "single_exit"][: given.methods],
            "grid": {**GRID, **search},
            "seeds": [1],
            "training": {"epochs": given.epochs, "stop_after": 3},
            "runtime": {"threads": 1, "device": given.device},
        }
    )


def run(params: Params, device: str) -> Progress:
    """Run a plan in the folder of all trials, and print how long it took."""
    context = {"folder": str(Path.cwd()), "threads": 1, "device": device, "mirror": None}
    context["micro_batch"] = dict.fromkeys(params.trainings())
    plan, started = plan_of(params), time.perf_counter()
    progress = run_plan(
        plan, runner=RUNNER, root=HERE.trials, runtime=params.runtime, context=context, observer=Silent()
    )
    print(f"{params.grid.search}: {time.perf_counter() - started:.0f} s")
    return progress


def score(progress: Progress, group: Group) -> float:
    """Selection score of the chosen point."""
    best = progress.best(group)
    result = progress.results[best.key] if best else None
    assert result is not None
    assert result.selection is not None
    return result.selection


def replayed(progress: Progress, group: Group) -> list[list[Any]]:
    """What asha saves and loses on a group's grid, over orders of its trials."""
    trials = progress.plan.grid(group)
    histories = {trial.key: read_history(HERE.trial(trial.key)) for trial in trials}
    scores = {key: max(row["selection"] for row in rows) for key, rows in histories.items()}
    whole, rows = sum(map(len, histories.values())), []
    for reduction in (2, 3, 4):
        plan = Plan((Group(group.name, group.settings, search=Search("asha", reduction=reduction)),), (1,))
        engines = engines_of(plan)
        assert engines is not None
        shares, losses = [], []
        for seed in range(ORDERS):
            keys = random.Random(seed).sample(sorted(histories), len(histories))
            halving = Halving(engines.cut(plan.groups[0]), group.epochs, Path("journal"))
            for key in keys:
                halving.take(key, histories[key])
            stopped = halving.stopped
            shares.append(sum(stopped[key].epoch if key in stopped else len(histories[key]) for key in keys) / whole)
            losses.append(max(scores.values()) - max(scores[key] for key in keys if key not in stopped))
        same = statistics.mean(loss == 0 for loss in losses)
        spread = [statistics.mean(shares), min(shares), max(shares), same, statistics.mean(losses), max(losses)]
        rows.append([group.settings["method"], reduction, *spread])
    return rows


if __name__ == "__main__":
    main()
