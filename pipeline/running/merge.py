"""Runs that a job logged to a database of its own, in the project's: under the ids that its results name."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.errors import TrackingError
from pipeline.running.store import artifacts_of

TABLES = ("datasets", "runs", "params", "tags", "metrics", "latest_metrics", "inputs", "input_tags")
"""MLflow's tables of what the pipeline logs."""
OURS = """
UPDATE job.runs SET artifact_uri = :home || substr(artifact_uri, length(:job) + 1), experiment_id = :experiment;
UPDATE job.datasets SET experiment_id = :experiment;
UPDATE job.tags SET value = :folder WHERE key = :tag;
UPDATE job.inputs SET source_id = coalesce((
    SELECT ours.dataset_uuid FROM main.datasets ours JOIN job.datasets theirs USING (experiment_id, name, digest)
    WHERE theirs.dataset_uuid = job.inputs.source_id), source_id);
DELETE FROM job.datasets WHERE (experiment_id, name, digest) IN (
    SELECT experiment_id, name, digest FROM main.datasets);
"""
"""The job's rows as this database has them: artifacts, experiment, the folder's identity, known data sets."""


def merge_runs(job: Path, home: Path, experiment: str, tag: str, folder: str) -> int:
    """Copy a job's runs and their artifacts; those that came before are brought up to date.

    Args:
        job: the job's database, which is changed; its artifacts lie beside it.
        home: the project's, which MLflow has opened before.
        experiment: the experiment's name in both.
        tag, folder: name and value of the tag with the identity of the project's folder.

    Returns:
        The number of the job's runs.

    Raises:
        TrackingError: one of the two is none of this version's.
    """
    try:
        with closing(sqlite3.connect(home, timeout=60)) as database:
            database.execute("ATTACH DATABASE ? AS job", (str(job),))
            with database:
                count = _merge(database, home, experiment, tag, folder)
            database.execute("DETACH DATABASE job")
    except sqlite3.Error as error:
        raise TrackingError(
            f"{job}: its runs do not go into {home} ({error}); MLFLOW_TRACKING_URI=sqlite:///{job} make ui shows them"
        ) from None
    if artifacts_of(job).is_dir():
        shutil.copytree(artifacts_of(job), artifacts_of(home), dirs_exist_ok=True)
    return count


def _merge(database: sqlite3.Connection, home: Path, experiment: str, tag: str, folder: str) -> int:
    places = {
        name: database.execute(
            f"SELECT experiment_id, artifact_location FROM {name}.experiments WHERE name = ?", (experiment,)
        ).fetchone()
        for name in ("main", "job")
    }
    if None in places.values():
        raise sqlite3.Error(f"no experiment {experiment!r}")
    values = {
        "home": artifacts_of(home).as_uri(),
        "job": places["job"][1],
        "experiment": places["main"][0],
        "tag": tag,
        "folder": folder,
    }
    for statement in filter(str.strip, OURS.split(";")):
        database.execute(statement, values)
    for table in TABLES:
        columns = [row[1] for row in database.execute(f"PRAGMA job.table_info({table})")]
        names = ", ".join(f'"{column}"' for column in columns)
        database.execute(f"INSERT OR REPLACE INTO main.{table} ({names}) SELECT {names} FROM job.{table}")
    return int(database.execute("SELECT count(*) FROM job.runs").fetchone()[0])
