"""MLflow's pages on this project's runs, with the links to its saved views."""

import os
from urllib.parse import urlsplit

import click

from pipeline.errors import TrackingError
from pipeline.running.mlflow.client import EXPERIMENT
from pipeline.running.mlflow.views import ROWS, TRIALS, link
from pipeline.running.store import DATABASES, address, database_of, experiment_of, shown, with_driver

VIEWS = (("operating points", ROWS), ("trials", TRIALS))


def serve_ui(port: int) -> None:
    """Print the links and become MLflow's server.

    Raises:
        TrackingError: the runs are on a server already.
    """
    uri = address(os.environ.get("MLFLOW_TRACKING_URI"))
    if urlsplit(uri).scheme.partition("+")[0] not in DATABASES:
        raise TrackingError(f"MLFLOW_TRACKING_URI {shown(uri)!r} is a server, which has its own pages; open it")
    for line in links(uri, f"http://127.0.0.1:{port}"):
        click.echo(line)
    # The store's address may hold a password, so it is no argument, which other users of the machine see.
    settings = {"MLFLOW_BACKEND_STORE_URI": with_driver(uri), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execvpe(command[0], command, {**os.environ, **settings, "MLFLOW_DISABLE_TELEMETRY": "true"})


def links(uri: str, server: str) -> list[str]:
    """The server's address, and the saved views of a local database that has runs."""
    database = database_of(uri)
    experiment = None if database is None else experiment_of(database, EXPERIMENT)
    views = [] if experiment is None else [f"  {name}: {server}/{link(experiment, view)}" for name, view in VIEWS]
    return [f"{server} in half a minute", *views]
