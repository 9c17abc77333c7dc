"""MLflow, and the only import of it: runs found again by their key, metrics in batches, none left RUNNING.

Only the driver of a stage writes: eight processes that open one fresh SQLite store at once break it for good.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.errors import TrackingError, storage_error
from pipeline.layout import HERE
from pipeline.lean import absent
from pipeline.running.place import this_place
from pipeline.running.store import artifacts_of, cannot_be_used, database_of, database_uri, open_database, shown

EXPERIMENT = "early-exit"
KEY_TAG = "trial"
FOLDER_TAG = "folder"


class Tracker:
    """A connection to the tracking store.

    Args:
        uri: server or database address; None takes the local database file.

    Raises:
        TrackingError: the server does not answer or the database cannot be used; later calls raise it too.
    """

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or database_uri(HERE.tracking_store)
        # A wrong address should fail in seconds; MLflow's own default retries for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        HERE.locks.mkdir(exist_ok=True)
        with FileLock(HERE.tracking_lock):  # two drivers that create one database at once break it
            self.place = this_place()
            self.client: Any = _Client(self.uri)
            self.experiment_id = self._experiment()

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            database = database_of(self.uri)
            location = artifacts_of(database).as_uri() if database else None
            return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {EXPERIMENT!r} at {shown(self.uri)} was deleted; restore it with `MLFLOW_TRACKING_URI="
                f"{shown(self.uri)} mlflow experiments restore -x {found.experiment_id}`, or remove it for good with "
                "`mlflow gc`"
            )
        return str(found.experiment_id)

    def open(
        self,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: "TrackedRun | None" = None,
        key: str | None = None,
    ) -> "TrackedRun":
        """Start a run, or go on in the one that already has this key."""
        all_tags = {**tags, FOLDER_TAG: self.place.id, **({KEY_TAG: key} if key else {})}
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent.run_id
        found = self._run_of(key, self.place.id) if key else None
        if found is None:
            run = self.client.create_run(self.experiment_id, tags=all_tags, run_name=name)
            handle = TrackedRun(self, str(run.info.run_id))
            handle.log_params(params)
            return handle
        handle = TrackedRun(self, found)
        self.client.update_run(found, status="RUNNING")
        handle.set_tags(all_tags)
        return handle

    def find(self, key: str) -> str | None:
        """Run id of this folder's trial with this key, or of the folder's that it was copied from; None without one."""
        runs = (self._run_of(key, folder) for folder in (self.place.id, *self.place.former))
        return next((run for run in runs if run), None)

    def _run_of(self, key: str, folder: str) -> str | None:
        query = f"tags.{KEY_TAG} = '{key}' and tags.{FOLDER_TAG} = '{folder}'"
        runs = self.client.search_runs([self.experiment_id], query, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def close_abandoned(self, stage: str, instance: str) -> None:
        """End runs that a killed driver of this stage instance left RUNNING.

        A stage instance has one driver at a time in a folder (it holds a lock), so whatever still runs has none.
        """
        query = (
            f"attributes.status = 'RUNNING' and tags.stage = '{stage}' and tags.instance = '{instance}' "
            f"and tags.{FOLDER_TAG} = '{self.place.id}'"
        )
        for run in self.client.search_runs([self.experiment_id], query, max_results=1000):
            self.client.set_terminated(run.info.run_id, "KILLED")


class TrackedRun:
    """One run, by its id; no global active run."""

    def __init__(self, tracker: Tracker, run_id: str) -> None:
        self.tracker = tracker
        self.run_id = run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:6000]) for name, value in params.items()]
        if entries:
            self.tracker.client.log_batch(self.run_id, params=entries)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """One batch; NaN values are left out, since a missing metric says more than a plotted 0."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(name, float(value), now, step) for name, value in metrics.items() if value == value]
        if entries:
            self.tracker.client.log_batch(self.run_id, metrics=entries)

    def steps(self, metric: str) -> set[int]:
        """The steps at which a metric was logged."""
        return {entry.step for entry in self.tracker.client.get_metric_history(self.run_id, metric)}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.tracker.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_artifact(self, path: Path) -> None:
        self.tracker.client.log_artifact(self.run_id, str(path))

    def log_dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Record a data set as this run's input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name=name, digest=digest[:36], source_type="local", source=source)
        self.tracker.client.log_inputs(self.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def end(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED."""
        self.tracker.client.set_terminated(self.run_id, status)


class _Client:
    """An MlflowClient whose failures are TrackingErrors, without the address's user name and password."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = self._ask(_connect, uri)

    def __getattr__(self, name: str) -> Any:
        return partial(self._ask, getattr(self._client, name))

    def _ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with absent("pandas"):  # for tables as data sets, which we do not log; a quarter of the import
            from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return call(*args, **kwargs)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, ImportError) as error:  # ImportError: a driver
            raise cannot_be_used(self._uri, str(error)) from None
        except OSError as error:
            raise storage_error(error) or cannot_be_used(self._uri, str(error)) from None


def _connect(uri: str) -> Any:
    from mlflow import MlflowClient

    database = database_of(uri)
    if database is not None:
        open_database(database, EXPERIMENT)
    return MlflowClient(uri)
