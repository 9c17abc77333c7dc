"""The tracking store: runs found again by their key, none left RUNNING, none lost.

Only the driver of a stage writes: eight processes that open one fresh SQLite store at once break it for good.
docs/design/tracking.md says what holds when the store, or a driver, goes away.
"""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import ArtifactError, TrackingError
from pipeline.layout import HERE, Workspace
from pipeline.results import UnsentModel, UnsentRun
from pipeline.running.mlflow.client import EXPERIMENT, RETRIES, Client
from pipeline.running.mlflow.registry import register
from pipeline.running.mlflow.sending import FOLDER_TAG, KEY_TAG, PLACE_TAG, RUN_TAG, Sender, say
from pipeline.running.mlflow.views import view_tags
from pipeline.running.place import this_place
from pipeline.running.runs import TrackedRun, new_run, unsent_file
from pipeline.running.store import address, artifacts_of, database_of, shown
from pipeline.storage import claimed


class Tracker:
    """A connection to the tracking store.

    A store that goes away in the middle never stops the work: what it lacks is kept on disk, in order, and sent when it
    answers again, at the latest by `python -m pipeline sync-runs`.

    Args:
        uri: server or database address; None takes the local database file.

    Raises:
        TrackingError: the server does not answer or the database cannot be used, now at the start.
    """

    def __init__(self, uri: str | None = None) -> None:
        self.uri = address(uri)
        # A wrong address should fail in seconds; MLflow's own default retries for minutes.
        os.environ.setdefault(RETRIES, "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        # Two lines per run, with the address as it stands in the environment, password and all.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell MLflow's makers of each call
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its failures are raised too, and ours
        HERE.tracking_lock.parent.mkdir(exist_ok=True)
        with FileLock(HERE.tracking_lock):  # two drivers that create one database at once break it
            self.place = this_place()
            self.client = Client(self.uri)
            self.experiment_id = self._experiment()
            self._save_views()
        self.runs: dict[str, TrackedRun] = {}
        """The runs of this process by their ids, parents first."""
        self.sender = Sender(self.client, self.experiment_id, self.place.id, self.runs)
        self._listed: dict[str, Any] | None = None

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            database = database_of(self.uri)
            location = artifacts_of(database).as_uri() if database else None
            try:
                return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))
            except TrackingError:  # a driver in another folder may have made it meanwhile
                found = self.client.get_experiment_by_name(EXPERIMENT)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {EXPERIMENT!r} at {shown(self.uri)} was deleted; restore it with `MLFLOW_TRACKING_URI="
                f"{shown(self.uri)} mlflow experiments restore -x {found.experiment_id}`, or remove it for good with "
                "`mlflow gc`"
            )
        return str(found.experiment_id)

    def _save_views(self) -> None:
        tags = self.client.get_experiment(self.experiment_id).tags
        for name, view in view_tags().items():
            if tags.get(name) != view:
                self.client.set_experiment_tag(self.experiment_id, name, view)

    def open(
        self,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: TrackedRun | None = None,
        key: str | None = None,
    ) -> TrackedRun:
        """Start a run, or go on in the one that already has this key."""
        id = key or uuid.uuid4().hex
        all_tags = {**tags, FOLDER_TAG: self.place.id, PLACE_TAG: HERE.place, RUN_TAG: id}
        all_tags |= {KEY_TAG: key} if key else {}
        unsent = new_run(name, id, key, parent, all_tags, params)
        kept = None if key is None else _kept(unsent_file(key))
        if kept is not None:  # of a driver whose store was away
            unsent = unsent.model_copy(update={"metrics": kept.metrics, "artifacts": kept.artifacts, "data": kept.data})
        if key is None:
            self.sender.fresh.add(id)
        run = self.runs[id] = TrackedRun(unsent, self.sender.send)
        if kept is not None:
            run.steps |= {entry.step for entry in kept.metrics}  # the trial will report them again
        run.deliver()
        return run

    def trials(self) -> Mapping[str, Any]:
        """MLflow's entry of each trial of this folder, and of those that it was copied from, by the trial's key.

        One listing, made once.

        Raises:
            TrackingError: the store is away.
        """
        if self._listed is None:
            listed: dict[str, Any] = {}
            for folder in (*reversed(self.place.former), self.place.id):
                query = f"tags.{FOLDER_TAG} = '{folder}' and tags.{KEY_TAG} != ''"
                listed |= {run.data.tags[KEY_TAG]: run for run in self._all(query)}
            self._listed = listed
        return self._listed

    def find(self, key: str) -> str | None:
        """MLflow's id of a trial's run; None without one, and where the store is away."""
        if key in self.runs:
            return self.runs[key].run_id
        with suppress(TrackingError):
            return str(self.trials()[key].info.run_id) if key in self.trials() else None
        return None

    def close_abandoned(self, stage: str, instance: str) -> None:
        """End runs that a killed driver of this stage instance left RUNNING, and send what earlier ones could not.

        A stage instance has one driver at a time in a folder (it holds a lock). So whatever still runs there has none,
        and neither has what runs in another folder of the project where nobody holds the lock.
        """
        self.sync(stage, instance)
        self.send_models()
        query = (
            f"attributes.status = 'RUNNING' and tags.stage = '{stage}' and tags.instance = '{instance}' "
            f"and tags.{FOLDER_TAG} = '{self.place.id}'"
        )
        for run in list(self._all(query)):
            if self._works(run.data.tags, stage, instance):
                continue
            if self.client.get_run(run.info.run_id).info.status == "RUNNING":  # its driver did not end it meanwhile
                self.client.set_terminated(run.info.run_id, "KILLED")

    def sync(self, stage: str = "", instance: str = "") -> tuple[int, int]:
        """Send what earlier drivers could not; runs of one that still works are left to it.

        Args:
            stage, instance: of the caller, whose own lock it holds.

        Returns:
            How many runs were sent, and how many are left.
        """
        if not any(HERE.unsent.glob("*.json")):
            return 0, 0
        with claimed(HERE.claims, "tracking"):  # two that send one run would send it twice
            return self._sync(stage, instance)

    def _sync(self, stage: str, instance: str) -> tuple[int, int]:
        kept = [found for path in HERE.unsent.glob("*.json") if (found := _kept(path)) is not None]
        sent = left = 0
        for unsent in sorted(kept, key=lambda found: found.started):
            if unsent.id in self.runs or self._works(unsent.tags, stage, instance):
                left += 1
                continue
            if unsent.status == "RUNNING":
                unsent = unsent.model_copy(update={"status": "KILLED", "ended": unsent.started})
            run = TrackedRun(unsent, self.sender.send)
            run.retag = True
            run.deliver()
            done = not unsent_file(run.id).exists()
            sent, left = sent + done, left + (not done)
        return sent, left

    def send_models(self) -> int:
        """Register the selected models that MLflow's registry lacks, in their order; returns how many are left."""
        if not _models():
            return 0
        with claimed(HERE.claims, "models"):  # two that register one model would make two versions of it
            kept = [(UnsentModel.of(folder), folder) for folder in _models()]
            for model, folder in sorted(kept, key=lambda one: one[0].made):
                if not self.sender.register(partial(register, self.client, self.experiment_id, folder, model), model):
                    break
                shutil.rmtree(folder)
        return len(_models())

    def _works(self, tags: Mapping[str, str], stage: str, instance: str) -> bool:
        """Whether another process is the driver of a run with these tags.

        Args:
            stage, instance: of the caller, whose own lock it holds.
        """
        whose, place = (tags.get("stage", ""), tags.get("instance", "")), tags.get(PLACE_TAG, ".")
        if (whose, place) == ((stage, instance), HERE.place):
            return False
        lock = Workspace(HERE.home / place).lock(*whose)
        if ".." in lock.parts or not lock.is_file():  # an experiment's temporary folder goes when it ends
            return False
        try:
            with FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True

    def close(self) -> None:
        """End the runs that were interrupted as they opened, and send what is unsent, for the last time."""
        for run in self.runs.values():
            if not run.ended:
                run.end("KILLED")
        if self.sender.patience.away:
            self.sender.patience.try_now()
            self.sender.send_kept()
        if self.sender.patience.away:
            count = sum(unsent_file(id).exists() for id in self.runs)
            say(f"{count} runs are kept in {HERE.unsent}; send them with `python -m pipeline sync-runs`")

    def _all(self, query: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _models() -> list[Path]:
    """Folders of the models that MLflow's registry lacks; one that is being written is not there yet."""
    return [folder for folder in HERE.unsent_models.glob("*") if "." not in folder.name]


def _kept(path: Path) -> UnsentRun | None:
    """What MLflow lacks of an earlier run; None where there is nothing, or nothing readable."""
    try:
        return UnsentRun.read(path, "")
    except ArtifactError:
        return None
