"""Jobs that do not depend on each other, through a pool of Ray workers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError, PipelineError, shown, storage_error
from pipeline.running.progress import Bar
from pipeline.running.ray.cluster import connect, leave_out
from pipeline.running.ray.kinds import whole_node
from pipeline.running.ray.parcel import Parcel, packed, unpacked
from pipeline.running.ray.pool import LostHereError, Pool
from pipeline.running.ray.resources import Need, Wait, gpu_share, parallel, refuse_if_never
from pipeline.running.settings import Runtime
from pipeline.running.shared_folder import Storage
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
    label: str = "jobs",
    brief: bool = False,
) -> None:
    """Run jobs, one core each, in whatever order they end, under a bar.

    On a cluster that was joined all of them run there. Without one, a single job, or one worker, runs in this process:
    starting Ray would take longer. A job whose machine is lost runs again elsewhere, unless ten are lost under it; one
    whose worker dies by itself, `runtime.retries` times.

    Args:
        jobs: what the runner is called with; pickled to workers, which run in this folder, or with `runtime.storage` in
            one of their own. Then each says what it reads and writes (`Travels`).
        runner: "module:function"; it stores what it finds under `root`.
        done: called here with each job and what the runner returned.
        label: what the jobs are, for the bar.
        brief: jobs may be shorter than the start of Ray of our own, so that the first ones run in this process, until
            the time that they take shows that workers gain more than their start costs.

    Raises:
        PipelineError: as the runner raised it; the other jobs are stopped.
        ClusterError: the address does not answer, no node sees `root`, or no node can ever run a job.
        TrialsFailedError: a worker, or its machine, died with its job again and again.
    """
    with Bar(label, len(jobs), show=runtime.progress) as bar:

        def counted(job: Any, answer: Any) -> None:
            done(job, answer)
            bar.step()

        _fan_out(jobs, counted, runner, root, runtime, brief)


def _fan_out(
    jobs: Sequence[Any],
    done: Callable[[Any, Any], None],
    runner: str,
    root: Path,
    runtime: Runtime,
    brief: bool,
) -> None:
    storage = open_storage(runtime.storage)
    jobs, done = packed(storage, jobs), unpacked(storage, done)
    if not runtime.ray_address:
        jobs = _run_here(jobs, runner, parallel(runtime, 0.0), done, brief)
    if not jobs:
        return
    root.mkdir(parents=True, exist_ok=True)
    for left in range(runtime.retries, -1, -1):
        try:
            _run_there(jobs, done, storage, runner, root, runtime)
            return
        except LostHereError as lost:
            if not left:
                raise ClusterError(f"{lost} {runtime.retries + 1} times; run it again, what is done is kept") from None
            print(f"{lost}; Ray is started or joined again", flush=True)
            jobs = lost.jobs


def _run_there(
    jobs: Sequence[Parcel],
    done: Callable[[Any, Any], None],
    storage: Storage,
    runner: str,
    root: Path,
    runtime: Runtime,
) -> None:
    """Run jobs on the cluster.

    Raises:
        LostHereError: the raylet of this machine died.
    """
    connect(runtime, runner)
    import ray

    try:
        left_out = leave_out(storage, root)
        need = Need(runtime.threads, gpu_share(runtime))
        refuse_if_never(need, runtime, left_out)
        wait = Wait(need, runtime, left_out)
        Pool(_job, runner, storage=storage, root=root, left_out=left_out, wait=wait).run(jobs, done)
    finally:
        ray.shutdown()


def run_alone(job: Any, kind: str, *, runner: str, root: Path, runtime: Runtime) -> Any:
    """Run one job on an idle node of a kind, all of which it reserves; what the runner returns.

    Args:
        kind: as `latency.node` names it.

    Raises:
        ClusterError: no cluster is joined, or no node of that kind is there.
    """
    if not runtime.ray_address:
        raise ClusterError(
            f"latency.node: {shown(kind)} is a kind of node of a Ray cluster, and none is joined; set RAY_ADDRESS, or "
            "take it out"
        )
    storage, answers = open_storage(runtime.storage), list[Any]()
    connect(runtime, runner)
    import ray

    try:
        left_out = leave_out(storage, root)
        need, placed = whole_node(kind, left_out)
        wait = Wait(need, runtime, left_out)
        pool = Pool(_job, runner, storage=storage, root=root, left_out=left_out, wait=wait, placed=placed)
        pool.run(packed(storage, [job]), lambda parcel, answer: answers.append(answer))
    finally:
        ray.shutdown()
    return answers[0]


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
