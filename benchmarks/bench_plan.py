"""The bookkeeping of a plan in Tune's event loop, with toy results and no Ray: 1,000 and 10,000 trials.

Groups of several methods, some of which start from another's models, a grid of 4 x 4 points and four further seeds;
eight trials run at a time and end in random order. One life of a plan: made, its trials handed out and ended, each
group's selection, the check, and the weights that are dropped; then the same plan once more with every result on disk.
What a run of MLflow, a line on the screen and Tune itself cost comes on top.

The last row is how it was before: everything worked out anew from all results for each trial that is handed out.

Prints CPU milliseconds of this process per trial, the best of a few lives; exit code 1 when a promise is broken.
"""

import hashlib
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from pipeline.results import TrialResult
from pipeline.training.losses import refuse_empty
from pipeline.training.plan import RESULT, WEIGHTS, Group, Plan
from pipeline.training.progress import Progress

SMALL, LARGE, ANEW = 1_000, 10_000, 400
PER_GROUP, WORKERS = 20, 8
METHODS = {"joint": None, "single_exit": None, "two_stage": "joint", "berxit": "joint", "theseus": "two_stage"}
"""Each method's parent."""
MILLISECONDS, GROWTH = 1.0, 1.5
"""The promises: most per trial, and the largest ratio of a trial's time in the large plan to one in the small plan."""


def plan_of(trials: int) -> Plan:
    """A plan of so many trials, with settings as long as real ones."""
    tasks = [f"task-{index}" for index in range(trials // PER_GROUP // len(METHODS))]
    groups = [
        Group(
            f"{task}/albert/{method}",
            settings(task, method),
            parent and f"{task}/albert/{parent}",
            batch_sizes=(16, 32, 64, 128),
            learning_rates=(1e-5, 2e-5, 3e-5, 5e-5),
        )
        for task in tasks
        for method, parent in METHODS.items()
    ]
    plan = Plan(tuple(groups), (1, 2, 3, 4, 5))
    assert plan.total == trials
    return plan


def settings(task: str, method: str) -> dict[str, object]:
    return {
        "modality": "text",
        "kind": "classification",
        "outputs": 2,
        "metrics": ["accuracy"],
        **{name: f"{name} of {task}".ljust(64, "x") for name in ("data", "weights", "code")},
        "backbone": {"layers": 12, "dropout": 0.1, "max_length": 128, "pooling": "first"},
        "method": method,
        "training": {"epochs": 3, "stop_after": 2, "warmup": 0.1, "weight_decay": 0.01, "clip_norm": 1.0},
    }


def result_of(selection: float) -> TrialResult:
    """A result as long as a real one."""
    layers = tuple(range(1, 13))
    return TrialResult(
        best_epoch=1,
        epochs_run=3,
        selection=selection,
        train_seconds=1.0,
        train_seconds_to_best=1.0,
        micro_batch=None,
        metrics={f"score_exit_{layer:02d}": 0.5 for layer in layers},
        parameters=11_000_000,
        early_exit_parameters=18_000,
        layers=12,
        exits=layers,
        weights_sha256=hashlib.sha256(hashlib.sha256(b"").digest()).hexdigest(),
        code="0" * 64,
        versions=dict.fromkeys(("torch", "transformers", "numpy", "commit"), "1.0"),
    )


def live(plan: Plan, root: Path) -> Progress:
    """One life of a plan; one trial in fifty fails."""
    generator = random.Random(0)
    progress = Progress(plan, root)
    finish(progress, generator)
    assert len(progress.results) > 0.9 * plan.total
    assert all(progress.selected(group) for group in plan.groups)
    refuse_empty(progress)
    progress.prune()
    return progress


def finish(progress: Progress, generator: random.Random) -> None:
    """Run what is not finished."""
    running: list[str] = []
    while True:
        while len(running) < WORKERS and (trial := progress.next()) is not None:
            running.append(trial.key)
        if not running:
            return
        key = running.pop(generator.randrange(len(running)))
        progress.end(key, None if generator.random() < 0.02 else result_of(generator.random()))


def anew(plan: Plan, root: Path) -> None:
    """As `live`, with a new progress for each trial, which takes in all results so far."""
    results: list[TrialResult] = []
    for _ in range(plan.total):
        progress = Progress(plan, root)
        for result in results:
            trial = progress.next()
            assert trial is not None
            progress.end(trial.key, result)
        assert progress.next() is not None
        results.append(result_of(len(results) % 7 / 7))


def store(progress: Progress) -> None:
    """Write every result, and weights; failed trials get a result of the worst score."""
    for trial in progress.trials():
        folder = progress.root / trial.key
        folder.mkdir()
        (progress.results[trial.key] or result_of(0.0)).write(folder / RESULT)
        (folder / WEIGHTS).touch()


def per_trial(run: Callable[[], object], plan: Plan, times: int) -> float:
    """CPU milliseconds per trial, the best of a few runs."""
    took = []
    for _ in range(times):
        start = time.process_time()
        run()
        took.append(time.process_time() - start)
    return 1000 * min(took) / plan.total


def memory(plan: Plan, root: Path) -> float:
    """Peak KiB per trial of a life, the plan included."""
    tracemalloc.start()
    live(plan, root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1024 / plan.total


def main() -> int:
    fresh, again, kib = {}, {}, {}
    for trials, times in ((SMALL, 10), (LARGE, 3)):
        plan = plan_of(trials)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            fresh[trials] = per_trial(lambda: live(plan_of(trials), root), plan, times)  # noqa: B023
            kib[trials] = memory(plan, root)
            store(live(plan, root))
            again[trials] = per_trial(lambda: live(plan, root), plan, times)  # noqa: B023
    with tempfile.TemporaryDirectory() as folder:
        old = plan_of(ANEW)
        before = per_trial(lambda: anew(old, Path(folder)), old, 1)
        after = per_trial(lambda: live(old, Path(folder)), old, 10)
    print(f"{'':<34}{f'{SMALL:,} trials':>14}{f'{LARGE:,} trials':>16}{'ratio':>8}")
    for name, row in (("ms per trial, nothing on disk", fresh), ("ms per trial, all on disk", again)):
        print(f"{name:<34}{row[SMALL]:>14.3f}{row[LARGE]:>16.3f}{row[LARGE] / row[SMALL]:>8.2f}")
    print(f"{'peak KiB per trial':<34}{kib[SMALL]:>14.1f}{kib[LARGE]:>16.1f}{kib[LARGE] / kib[SMALL]:>8.2f}")
    print(f"{ANEW} trials: {before:.2f} ms per trial when all is worked out anew, {before / after:.0f} times as much")
    growth = max(row[LARGE] / row[SMALL] for row in (fresh, again))
    most = max(*fresh.values(), *again.values())
    print(f"promised: under {MILLISECONDS:g} ms ({most:.3f}), ratio at most {GROWTH} ({growth:.2f})")
    return int(most >= MILLISECONDS or growth > GROWTH)


if __name__ == "__main__":
    raise SystemExit(main())
