"""Runs that a job logged to a database of its own, in the project's: under the ids that its results name."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.errors import TrackingError
from pipeline.running.store import artifacts_of

TABLES = (
    *("datasets", "runs", "params", "tags", "metrics", "latest_metrics", "inputs", "input_tags"),
    *("logged_models", "logged_model_metrics", "logged_model_params", "logged_model_tags"),
)
"""MLflow's tables of runs and of the models that they logged."""
MODELS, VERSIONS = (
    ("registered_models", "registered_model_tags"),
    ("model_versions", "model_version_tags", "registered_model_aliases"),
)
"""Its tables of registered models: what is there stays, and versions get the next numbers."""
OWN = ("alembic_version", "experiments", "experiment_tags", "workspaces")
"""Tables that each database has for itself."""
PLACES = {
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns with places of artifacts."""
OF_EXPERIMENT = (
    "runs",
    "datasets",
    "logged_models",
    "logged_model_metrics",
    "logged_model_params",
    "logged_model_tags",
)
OURS = """
UPDATE job.tags SET value = :folder WHERE key = :tag;
UPDATE job.inputs SET source_id = coalesce((
    SELECT ours.dataset_uuid FROM main.datasets ours JOIN job.datasets theirs USING (experiment_id, name, digest)
    WHERE theirs.dataset_uuid = job.inputs.source_id), source_id);
DELETE FROM job.datasets WHERE (experiment_id, name, digest) IN (
    SELECT experiment_id, name, digest FROM main.datasets);
"""
"""The job's rows as this database has them: artifacts, experiment, the folder's identity, known data sets."""


def merge_runs(job: Path, home: Path, experiment: str, tag: str, folder: str) -> int:
    """Copy a job's runs, their artifacts and models; those that came before are brought up to date.

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
                database.execute("BEGIN IMMEDIATE")  # else a driver that writes between a read and a write ends it
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
    statements = [f"UPDATE job.{table} SET experiment_id = :experiment" for table in OF_EXPERIMENT]
    statements += [
        f"UPDATE job.{table} SET {column} = :home || substr({column}, length(:job) + 1) "
        f"WHERE substr({column}, 1, length(:job)) = :job"
        for table, columns in PLACES.items()
        for column in columns
    ]
    for statement in [*statements, *filter(str.strip, OURS.split(";"))]:
        database.execute(statement, values)
    for table in TABLES:
        _copy(database, table)
    for table in MODELS:
        _copy(database, table, or_else="IGNORE")
    for name, version, run, source in database.execute(
        "SELECT name, version, run_id, source FROM job.model_versions ORDER BY name, version"
    ).fetchall():
        (number,) = database.execute(NUMBER, (name, run, source, name)).fetchone()
        for table in VERSIONS:
            _copy(database, table, name=name, version=version, number=number)
    return int(database.execute("SELECT count(*) FROM job.runs").fetchone()[0])


NUMBER = """
SELECT coalesce(
    (SELECT version FROM main.model_versions WHERE name = ? AND run_id IS ? AND source IS ?),
    (SELECT coalesce(max(version), 0) + 1 FROM main.model_versions WHERE name = ?))
"""
"""The number of a job's version here: the one that it got before, or the next."""


def _copy(database: sqlite3.Connection, table: str, or_else: str = "REPLACE", **of: str | int) -> None:
    """Copy a job's rows; with `name`, `version` and `number` those of one version of a model, under another number."""
    columns = [row[1] for row in database.execute(f"PRAGMA job.table_info({table})")]
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(":number" if of and column == "version" else f'"{column}"' for column in columns)
    rows = "WHERE name = :name AND version = :version" if of else ""
    database.execute(f"INSERT OR {or_else} INTO main.{table} ({names}) SELECT {values} FROM job.{table} {rows}", of)


def left_behind(job: Path) -> list[str]:
    """The tables of a job's database with rows that `merge_runs` does not bring."""
    with closing(sqlite3.connect(job)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        others = sorted(tables - {*TABLES, *MODELS, *VERSIONS, *OWN})
        return [name for name in others if database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()]
