"""Train, select, trace, judge and attack a profile on one GPU of a machine that has neither Ray, MLflow nor DVC.

The plan, its trials, their choice, the traces, the operating points and the attack are those of the stages; only what
runs them is another, a few processes that share the GPU. What it packs is what those stages write below outputs/,
without models and MLflow's runs, so that evaluate and report go on from it on any machine (docs/design/evidence.md).
Data are prepared before, in the same folder; an attack needs TextAttack and its resources.

    python -m tools.without_ray --workers 8 --seconds 400 --out FOLDER
"""

import argparse
import multiprocessing
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.attacks.comparison import Workers
from pipeline.attacks.needs import check
from pipeline.errors import PipelineError
from pipeline.layout import HERE
from pipeline.models.trace_cache import Recording, record_model
from pipeline.params import Params, load_params
from pipeline.results import Attack, Evaluated, Selected, TraceIndex, TrialResult, Trials
from pipeline.running.local_files import attacked_with
from pipeline.running.stage import Stage
from pipeline.tasks.splits import SELECTION
from pipeline.tasks.stores import manifest_of
from pipeline.training.code import code_key, recording_code
from pipeline.training.groups import plan_of
from pipeline.training.plan import Trial
from pipeline.training.progress import Progress
from pipeline.training.records import trial_record
from pipeline.training.selection import keep_models, selected_models
from stages.evaluate import main as evaluate


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8, help="processes that share the GPU")
    parser.add_argument("--seconds", type=float, default=400, help="no trial begins later; what runs is ended")
    parser.add_argument("--seeds", type=int, help="the first so many of the profile's seeds")
    parser.add_argument("--out", type=Path, required=True, help="folder for a tar file per task")
    arguments = parser.parse_args()
    try:
        run_profile(arguments)
    except PipelineError as error:
        sys.exit(f"without_ray: {error}")


def run_profile(arguments: argparse.Namespace) -> None:
    """Run the profile in params.yaml."""
    params = load_params(Path("params.yaml"))
    if arguments.seeds:
        params = params.model_copy(update={"seeds": params.seeds[: arguments.seeds]})
    if params.attack.tasks:
        check(params.attack.resources, params.attack.recipe)  # before anything is trained
    until = time.monotonic() + arguments.seconds
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(arguments.workers, mp_context=context)
    try:
        progress = train(params, pool, arguments.workers, until)
        write(params, progress, pool)
        for name in params.attack.tasks:
            attack(params, name, pool)
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
    pack(params, progress, arguments.out)


def train(params: Params, pool: ProcessPoolExecutor, workers: int, until: float) -> Progress:
    """Run the plan until it is done or the time is over."""
    progress = Progress(plan_of(params), HERE.trials)
    context = {
        "threads": params.runtime.threads,
        "device": params.runtime.device,
        "mirror": str(params.runtime.hub_mirror.resolve()) if params.runtime.hub_mirror else None,
        "micro_batch": {name: block.micro_batch for name, block in params.trainings().items()},
    }
    running: dict[Future[Any], Trial] = {}
    started = time.monotonic()
    while True:
        while len(running) < workers and time.monotonic() < until and (trial := progress.next()) is not None:
            running[pool.submit(run, dict(trial.settings), dict(trial.names), trial.key, context)] = trial
        if time.monotonic() >= until:
            for trial in running.values():
                progress.end(trial.key, None, "the time was over")
            while (left := progress.next()) is not None:
                progress.end(left.key, None, "the time was over")
            return progress
        if not running:
            return progress
        done, _ = wait(running, timeout=max(0.1, until - time.monotonic()), return_when=FIRST_COMPLETED)
        for future in done:
            trial = running.pop(future)
            result, reason = future.result()
            progress.end(trial.key, result, reason)
            score = "failed: " + reason if result is None else f"{result.selection:.4f} {result.train_seconds:.1f} s"
            print(f"{time.monotonic() - started:6.1f} {trial.label}: {score}", flush=True)


def run(settings: Any, names: Any, key: str, context: Any) -> tuple[TrialResult | None, str]:
    """One trial, in a worker."""
    from pipeline.training.trial import train as train_one

    try:
        return train_one(settings, names, HERE.trial(key), context, lambda metrics: None), ""
    except Exception as error:
        traceback.print_exc()
        return None, " ".join(str(error).split())


def write(params: Params, progress: Progress, pool: ProcessPoolExecutor) -> None:
    """Write the selections, the table of trials and the traces, of groups that have a choice."""
    records = [trial_record(trial, progress.results.get(trial.key)) for trial in progress.trials()]
    Trials(trials=tuple(records)).write(HERE.trials_table)
    for name in params.tasks:
        groups = [g for g in progress.plan.groups if g.names["task"] == name and progress.best(g) is not None]
        selected = selected_models(params.task(name), params.protocol, groups, progress)
        keep_models(selected, HERE, HERE.models(name))
        selected.write(HERE.selected(name))
        trace(params, selected, pool)


def trace(params: Params, selected: Selected, pool: ProcessPoolExecutor) -> None:
    """Record the traces of a task's selected models."""
    runtime, task = params.runtime, selected.task
    manifest = manifest_of(task)
    splits = (SELECTION, *manifest.report_splits, *manifest.unlabelled_splits)
    code = code_key(recording_code(manifest.modality))
    models = [
        Recording(task, group, trial, splits, runtime.device, runtime.threads, code)
        for group in selected.groups
        for trial in group.trials
    ]
    devices = {device for device, _ in pool.map(record_model, models)}
    (device,) = devices
    folder = HERE.traces(task)
    folder.mkdir(parents=True, exist_ok=True)
    entries = [entry for model in models for entry in model.entries(device, folder)]
    TraceIndex(
        task=task,
        traces=tuple(e for e in entries if e.split not in manifest.unlabelled_splits),
        unlabelled=tuple(e for e in entries if e.split in manifest.unlabelled_splits),
    ).write(HERE.trace_index(task))


class Unrecorded:
    """Stands where a stage has MLflow, and keeps nothing."""

    id = experiment_id = "none"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **settings: self


def attack(params: Params, name: str, pool: ProcessPoolExecutor) -> None:
    """Choose a task's operating points and attack them, in the pool's processes."""
    from pipeline.attacks.examples import attacked_splits
    from pipeline.attacks.records import save_records
    from pipeline.attacks.run import attack_task

    evaluate(Stage("evaluate", name, params, Unrecorded()))  # type: ignore[arg-type]
    task, runtime, reported = params.task(name), params.runtime, manifest_of(name).report_splits
    evaluated, selected = Evaluated.read(HERE.evaluated(name), ""), Selected.read(HERE.selected(name), "")
    workers = Workers(partial(fan_out, pool), runtime.device, runtime.threads, progress=True)
    attacked = {
        split: attack_task(task, params.attack, selected, evaluated, split, reported[0], workers, runtime.hub_mirror)
        for split in attacked_splits(params.attack.tasks[name], reported)
    }
    files = attacked_with(params, task, HERE)
    save_records(HERE.attack_records(name), {split: records for split, (_, records) in attacked.items()})
    kept = tuple(one.model_copy(update={"files": files}) for one, _ in attacked.values())
    Attack(task=name, attacked=kept).write(HERE.attack(name))


def fan_out(
    pool: ProcessPoolExecutor,
    jobs: Sequence[Any],
    *,
    runner: str,
    root: Path,
    done: Callable[[Any, Any], None],
    label: str,
) -> None:
    """Run jobs in the pool; the arguments are those of `pipeline.running.ray.jobs.fan_out`."""
    root.mkdir(parents=True, exist_ok=True)
    module, function = runner.split(":")
    futures = {pool.submit(getattr(import_module(module), function), job): job for job in jobs}
    for future in as_completed(futures):
        done(futures[future], future.result())


def pack(params: Params, progress: Progress, out: Path) -> None:
    """Pack what is worth keeping, without models and states."""
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / "trials.tar.gz", "w:gz") as archive:
        archive.add(HERE.trials_table)
        for trial in progress.trials():
            for name in ("settings.json", "metrics.jsonl", "result.json", "code.json"):
                if (HERE.trial(trial.key) / name).is_file():
                    archive.add(HERE.trial(trial.key) / name)
    for task in params.tasks:
        with tarfile.open(out / f"{task}.tar.gz", "w:gz") as archive:
            for path in (HERE.selected(task), HERE.traces(task), HERE.attack(task), HERE.attack_records(task)):
                if path.exists():
                    archive.add(path)
    sizes = {path.name: path.stat().st_size // 1024 for path in sorted(out.iterdir())}
    print(f"{len(list(HERE.trials.iterdir()))} trials; KiB: {sizes}", flush=True)


if __name__ == "__main__":
    main()
