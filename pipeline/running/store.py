"""Where MLflow's store is: its address, the local database, and the folder of its artifacts. Imports no MLflow."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from pipeline.errors import TrackingError, one_line, storage_error
from pipeline.layout import HERE
from pipeline.lean import absent

SERVERS = ("http", "https", "databricks", "uc", "databricks-uc")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
PLACES = (("runs", "artifact_uri"), ("logged_models", "artifact_location"), ("model_versions", "storage_location"))
"""Where an SQLite store has absolute places of artifacts."""
UNSET = "unset MLFLOW_TRACKING_URI and runtime.tracking_uri for the local database"


def database_uri(path: Path) -> str:
    """The address of an SQLite file.

    SQLAlchemy takes % and ? for its own, so they are quoted. MLflow makes the folder of an address that begins with
    sqlite:/// without unquoting it, so such an address names the driver too.

    >>> database_uri(Path("/home/ann/mlflow.db")), database_uri(Path("/home/50% off?/mlflow.db"))
    ('sqlite:////home/ann/mlflow.db', 'sqlite+pysqlite:////home/50%25 off%3F/mlflow.db')
    """
    plain = str(path.absolute())
    quoted = plain.replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{plain}" if quoted == plain else f"sqlite+pysqlite:///{quoted}"


def with_driver(uri: str) -> str:
    """A database's address with the driver that the lock has; SQLAlchemy 2.1 would take another for PostgreSQL.

    >>> with_driver("postgresql://ann@host/runs"), with_driver("http://host:5000")
    ('postgresql+psycopg2://ann@host/runs', 'http://host:5000')
    """
    scheme, separator, rest = uri.partition("://")
    return f"postgresql+psycopg2://{rest}" if separator and scheme in ("postgresql", "postgres") else uri


def connection_fault(uri: str) -> str | None:
    """Why the server of a database address cannot be reached; MLflow itself tries again for minutes."""
    with absent("pandas"):
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    try:
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        return one_line(error).replace(uri, shown(uri))
    return None


def database_of(uri: str) -> Path | None:
    """The SQLite file of an address; None for a server, another database or one in memory."""
    scheme, _, rest = uri.partition(":///")
    path = unquote(rest.partition("?")[0])
    if scheme.partition("+")[0] != "sqlite" or not path or path.startswith(("file:", ":memory:")):
        return None
    return Path(path)


def address(uri: str | None) -> str:
    """Where to track: what was given, or the project's local database. A database's path is seen from the project."""
    if uri is None:
        return database_uri(HERE.tracking_store)
    database = database_of(uri)
    if database is None or database.is_absolute() or HERE.home == HERE.root:
        return uri
    return database_uri(HERE.home / database)


def artifacts_of(database: Path) -> Path:
    """The folder of the artifacts of an SQLite store: beside the database, so that both move together."""
    return database.absolute().with_name(HERE.tracked_artifacts.name)


@contextmanager
def opening(database: Path | None) -> Iterator[None]:
    """Keep drivers of other folders away while a database is opened: several at once break a fresh one for good.

    The project's own is kept by `Workspace.tracking_lock`; None, a server or another database, by nothing.

    Raises:
        StorageError, TrackingError: its folder cannot be written.
    """
    if database is None or database.absolute() == HERE.tracking_store.absolute():
        yield
        return
    lock = FileLock(database.with_name(f"{database.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        raise storage_error(error) or cannot_be_used(database_uri(database), error.strerror or str(error)) from None
    try:
        yield
    finally:
        lock.release()


def open_database(path: Path, experiment: str) -> None:
    """Open the SQLite file before MLflow does, which would try again for minutes; correct where its artifacts are.

    MLflow stores absolute paths. A project that was moved would write into its old place, and a copy into the
    original's. So the project's own database always names the folder beside it, and any other one where the folder that
    it names is gone.

    Raises:
        sqlite3.Error, OSError: it cannot be opened or written, or is no database.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute("BEGIN IMMEDIATE")  # fails where the file or its folder cannot be written
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return
        row = database.execute(
            "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?", (experiment,)
        ).fetchone()
        if row is None:
            return
        number, before = row
        now = artifacts_of(path).as_uri()
        own = path.absolute() == HERE.tracking_store.absolute()
        if before == now or not str(before).startswith("file:") or not (own or _gone(before)):
            return
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, number))
        for table, column in PLACES:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (now, len(before) + 1, len(before) + 1, f"{before}/"),
            )


def roll_back(database: Path) -> None:
    """Undo what a killed process left half written: what undoes it lies in a file beside until somebody reads.

    One that is broken stays as it is; whoever opens it says so.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=20)) as opened:
        opened.execute("SELECT count(*) FROM sqlite_master").fetchone()


def experiment_of(database: Path, name: str) -> str | None:
    """The id of an experiment in an SQLite file; None where there is none."""
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(database)) as opened:
            row = opened.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    except sqlite3.Error:  # MLflow will say what is wrong with it
        return None
    return None if row is None else str(row[0])


def _gone(location: str) -> bool:
    return not Path(url2pathname(urlsplit(location).path)).exists()


def shown(uri: str) -> str:
    """The address without user name and password.

    >>> shown("http://ann:secret@host:5000")
    'http://host:5000'
    """
    head, separator, rest = uri.partition("://")
    return f"{head}{separator}{rest.rpartition('@')[2]}" if separator else uri


def cannot_be_used(uri: str, reason: str) -> TrackingError:
    """The error for a store that does not answer, with the remedy that its kind of address has.

    Args:
        reason: what MLflow says.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in ("", "file"):
        return TrackingError(
            f"MLFLOW_TRACKING_URI {uri!r} is a folder, and MLflow keeps no runs in folders any more; give a database "
            f"(sqlite:///mlflow.db) or a server (http://host:5000), or {UNSET}"
        )
    if scheme not in (*SERVERS, *DATABASES):
        return TrackingError(
            f"MLFLOW_TRACKING_URI {shown(uri)!r} is no address; give a server (http://host:5000) or a database "
            f"(sqlite:///mlflow.db), or {UNSET}"
        )
    if "error code 401" in reason or "error code 403" in reason:
        return TrackingError(
            f"MLflow at {shown(uri)} does not know this user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    brief = " ".join(reason.split("\n")[0].replace(uri, shown(uri)).split())[:200]
    database = database_of(uri)
    if database is not None:
        return TrackingError(
            f"MLflow's database {database} cannot be used ({brief}); make it and its folder writable, free the disk, "
            "or move the file away: it holds the history of runs, and no result"
        )
    return TrackingError(
        f"MLflow at {shown(uri)} cannot be used ({brief}); start the server, mend the address, or {UNSET}"
    )
