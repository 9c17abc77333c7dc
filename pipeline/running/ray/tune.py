"""Ray, and the only import of it: every trial of a plan through one Tune run, or independent jobs through a pool.

A searcher hands out whatever may run now, so there are no waves with idle workers between them: the further seeds of
one group start while another group's grid is still running. Resuming is the trials' own affair (a folder per key and
a state per epoch), which also works when the grid has changed in between; Tuner.restore does not.
"""

import importlib
import logging
import os
import re
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ClusterError, PipelineError, TrialsFailedError
from pipeline.running.settings import Runtime
from pipeline.training.plan import Plan, Trial, finished, prune


class Observer(Protocol):
    """Told of what happens to trials; runs in the driver."""

    def started(self, trial: Trial) -> None: ...
    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None: ...
    def ended(self, trial: Trial, result: Mapping[str, Any] | None) -> None: ...


def run_plan(
    plan: Plan, *, runner: str, root: Path, runtime: Runtime, context: Mapping[str, Any], observer: Observer
) -> dict[str, Mapping[str, Any] | None]:
    """Run what is not finished of a plan.

    Args:
        runner: "module:function" called in the worker as f(settings, directory, context, report) and returning the
            trial's result; it must leave its checkpoint in `directory`.
        root: parent folder of the trial folders; every node must see it.
        context: what the runner needs and what does not change results (paths, device, threads).

    Returns:
        Key to result for every trial of the plan; None for those that failed.

    Raises:
        ClusterError: the address does not answer, or nodes do not share `root`.
        TrialsFailedError: a group of which no grid trial finished, or the run was interrupted.
    """
    root.mkdir(parents=True, exist_ok=True)
    ledger = _Ledger(plan, root, observer, runtime.progress)
    if ledger.unfinished():
        _tune(ledger, runner, runtime, context)
        left = len(ledger.running) + len(ledger.unfinished())
        if left:  # Tune takes Ctrl-C for a wish to stop, and returns as if all were well
            raise TrialsFailedError(f"interrupted with {left} trials to run; run it again, what is finished is kept")
    results = ledger.results
    print(f"{ledger.ran} trials run, {len(results) - ledger.ran} reused of {plan.total}", flush=True)
    for trial in plan.failures(results):
        print(f"failed: {trial.label}, see {root / trial.key}/error.txt", flush=True)
    plan.check(results)
    prune(root, plan, results)
    return results


def fan_out(
    jobs: Sequence[Any], *, runner: str, root: Path, runtime: Runtime, done: Callable[[Any, Any], None]
) -> None:
    """Run jobs that do not depend on each other, one core each, in whatever order they end.

    One job, or one worker and no cluster, runs in this process: starting Ray would take longer.

    Args:
        jobs: what the runner is called with; pickled to workers, which run in this folder.
        runner: "module:function"; it stores what it finds under `root`, which every node must see.
        done: called here with each job and what the runner returned.

    Raises:
        PipelineError: as the runner raised it; the other jobs are stopped.
        ClusterError: the address does not answer, or nodes do not share `root`.
        TrialsFailedError: a worker died with its job again and again.
    """
    slots = min(len(jobs), _parallel(runtime, 0.0)) if not runtime.ray_address else len(jobs)
    if slots < 2:
        for job in jobs:
            done(job, _function(runner)(job))
        return
    _knock(runtime.ray_address)
    import ray

    root.mkdir(parents=True, exist_ok=True)
    _connect(runtime)
    try:
        _check_storage(root.resolve())
        resources = {"num_cpus": runtime.threads, "num_gpus": _gpu_share(runtime), "max_retries": runtime.retries}
        task = ray.remote(**resources)(_job)
        running = {task.remote(runner, job, str(Path.cwd())): job for job in jobs}
        while running:
            (ready, *_), _ = ray.wait(list(running))
            try:
                error, result = ray.get(ready)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as crash:
                reason = " ".join(str(crash).split())[:160]
                raise TrialsFailedError(
                    f"{runner}: a worker died ({reason}); give it more memory, then go on"
                ) from None
            if error is not None:
                raise error
            done(running.pop(ready), result)
    finally:
        ray.shutdown()


def _job(runner: str, job: Any, folder: str) -> tuple[PipelineError | None, Any]:
    """One job, in a worker process that later jobs reuse."""
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return None, _function(runner)(job)
    except PipelineError as error:  # its one line, without Ray's traceback around it
        return error, None


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _tune(ledger: "_Ledger", runner: str, runtime: Runtime, context: Mapping[str, Any]) -> None:
    root = ledger.root.resolve()
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # a refused connection warns once a second
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    if runtime.ray_address:
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")  # what an autoscaler sees, and starts workers for
    _knock(runtime.ray_address)
    import ray
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failed trials are named by us; error.txt has the rest
    _connect(runtime)
    storage = root.parent / ".tune"
    name = f"{root.name}-{os.getpid()}-{int(time.time())}"
    try:
        _check_storage(root)
        share = _gpu_share(runtime)
        # On a cluster Ray knows what fits; one that grows with the demand must see more than fits now.
        parallel = None if runtime.ray_address else _parallel(runtime, share)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, runner=runner, root=str(root), context=dict(context)),
                {"cpu": runtime.threads, "gpu": share},
            ),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(ledger),
                num_samples=-1,
                max_concurrent_trials=parallel,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(storage),
                name=name,
                failure_config=tune.FailureConfig(max_failures=runtime.retries),
                callbacks=[_callback(ledger)],
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        ray.shutdown()
        shutil.rmtree(storage / name, ignore_errors=True)  # the trial folders hold all that matters


class _Ledger:
    """Which trials were handed out and what became of them."""

    def __init__(self, plan: Plan, root: Path, observer: Observer, progress: bool) -> None:
        self.plan, self.root, self.observer, self.progress = plan, root, observer, progress
        self.results = finished(root, plan)
        self.running: dict[str, Trial] = {}
        self.began: dict[str, float] = {}
        self.start = time.monotonic()
        self.ran = 0

    def unfinished(self) -> list[Trial]:
        """Trials that may run now. Those that a selection made known may have finished in an earlier run; a grid
        point that is chosen for the first time may be one whose weights were dropped long ago."""
        self.results = finished(self.root, self.plan, self.results, self.running)
        waiting = self.plan.known(self.results)
        return [t for t in waiting if t.key not in self.results and t.key not in self.running]

    def next(self) -> Trial | None:
        todo = self.unfinished()
        if not todo:
            return None
        self.running[todo[0].key] = todo[0]
        return todo[0]

    def begin(self, key: str) -> None:
        if key not in self.began:
            self.observer.started(self.running[key])
        self.began[key] = time.monotonic()

    def epoch(self, key: str, metrics: Mapping[str, float]) -> None:
        self.observer.epoch(self.running[key], metrics)

    def end(self, key: str, result: Mapping[str, Any] | None) -> None:
        if key not in self.began:  # its worker never came up
            self.begin(key)
        trial = self.running.pop(key)
        self.ran += 1
        self.results[key] = result
        self.observer.ended(trial, result)
        if self.progress:
            print(self._line(trial, result), flush=True)

    def _line(self, trial: Trial, result: Mapping[str, Any] | None) -> str:
        done, total = len(self.results), self.plan.total
        elapsed = time.monotonic() - self.start
        left = elapsed / self.ran * (total - done)
        outcome = f"selection {result['selection']:.4f}" if result else f"FAILED, see {trial.key}/error.txt"
        took = time.monotonic() - self.began.get(trial.key, self.start)
        return f"[{done}/{total}] {trial.label}: {outcome}, {took:.0f} s, about {left / 60:.0f} min left"


def _searcher(ledger: _Ledger) -> Any:
    from ray.tune.search import Searcher

    class PlanSearcher(Searcher):
        """Suggests the next runnable trial; None while all that is left waits for a selection."""

        def __init__(self) -> None:
            super().__init__(metric="selection", mode="max")

        def suggest(self, trial_id: str) -> Any:
            trial = ledger.next()
            if trial is not None:
                return {"key": trial.key, "settings": dict(trial.settings)}
            return None if ledger.running else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            pass  # the callback keeps the ledger; it knows the key

    return PlanSearcher()


def _callback(ledger: _Ledger) -> Any:
    from ray import tune

    class LedgerCallback(tune.Callback):
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ledger.begin(trial.config["key"])

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if "epoch_metrics" in result:
                ledger.epoch(trial.config["key"], result["epoch_metrics"])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ledger.end(trial.config["key"], trial.last_result.get("trial_result"))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            # Called for the last failure only; retries go through on_trial_recover.
            ledger.end(trial.config["key"], None)

    return LedgerCallback()


def _trainable(config: dict[str, Any], runner: str, root: str, context: Mapping[str, Any]) -> None:
    """One trial, in a worker process that later trials reuse."""
    from ray import tune

    os.chdir(context["folder"])
    if context["folder"] not in sys.path:
        sys.path.insert(0, context["folder"])
    directory = Path(root) / config["key"]

    def report(metrics: dict[str, float]) -> None:
        tune.report({"epoch_metrics": metrics, "selection": metrics["selection"]})

    try:
        result = _function(runner)(config["settings"], directory, context, report)
    except Exception:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise
    tune.report({"trial_result": result, "selection": result["selection"]})


def _connect(runtime: Runtime) -> None:
    """Join the cluster that is named, or start one of our own on loopback."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime.ray_address:
        try:
            ray.init(address=runtime.ray_address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _unreachable(runtime.ray_address, error) from None
        return
    # "local": not what a `ray start` on this machine left in Ray's folder, running or not.
    ray.init(address="local", include_dashboard=False, num_cpus=_parallel(runtime, 0.0) * runtime.threads, **quiet)


def _knock(address: str | None) -> None:
    """Refuse a host:port where nobody listens; Ray itself retries for minutes, with warnings of its own."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address or "")
    if address and found is not None:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:  # OverflowError: a port above 65535
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ClusterError:
    reason = " ".join(str(error).split())[:160]
    return ClusterError(
        f"no Ray cluster at {address!r} ({reason}); start one with `ray start --head`, set RAY_AUTH_MODE=token where "
        "it wants a token, or unset RAY_ADDRESS and runtime.ray_address to use this machine alone"
    )


def _parallel(runtime: Runtime, share: float) -> int:
    """Trials side by side on Ray of our own: threads never exceed cores, shares of GPUs never exceed GPUs."""
    import ray

    if ray.is_initialized():
        resources = ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0.0)
    else:
        cores, gpus = len(os.sched_getaffinity(0)), 0.0
    slots = max(1, cores // runtime.threads)
    if share and gpus:
        slots = min(slots, int(gpus / share + 1e-6))
    return min(slots, runtime.workers) if runtime.workers else slots


def _gpu_share(runtime: Runtime) -> float:
    """Share of a GPU that each trial gets: as asked, or as many trials on one as its memory holds."""
    import ray

    if runtime.gpus_per_trial is not None:
        return runtime.gpus_per_trial
    if runtime.device == "cpu" or not ray.cluster_resources().get("GPU"):
        return 0.0
    gib = ray.get(ray.remote(num_cpus=0, num_gpus=0.01)(_gpu_gib).remote())
    return share_of_gpu(gib, runtime.gpu_memory)


def _gpu_gib() -> float:
    """Memory of the GPU that this task was given, in GiB; of the first one asked, where a cluster has several kinds."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory / 2**30)


def share_of_gpu(gib: float, each: float) -> float:
    """The share that lets as many trials of `each` GiB onto a GPU of `gib` as fit; at least one.

    Rounded down to the four decimals that Ray counts in, so that the shares never exceed the whole.

    >>> share_of_gpu(80.0, 12.0), share_of_gpu(24.0, 8.0), share_of_gpu(8.0, 12.0)
    (0.1666, 0.3333, 1.0)
    """
    fit = max(1, int(gib // each))
    return int(10_000 / fit) / 10_000


def _check_storage(root: Path) -> None:
    """Every node must see the folder that checkpoints go to; find out before training, not after."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe = root / ".shared-storage-probe"
    probe.write_text("probe", encoding="utf-8")
    task = ray.remote(num_cpus=0)(_sees)
    try:
        for node in nodes:
            pinned = task.options(
                scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], False)
            )
            if not ray.get(pinned.remote(str(probe))):
                raise ClusterError(
                    f"node {node['NodeManagerAddress']} does not see {root}; "
                    "put the project on a disk that all nodes share"
                )
    finally:
        probe.unlink(missing_ok=True)


def _sees(path: str) -> bool:
    return Path(path).is_file()
