"""Every trial of a plan through one Ray Tune run.

A searcher hands out whatever may run now, so there are no waves with idle workers between them: the further seeds of
one group start while another group's grid is still running. Resuming is the trials' own affair (a folder per key and
a state per epoch), which also works when the grid has changed in between; Tuner.restore does not.
"""

import itertools
import logging
import os
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pipeline.errors import (
    ClusterError,
    PipelineError,
    StorageError,
    TrialsFailedError,
    one_line,
    redacted,
    storage_error,
)
from pipeline.layout import HERE
from pipeline.running.gpus import Memory
from pipeline.running.ledger import MACHINES, Ledger, Observer
from pipeline.running.progress import Bar
from pipeline.running.ray.callback import ledger_callback
from pipeline.running.ray.cluster import connect, leave_out, without
from pipeline.running.ray.deaths import RayEndedError
from pipeline.running.ray.resources import Need, Wait, gpu_kinds, gpu_share, may_grow, parallel, refuse_if_never
from pipeline.running.ray.search import engines_of
from pipeline.running.ray.shares import Shares
from pipeline.running.ray.worker import SPARE, enter, forget_peak, gpu_gib, load
from pipeline.running.settings import Runtime
from pipeline.running.shared_folder import Storage
from pipeline.running.storage import open_storage
from pipeline.running.trial_files import ERROR, Home, Homecoming, Travel, take_inputs
from pipeline.storage import claimed
from pipeline.training.claims import Claims
from pipeline.training.losses import losses, refuse_empty, refuse_missing
from pipeline.training.plan import Plan
from pipeline.training.progress import Progress
from pipeline.training.selection import searched

FIXED, GROWING = 16, 200
"""Trials that wait for a worker at once: on a cluster as it is, and where an autoscaler may add as many workers (Ray's
own number for that)."""

TUNE: Mapping[str, str] = MappingProxyType(
    {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end as if all had run
        "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads it, and each of them writes all trials
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }
)
"""Settings that Tune takes from the environment alone."""


def run_plan(
    plan: Plan,
    *,
    runner: str,
    root: Path,
    runtime: Runtime,
    context: Mapping[str, Any],
    observer: Observer,
    home: Home | None = None,
    on_missing: Literal["refuse", "report"] = "refuse",
) -> Progress:
    """Run what is not finished of a plan.

    Args:
        runner: "module:function" called in the worker as f(settings, names, directory, context, report); returns the
            trial's result and leaves its checkpoint in `directory`.
        root: parent folder of the trial folders, below the working folder; without a storage every node must see it.
        context: what the runner needs and what does not change results (paths, device, threads).
        home: brings trials from the storage and back; None: every node sees `root`.
        on_missing: whether points of a grid that failed end the run, after all else, or are left out of the choice.

    Returns:
        Every trial of the plan with its result, and each group's choice.

    Raises:
        ClusterError: the address does not answer, nodes do not share `root`, or no node can ever run a trial.
        TrialsFailedError: a group of which no grid trial finished, points that `on_missing` refuses, or the run was
            interrupted.
    """
    root.mkdir(parents=True, exist_ok=True)
    home = home or Home(Storage(), root)
    halves = any(group.search.method == "asha" for group in plan.groups)
    with claimed(HERE.claims, "halving") if halves else nullcontext():  # one driver at a time writes the journals
        progress = Progress(plan, root, engines_of(plan), home.hashes, Claims(HERE.claims))
        ledger = Ledger(progress, Homecoming(observer, home), show=runtime.progress, retries=runtime.retries)
        with Bar("trials", plan.total, done=ledger.done, show=runtime.progress) as ledger.bar:
            _run_unfinished(ledger, runner, runtime, context, home)
    left = progress.unfinished()
    if left:  # Tune takes Ctrl-C for a wish to stop, and returns as if all were well
        raise TrialsFailedError(f"interrupted with {left} trials to run; run it again, what is finished is kept")
    ended = len(progress.results) + len(progress.stopped)
    print(f"{ledger.ran} trials run, {ended - ledger.ran} reused of {plan.total}", flush=True)
    _name_stops(progress)
    lost = _name_losses(progress, root)
    refuse_empty(progress)
    if on_missing == "refuse":
        refuse_missing(progress)
    if lost:
        print(f"{lost} of {plan.total} trials failed; `dvc repro -f finetune` tries them again", flush=True)
    home.settle(progress)
    return progress


def _run_unfinished(ledger: Ledger, runner: str, runtime: Runtime, context: Mapping[str, Any], home: Home) -> None:
    """Run what is left, on as many Rays of our own as it takes."""
    for starts in itertools.count(1):
        if not ledger.progress.unfinished():
            return
        try:
            return _tune(ledger, runner, runtime, context, home)
        except RayEndedError as ended:
            if starts == MACHINES:
                raise ClusterError(f"{ended}, {MACHINES} times; give it more memory, then go on") from None
            ledger.all_lost()
            print(f"{ended}; it is started or joined again", flush=True)


def _name_stops(progress: Progress) -> None:
    """Print what searches stopped, and the epochs that this saved."""
    of_groups = [searched(group, progress) for group in progress.plan.groups]
    stopped = sum(of.stopped for of in of_groups)
    trained, saved = sum(of.epochs for of in of_groups), sum(of.epochs_saved for of in of_groups)
    if stopped:
        print(f"{stopped} trials stopped by their search: {trained} epochs trained, at most {saved} saved", flush=True)


def _name_losses(progress: Progress, root: Path) -> int:
    """Print every trial that failed or could not run, so that a plan with holes does not end as if it had none."""
    lost = [loss for group in progress.plan.groups for loss in losses(progress, group)]
    for trial, reason in lost:
        where = f"; see {root / trial.key}/error.txt" if trial.key in progress.reasons else ""
        print(f"failed: {trial.label}: {reason}{where}", flush=True)
    return len(lost)


def _tune(ledger: Ledger, runner: str, runtime: Runtime, context: Mapping[str, Any], home: Home) -> None:
    root = ledger.progress.root
    home.offer(ledger.progress.trials())
    for variable, value in TUNE.items():
        os.environ.setdefault(variable, value)
    storage = HERE.tune.resolve()
    name = f"{root.name}-{os.getpid()}-{int(time.time())}"
    connect(runtime, runner)
    import ray

    if runtime.ray_address:  # what an autoscaler sees, and starts workers for
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(GROWING if may_grow() else FIXED))
    try:
        from ray import tune

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # we name failed trials; error.txt has the rest
        left_out = leave_out(home.storage, root)
        need = Need(runtime.threads, gpu_share(runtime))
        refuse_if_never(need, runtime, left_out)
        shares = Shares(runtime, need.gpus, gpu_kinds(runtime, need.gpus), Memory(HERE.gpu_memory), without(left_out))
        # On a cluster Ray knows what fits; one that grows with the demand must see more than fits now.
        slots = None if runtime.ray_address else parallel(runtime, 0.0 if shares.gpus else need.gpus)
        callback = ledger_callback(ledger, Wait(need, runtime, left_out), shares)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, runner=runner, root=root.as_posix(), context=dict(context)),
                shares.request,
            ),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(ledger, shares),
                scheduler=_scheduler(callback),
                num_samples=-1,
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(storage),
                name=name,
                failure_config=tune.FailureConfig(max_failures=0),  # the ledger hands out again what failed
                callbacks=[callback],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception:  # of many types, where Ray is gone
            if callback.error is None:
                callback.watch.refuse_dead_ray(now=True)
                raise
        if callback.error is not None:
            raise callback.error from None
        callback.watch.refuse_dead_ray(now=True)  # Tune may return as if all were well
    finally:
        ray.shutdown()
        with suppress(StorageError):  # what ended the run is said
            home.bring(*ledger.progress.running)
        shutil.rmtree(storage / name, ignore_errors=True)  # the trial folders hold all that matters


def _searcher(ledger: Ledger, shares: Shares) -> Any:
    from ray.tune.search import Searcher

    class PlanSearcher(Searcher):
        """Suggests the next runnable trial; None while all that is left waits for a selection."""

        def __init__(self) -> None:
            super().__init__(metric="selection", mode="max")

        def suggest(self, trial_id: str) -> Any:
            trial = ledger.progress.next()
            if trial is None:
                waits = ledger.progress.running or ledger.progress.elsewhere
                return None if waits else Searcher.FINISHED
            resources = shares.take(trial.key, trial.settings, ledger.progress.running)
            named = {"settings": dict(trial.settings), "names": dict(trial.names)}
            return {"key": trial.key, "resources": resources, **named}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            pass  # the callback keeps the ledger; it knows the key

    return PlanSearcher()


def _scheduler(callback: Any) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    class PlanScheduler(FIFOScheduler):
        """Stops a trial where its group's search does. The next one is the first handed out of those that have not
        ended; Tune's own looks at all that ever were."""

        def __init__(self) -> None:
            super().__init__()
            self.places: dict[str, int] = {}
            """Trial's id to its place in the order of handing out."""
            self.count = itertools.count()

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            self.places[trial.trial_id] = next(self.count)

        def choose_trial_to_run(self, tune_controller: Any) -> Any:
            live = tune_controller.get_live_trials()
            if len(self.places) > 2 * len(live) + FIXED:  # what has ended
                alive = {trial.trial_id for trial in live}
                self.places = {trial: place for trial, place in self.places.items() if trial in alive}
            pending = (trial for trial in live if trial.status == "PENDING")
            return min(pending, key=lambda trial: self.places[trial.trial_id], default=None)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
            return str(self.STOP if callback.stops(trial, result) else self.CONTINUE)

    return PlanScheduler()


def _trainable(config: dict[str, Any], runner: str, root: str, context: Mapping[str, Any]) -> None:
    """One trial, in a worker process that later trials reuse."""
    from ray import tune

    storage = open_storage(context.get("storage"))
    directory = enter(storage, context["folder"]) / root / config["key"]
    travel = Travel(storage, Path(root) / config["key"])
    context = {**context, "gpu_share": config["resources"].get("GPU", 0.0)}
    forget_peak()

    def report(metrics: dict[str, float]) -> None:
        travel.publish()
        told = {"epoch_metrics": metrics, "selection": metrics["selection"]}
        tune.report(told | ({"gpu_gib": gib} if (gib := gpu_gib()) else {}))

    try:
        names = take_inputs(storage, context, config["names"])
        travel.fetch(config["settings"].get("parent"))
        result = load(runner)(config["settings"], names, directory, context, report)
        travel.publish()
        travel.leave()
    except SystemExit:  # its search stopped it as it reported
        travel.leave()
        raise
    except Exception as error:
        disk = None
        if isinstance(error, OSError) and not storage.travels:
            error.filename = error.filename or directory.as_posix()
            disk = storage_error(error)
        fault = f"out of memory; {SPARE}" if isinstance(error, MemoryError) else one_line(disk or error)
        with suppress(OSError):  # the disk may be full
            directory.mkdir(parents=True, exist_ok=True)
            (directory / ERROR).write_text(redacted(f"{fault}\n\n{traceback.format_exc()}"), encoding="utf-8")
        certain = isinstance(error, PipelineError) and not isinstance(error, StorageError)
        with suppress(StorageError):  # it may be what failed
            travel.publish()
        tune.report({"fault": fault, "certain": certain, "disk": disk is not None, "selection": None})
        raise
    tune.report({"trial_result": result.model_dump(mode="json"), "selection": result.selection})
