"""The sender: makes of MLflow's runs what ours are, and waits for a store that went away."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.errors import TrackingError, redacted
from pipeline.layout import HERE
from pipeline.results import UnsentModel
from pipeline.running.mlflow.client import Client, RefusedError
from pipeline.running.runs import TrackedRun, unsent_file

KEY_TAG = "trial"
FOLDER_TAG = "folder"
PLACE_TAG = "place"
"""Where in the project's folder its driver works: "." or the temporary folder of one of DVC's experiments."""
RUN_TAG = "run"
FINAL = "best_epoch"
"""A metric that a trial's run has once the trial has ended."""


class Sender:
    """Sends what MLflow lacks of runs, in their order; a part that is sent is dropped from what is unsent.

    Args:
        experiment: id of the experiment.
        folder: identity of the project's folder.
        runs: the runs of this process by their ids, parents first.
    """

    def __init__(self, client: Client, experiment: str, folder: str, runs: Mapping[str, TrackedRun]) -> None:
        self.client, self.experiment, self.folder, self.runs = client, experiment, folder, runs
        self.fresh: set[str] = set()
        """Ids that MLflow cannot know yet."""
        self.patience = Patience()

    def send(self, run: TrackedRun) -> bool:
        """Send what MLflow lacks of a run; False where the store is away."""
        if self.patience.waits():
            return False
        was_away = self.patience.away
        try:
            try:
                self._project(run)
            except RefusedError as error:
                say(f"a part of the run {run.unsent.name!r} is lost: {error}")
                run.change(params={}, metrics=(), artifacts=(), data=())
                with suppress(RefusedError):  # one that was deleted has no end
                    self._end(run)
        except TrackingError as error:
            if not was_away:
                say(f"{error}. The work goes on; its records are kept in {HERE.unsent} until the store answers")
            self.patience.lose()
            return False
        self.patience.away = False
        if was_away:
            say("MLflow answers again")
            self.send_kept()
        return True

    def register(self, call: Callable[[], None], model: UnsentModel) -> bool:
        """Register a model; False where the store is away, and it is kept."""
        if self.patience.waits():
            return False
        try:
            call()
        except RefusedError as error:
            say(f"the model of {model.task} is not registered: {error}")
        except TrackingError as error:
            say(f"{error}. The selected model is kept in {HERE.unsent_models} until the store answers")
            self.patience.lose()
            return False
        return True

    def send_kept(self) -> None:
        """Send what this process could not send before."""
        for run in list(self.runs.values()):
            if unsent_file(run.id).exists():
                run.deliver()

    def _project(self, run: TrackedRun) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        run_id = run.run_id or self._attach(run)
        if run.retag:
            self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in run.unsent.tags.items()])
            run.retag = False
        for params in _chunks(list(run.unsent.params.items()), 100):
            self.client.log_batch(run_id, params=[Param(name, value) for name, value in params])
        run.change(params={})
        for metrics in _chunks(run.unsent.metrics, 1000):
            values = [Metric(entry.name, entry.value, entry.time, entry.step) for entry in metrics]
            self.client.log_batch(run_id, metrics=values)
            run.change(metrics=run.unsent.metrics[len(metrics) :])
        for path in run.unsent.artifacts:
            if (HERE.home / path).is_file():  # else it was replaced since
                self.client.log_artifact(run_id, str(HERE.home / path))
            run.change(artifacts=run.unsent.artifacts[1:])
        if run.unsent.data:
            inputs = [
                DatasetInput(
                    Dataset(name=data.name, digest=data.digest, source_type="local", source=data.source),
                    [InputTag("mlflow.data.context", data.context)],
                )
                for data in run.unsent.data
            ]
            self.client.log_inputs(run_id, inputs)
            run.change(data=())
        self._end(run)

    def _end(self, run: TrackedRun) -> None:
        if run.ended and run.run_id is not None:
            self.client.set_terminated(run.run_id, run.unsent.status, run.unsent.ended)

    def _attach(self, run: TrackedRun) -> str:
        """Find the run in MLflow, or make it; returns MLflow's id."""
        from mlflow.entities import RunTag

        tags, unsent = dict(run.unsent.tags), run.unsent
        if unsent.parent is not None and (parent := self._parent(unsent.parent)) is not None:
            tags["mlflow.parentRunId"] = parent
        found = None if run.id in self.fresh else self._known(run)
        if found is None:
            self.fresh.discard(run.id)  # from now on it may be there, whatever the answer
            made = self.client.create_run(self.experiment, unsent.started, tags, unsent.name)
            run.change(run_id=str(made.info.run_id))
            return str(made.info.run_id)
        run_id, data = str(found.info.run_id), found.data
        steps = {entry.step for entry in self.client.get_metric_history(run_id, "epoch")}
        steps |= {0} if FINAL in data.metrics else set()
        run.steps |= steps  # beside those that were logged here while the store was away, and are unsent
        run.change(
            run_id=run_id,
            params={name: value for name, value in unsent.params.items() if name not in data.params},
            metrics=tuple(entry for entry in unsent.metrics if entry.step not in steps),
        )
        if not run.ended:
            self.client.update_run(run_id, status="RUNNING")
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return run_id

    def _known(self, run: TrackedRun) -> Any:
        """MLflow's entry of a run; None without one."""
        tag, value = (KEY_TAG, run.unsent.key) if run.unsent.key else (RUN_TAG, run.id)
        query = f"tags.{tag} = '{value}' and tags.{FOLDER_TAG} = '{self.folder}'"
        return next(iter(self.client.search_runs([self.experiment], query, max_results=1)), None)

    def _parent(self, id: str) -> str | None:
        """MLflow's id of a parent run, which is made first."""
        if id in self.runs:
            return self.runs[id].run_id or self._attach(self.runs[id])
        found = self.client.search_runs([self.experiment], f"tags.{RUN_TAG} = '{id}'", max_results=1)
        return str(found[0].info.run_id) if found else None


class Patience:
    """When a store that went away is asked again: after half a minute, then ever more seldom.

    Attributes:
        away: whether it did not answer when it was last asked.
    """

    FIRST, LONGEST = 30.0, 600.0

    def __init__(self) -> None:
        self.away = False
        self._wait, self._next = self.FIRST, 0.0

    def waits(self) -> bool:
        """Whether it is not to be asked now."""
        return self.away and time.monotonic() < self._next

    def lose(self) -> None:
        """It did not answer."""
        self._wait = min(2 * self._wait, self.LONGEST) if self.away else self.FIRST
        self._next = time.monotonic() + self._wait
        self.away = True

    def try_now(self) -> None:
        """Ask it next time, whatever."""
        self._next = 0.0


def say(line: str) -> None:
    """Warn the user."""
    print(f"warning: {redacted(line)}", file=sys.stderr, flush=True)


def _chunks(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))
