"""Jobs that do not depend on each other, through a pool of Ray workers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, TrialsFailedError, storage_error
from pipeline.running.ray.cluster import connect, leave_out
from pipeline.running.ray.parcel import Parcel, packed, unpacked
from pipeline.running.ray.resources import Need, Wait, gpu_share, parallel, refuse_if_never
from pipeline.running.settings import Runtime
from pipeline.running.storage import open_storage

START = 25.0
"""Seconds from the start of Ray of our own to workers that have imported what a model needs, on two cores."""


def fan_out(
    jobs: Sequence[Any],
    *,
    runner: str,
    root: Path,
    runtime: Runtime,
    done: Callable[[Any, Any], None],
    brief: bool = False,
) -> None:
    """Run jobs, one core each, in whatever order they end.

    On a cluster that was joined all of them run there. Without one, a single job, or one worker, runs in this process:
    starting Ray would take longer.

    Args:
        jobs: what the runner is called with; pickled to workers, which run in this folder, or with `runtime.storage` in
            one of their own. Then each says what it reads and writes (`Travels`).
        runner: "module:function"; it stores what it finds under `root`.
        done: called here with each job and what the runner returned.
        brief: jobs may be shorter than the start of Ray of our own, so that the first ones run in this process, until
            the time that they take shows that workers gain more than their start costs.

    Raises:
        PipelineError: as the runner raised it; the other jobs are stopped.
        ClusterError: the address does not answer, nodes do not share `root`, or no node can ever run a job.
        TrialsFailedError: a worker died with its job again and again.
    """
    storage = open_storage(runtime.storage)
    jobs, done = packed(storage, jobs), unpacked(storage, done)
    if not runtime.ray_address:
        jobs = _run_here(jobs, runner, parallel(runtime, 0.0), done, brief)
    if not jobs:
        return
    root.mkdir(parents=True, exist_ok=True)
    connect(runtime, runner)
    import ray

    try:
        others = leave_out(storage, root)
        need = Need(runtime.threads, gpu_share(runtime))
        refuse_if_never(need, runtime)
        resources = {"num_cpus": need.cpus, "num_gpus": need.gpus, "label_selector": others or None}
        if runtime.ray_address:  # others may use all of it, and jobs that wait do not say so
            Wait(need, runtime).get(ray.remote(**resources)(_nothing).remote())
        task = ray.remote(**resources, max_retries=runtime.retries)(_job)
        running = {task.remote(runner, job): job for job in jobs}
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


def _run_here(
    jobs: Sequence[Parcel], runner: str, slots: int, done: Callable[[Parcel, Any], None], brief: bool
) -> Sequence[Parcel]:
    """Run jobs in this process as long as workers would gain nothing; the others."""
    began = time.monotonic()
    for i, job in enumerate(jobs):
        left = len(jobs) - i
        alone = (time.monotonic() - began) / max(i, 1) * left
        if min(left, slots) > 1 and not (brief and (i == 0 or alone * (1 - 1 / min(left, slots)) < START)):
            return jobs[i:]
        done(job, job.run_here(runner))
    return ()


def _job(runner: str, job: Parcel) -> tuple[PipelineError | None, Any]:
    """One job, in a worker process that later jobs reuse."""
    try:
        return None, job.run(runner)
    except PipelineError as error:  # its one line, without Ray's traceback around it
        return error, None
    except OSError as error:
        if known := storage_error(error):
            return known, None
        raise


def _nothing() -> None:
    """A task that shows that there is room for a job."""
