"""A job's MLflow database in the project's: runs with all that hangs on them, and models."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.running.merge import left_behind, merge_runs
from pipeline.running.store import artifacts_of, database_uri

EXPERIMENT = "early-exit"


class Store:
    """An MLflow database with its artifacts beside it."""

    def __init__(self, folder: Path, empty: Path) -> None:
        from mlflow import MlflowClient

        folder.mkdir()
        self.path = folder / "mlflow.db"
        shutil.copy(empty, self.path)
        self.client = MlflowClient(database_uri(self.path))
        self.experiment = self.client.create_experiment(EXPERIMENT, artifacts_of(self.path).as_uri())

    def run(self, text: str) -> Any:
        """A run with a metric, a parameter, a tag, a data set and an artifact."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        made = self.client.create_run(self.experiment, tags={"key": text, "folder": "theirs"})
        self.client.log_metric(made.info.run_id, "score", 0.5, step=3)
        self.client.log_param(made.info.run_id, "rate", "0.1")
        data = Dataset("sst2", "digest", "local", "{}")
        self.client.log_inputs(made.info.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        self.client.log_text(made.info.run_id, text, "model/weights.txt")
        self.client.set_terminated(made.info.run_id)
        return self.client.get_run(made.info.run_id)

    def register(self, run: Any) -> None:
        """A version of the model `m`, with a tag and the alias `best`."""
        if not self.client.search_registered_models():
            self.client.create_registered_model("m", description=run.data.tags["key"])
        version = self.client.create_model_version("m", f"{run.info.artifact_uri}/model", run.info.run_id)
        self.client.set_model_version_tag("m", version.version, "of", run.data.tags["key"])
        self.client.set_registered_model_alias("m", "best", version.version)


@pytest.fixture
def stores(tmp_path: Path, mlflow_store: Path) -> tuple[Store, Store]:
    """The project's and the job's."""
    return Store(tmp_path / "home", mlflow_store), Store(tmp_path / "job", mlflow_store)


def merged(home: Store, job: Store) -> int:
    return merge_runs(job.path, home.path, EXPERIMENT, "folder", "ours")


def test_nothing_of_a_run_is_lost(stores: tuple[Store, Store], tmp_path: Path) -> None:
    home, job = stores
    home.run("own")
    run = job.run("one")
    model = job.client.create_logged_model(
        job.experiment, name="net", source_run_id=run.info.run_id, tags={"a": "b"}, params={"layers": "12"}
    )
    for _ in range(2):  # brought twice, it is there once
        assert merged(home, job) == 1
        there = home.client.get_run(run.info.run_id)
        assert (there.data.metrics, there.data.params) == (run.data.metrics, run.data.params)
        assert there.data.tags == {**run.data.tags, "folder": "ours"}
        assert there.inputs.to_dictionary() == run.inputs.to_dictionary()
        assert len(home.client.search_runs([home.experiment])) == 2
        found = home.client.get_logged_model(model.model_id)
        assert (found.name, found.tags, found.params) == ("net", model.tags, {"layers": "12"})
        assert found.artifact_location.startswith(artifacts_of(home.path).as_uri())
    shutil.rmtree(job.path.parent)
    (artifact,) = home.client.list_artifacts(run.info.run_id, "model")
    assert Path(home.client.download_artifacts(run.info.run_id, artifact.path, str(tmp_path))).read_text() == "one"


def test_a_driver_writes_as_runs_come_home(stores: tuple[Store, Store]) -> None:
    home, job = stores
    job.run("one")
    ended = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(home.path, timeout=60)) as database:
            while not ended.wait(0.002):
                with database:
                    database.execute("UPDATE experiments SET last_update_time = random()")

    driver = threading.Thread(target=write)
    driver.start()
    try:
        for _ in range(15):
            assert merged(home, job) == 1
    finally:
        ended.set()
        driver.join()


def test_versions_of_a_model_get_the_next_numbers(stores: tuple[Store, Store]) -> None:
    home, job = stores
    home.register(home.run("own"))
    for text in ("one", "two"):
        job.register(job.run(text))
    for _ in range(2):
        merged(home, job)
        versions = {int(v.version): v for v in home.client.search_model_versions("name = 'm'")}
        assert {number: v.tags["of"] for number, v in versions.items()} == {1: "own", 2: "one", 3: "two"}
        assert all(v.source.startswith(artifacts_of(home.path).as_uri()) for v in versions.values())
        assert int(home.client.get_model_version_by_alias("m", "best").version) == 3
        assert home.client.get_registered_model("m").description == "own"


def test_what_is_not_brought_is_named(stores: tuple[Store, Store]) -> None:
    _, job = stores
    job.register(job.run("one"))
    assert left_behind(job.path) == []
    with closing(sqlite3.connect(job.path)) as database, database:
        database.execute("INSERT INTO trace_tags (key, value, request_id) VALUES ('a', 'b', 'c')")
    assert left_behind(job.path) == ["trace_tags"]
