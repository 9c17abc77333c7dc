"""A pool of Ray workers whose jobs survive lost workers and lost machines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.errors import PipelineError, TrialsFailedError
from pipeline.running.ledger import MACHINES
from pipeline.running.ray.cluster import lacks_code, leave_out, without
from pipeline.running.ray.deaths import RayEndedError, death_of_worker, node_answers
from pipeline.running.ray.resources import Wait
from pipeline.running.shared_folder import Storage

NOWHERE: Mapping[str, Any] = MappingProxyType({})
"""No job is bound to a kind of node."""


class LostHereError(RayEndedError):
    """The raylet of this machine died, through which this process speaks with the cluster.

    Attributes:
        jobs: those that are not done.
    """

    def __init__(self, jobs: Sequence[Any]) -> None:
        super().__init__("the raylet of this machine died")
        self.jobs = jobs


@dataclass
class _Attempt:
    """A job with a worker, or waiting for one.

    Attributes:
        failures: attempts that ended while their machine lived on.
        machines: those that were lost while it ran there.
        node: id of the node that it runs on; "" as long as it waits.
    """

    job: Any
    failures: int = 0
    machines: int = 0
    node: str = ""


class Pool:
    """Jobs on a cluster.

    Each is a task with two answers: its node, when it starts, and its result. Ray itself retries nothing, since it
    counts a lost machine like a worker that died.

    Args:
        call: run in the worker with the runner and a job; returns the error that ends all, or None, and the result.
        left_out: nodes that are not used, by id, each with its name and the reason; those that turn out later join it.
        wait: what each job needs, and who is told of the waiting.
        placed: more of Ray's options, about the nodes that may run a job.
    """

    def __init__(
        self,
        call: Callable[..., tuple[PipelineError | None, Any]],
        runner: str,
        *,
        storage: Storage,
        root: Path,
        left_out: dict[str, str],
        wait: Wait,
        placed: Mapping[str, Any] = NOWHERE,
    ) -> None:
        import ray

        self.call, self.runner = call, runner
        self.storage, self.root, self.left_out, self.wait, self.placed = storage, root, left_out, wait, placed
        self.asked = {node["NodeID"] for node in ray.nodes()}
        self.running: dict[Any, _Attempt] = {}

    def run(self, jobs: Sequence[Any], done: Callable[[Any, Any], None]) -> None:
        """Run all jobs; `done` gets each with its result.

        Raises:
            PipelineError: of a job, or since no node can ever run one.
            TrialsFailedError: a worker, or its machine, died with its job again and again.
            LostHereError: the raylet of this machine died.
        """
        import ray

        for job in jobs:
            self._start(_Attempt(job))
        here = ray.get_runtime_context().get_node_id()
        while self.running:
            ready, _ = ray.wait(list(self.running), timeout=1.0)
            for task in ready:
                self._hear(task, done)
            if not ready and not node_answers(here):  # without its raylet this process would wait for ever
                raise LostHereError([attempt.job for attempt in self.running.values()])
            (self.wait.over if any(attempt.node for attempt in self.running.values()) else self.wait.goes_on)()

    def _start(self, attempt: _Attempt) -> None:
        import ray

        attempt.node, need = "", self.wait.need
        task = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, max_retries=0, num_returns="streaming")(_answers)
        selector = {**without(self.left_out), **self.placed.get("label_selector", {})}
        placed = task.options(**{**self.placed, "label_selector": selector or None})
        self.running[placed.remote(self.call, self.runner, attempt.job)] = attempt

    def _hear(self, task: Any, done: Callable[[Any, Any], None]) -> None:
        """Take one answer of a task."""
        import ray

        attempt = self.running.pop(task)
        try:
            answer = ray.get(next(task))
        except ray.exceptions.RayError as error:
            self._again(attempt, error)
            return
        if attempt.node:
            fault, result = answer
            if fault is not None:
                raise fault
            done(attempt.job, result)
            return
        if answer not in self.asked:  # it joined after the others were asked
            self._ask()
        if answer in self.left_out:
            ray.cancel(task, force=True)
            self._start(attempt)
        else:
            attempt.node = answer
            self.running[task] = attempt

    def _ask(self) -> None:
        """Find out which nodes cannot do the work."""
        import ray

        self.asked |= {node["NodeID"] for node in ray.nodes()}
        self.left_out |= leave_out(self.storage, self.root, self.left_out)

    def _again(self, attempt: _Attempt, error: Any) -> None:
        """Start a job again whose task ended without a result.

        Raises:
            TrialsFailedError: its worker died once more than it may, or one machine after another was lost under it.
            ray.exceptions.RayTaskError: the job's own error, which is a fault of the program.
        """
        import ray

        crashed = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
        if isinstance(error, ray.exceptions.RayTaskError):
            if lacks_code(error):
                self._ask()
            attempt.failures += 1
            if not self.left_out or attempt.failures > self.wait.runtime.retries + 1:
                raise error
        elif isinstance(error, crashed) and (not attempt.node or node_answers(attempt.node)):
            attempt.failures += 1
            death = death_of_worker(str(error))
            if attempt.failures > self.wait.runtime.retries:
                raise TrialsFailedError(
                    f"a worker {death}, {attempt.failures} times with one job; give it more memory, or raise "
                    "runtime.retries, then go on"
                ) from None
            print(f"a worker {death}; its job runs again", flush=True)
        else:
            attempt.machines += bool(attempt.node)
            if attempt.machines == MACHINES:  # it may be what brings them down, as where a container ends as a whole
                raise TrialsFailedError(f"{MACHINES} machines were lost under one job; give it more memory, then go on")
            print("a machine is lost; its job runs again elsewhere", flush=True)
        self._start(attempt)


def _answers(call: Callable[..., Any], runner: str, job: Any) -> Iterator[Any]:
    """One job, in a worker process that later jobs reuse: its node, then its result."""
    import ray

    yield ray.get_runtime_context().get_node_id()
    yield call(runner, job)
