"""An MLflow server for several folders and machines: users, host checks, PostgreSQL and S3 where they are asked for."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import click

from pipeline.commands.postgres import Postgres, postgres_in
from pipeline.errors import ParamsError, TrackingError, one_line
from pipeline.running.signals import stopped_by_signals
from pipeline.running.store import connection_fault, database_uri, shown, with_driver
from pipeline.storage import write_text

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
DATABASE = "MLFLOW_BACKEND_STORE_URI"
SECRET = "MLFLOW_FLASK_SERVER_SECRET_KEY"
SHORTEST = 12
"""Characters of a password that MLflow takes."""


@dataclass(frozen=True)
class Server:
    """What is served, and where.

    Attributes:
        folder: of its own files: users, the database and artifacts where they are not elsewhere.
        artifacts: s3://bucket/path; None: a folder.
        allowed_hosts: names by which clients may call it; None: this machine's and private addresses.
    """

    folder: Path
    host: str
    port: int
    postgres: bool
    artifacts: str | None
    allowed_hosts: str | None

    @property
    def address(self) -> str:
        """Where clients on this machine find it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "localhost") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def serve(server: Server) -> None:
    """Run the server until it is stopped; a database of our own that dies is started again.

    Raises:
        ParamsError, TrackingError: what it needs is not there; nothing was started.
    """
    _check(server)
    server.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    with stopped_by_signals("tracking-server"), _database(server) as database:
        named = os.environ.get(DATABASE) or database_uri(server.folder / "mlflow.db")
        uri = database.uri if database else with_driver(named)
        if (fault := connection_fault(uri)) is not None:
            raise TrackingError(f"{DATABASE} {shown(uri)}: cannot be used ({fault}); mend it or start the database")
        with _process(server, uri) as process:
            _wait(server, process)
            click.echo(f"MLflow: {server.address}, until it is stopped. In the shell of a run:")
            click.echo(f"  export MLFLOW_TRACKING_URI={server.address} {USER}=... {PASSWORD}=...")
            while process.poll() is None:
                time.sleep(1)
                if database is not None and not database.runs():
                    click.echo("PostgreSQL died; it is started again", err=True)
                    database.start()
            raise TrackingError(f"MLflow's server ended with {process.returncode}; its lines are above; start it again")


def _check(server: Server) -> None:
    """Refuse a server without a password, that cannot be reached, or whose places are not there."""
    name, password = os.environ.get(USER), os.environ.get(PASSWORD, "")
    if not name or len(password) < SHORTEST:
        raise ParamsError(
            f"{USER} and {PASSWORD}: set both, the password with {SHORTEST} characters or more; they are the first "
            "user's, and what runs log in with"
        )
    if server.postgres and os.environ.get(DATABASE):
        raise ParamsError(f"--postgres, and {DATABASE} names another database; leave one out")
    try:
        import flask_wtf  # noqa: F401
    except ImportError:
        raise TrackingError(
            "the server's packages are not installed; `pip install -e '.[server,postgres,s3]'`"
        ) from None
    try:
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((server.host, server.port))
    except OSError as error:
        raise TrackingError(
            f"{server.host}:{server.port}: {error.strerror}; end what listens there, or give --port and --host"
        ) from None
    if server.artifacts is not None:
        _check_bucket(server.artifacts)


def _check_bucket(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
        raise ParamsError(
            f"--artifacts {shown(uri)}: give s3://bucket/path, or leave it out; keys come from AWS_* alone"
        )
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise TrackingError(f"--artifacts {uri}: needs boto3; `pip install -e '.[s3]'`") from None
    try:
        boto3.client("s3").head_bucket(Bucket=parts.netloc)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise TrackingError(
            f"--artifacts {uri}: cannot be used ({one_line(error)}); make the bucket, or mend AWS_ENDPOINT_URL, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None


@contextmanager
def _database(server: Server) -> Iterator[Postgres | None]:
    if not server.postgres:
        yield None
        return
    database = postgres_in(server.folder / "postgres")
    database.start()
    try:
        yield database
    finally:
        database.stop()


def _environment(server: Server, uri: str) -> dict[str, str]:
    """MLflow's settings; what is secret stands here and in no command line."""
    settings = server.folder.absolute() / "auth.ini"
    write_text(
        settings,
        "[mlflow]\ndefault_permission = READ\ngrant_default_workspace_access = false\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        f"database_uri = {database_uri(server.folder / 'users.db')}\nauth_cache_ttl_seconds = 60\n".replace("%", "%%"),
    )
    key = server.folder / "secret-key"
    if SECRET not in os.environ and not key.is_file():
        key.touch(0o600)
        key.write_text(secrets.token_hex(32), encoding="utf-8")
    dropped = ("MLFLOW_TRACKING_", "MLFLOW_SERVER_", "_MLFLOW")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {
        DATABASE: uri,
        SECRET: os.environ.get(SECRET) or key.read_text(encoding="utf-8"),
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": os.environ[USER],
        "MLFLOW_AUTH_ADMIN_PASSWORD": os.environ[PASSWORD],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@contextmanager
def _process(server: Server, uri: str) -> "Iterator[subprocess.Popen[bytes]]":
    artifacts = server.artifacts or (server.folder.absolute() / "artifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", server.host]
    command += ["--port", str(server.port), "--artifacts-destination", artifacts]
    command += ["--workers", "1" if uri.startswith("sqlite") else "2"]
    if server.allowed_hosts is not None:
        command += ["--allowed-hosts", server.allowed_hosts]
    process = subprocess.Popen(command, env=_environment(server, uri), start_new_session=True, umask=0o077)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _wait(server: Server, process: "subprocess.Popen[bytes]") -> None:
    """Wait until it answers its own user."""
    login = b64encode(f"{os.environ[USER]}:{os.environ[PASSWORD]}".encode()).decode()
    asked = urllib.request.Request(
        f"{server.address}/api/2.0/mlflow/users/current", headers={"Authorization": f"Basic {login}"}
    )
    while process.poll() is None:
        try:
            with urllib.request.urlopen(asked, timeout=10):
                return
        except HTTPError as error:
            if error.code == 401:
                raise ParamsError(
                    f"{PASSWORD}: not {os.environ[USER]!r}'s, who is known here since an earlier start; give that one"
                ) from None
            time.sleep(0.5)
        except OSError:
            time.sleep(0.5)
    raise TrackingError(f"MLflow's server did not start (exit code {process.returncode}); its lines are above")
