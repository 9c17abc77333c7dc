"""Submit the pipeline, or stages of it, to a running Ray cluster: python -m ray_jobs.submit --help."""

import asyncio
import logging
import os
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from pipeline.errors import ClusterError, ParamsError, exit_with_one_line, redacted, unknown
from pipeline.identity.versions import COMMIT_VARIABLE, git_commit
from pipeline.params import Params, load_params
from pipeline.running.address import FORWARDED, VARIABLE
from pipeline.running.storage import storage_of
from pipeline.running.store import database_uri
from pipeline.storage import read_yaml
from ray_jobs.entry import OUTPUTS, WORK
from ray_jobs.results import RECORD, come_home

ADDRESS = "http://127.0.0.1:8265"
AGENT_SECONDS = 120.0
"""Seconds to wait for the cluster's job agent, which refuses jobs for a while after the start."""
STOP_SECONDS = 60
"""Time that a job's stages have after `ray job stop` to end their runs and keep what they have; Ray's is 3 seconds."""
EXCLUDES = [".git", ".venv", ".github", "tests", "benchmarks", "docs", "/dvc.lock"]
"""Files that are not sent, beside those in .gitignore. dvc.lock describes outputs of this machine, not of the job."""


class Job:
    """A submitted job.

    Args:
        client: Ray's JobSubmissionClient.
        id: the cluster's id of the job.
        address: the cluster's address, for messages.
    """

    def __init__(self, client: Any, id: str, address: str) -> None:
        self.client, self.id, self.address = client, id, address

    def follow(self) -> int:
        """Print the job's output as it arrives and return its exit code; 1 for a job that never ran.

        Raises:
            ClusterError: the connection was lost; the job may still be running.
        """
        from aiohttp import ClientError

        try:
            asyncio.run(self._print_log())
            while not (info := self.client.get_job_info(self.id)).status.is_terminal():
                time.sleep(1)
        except (OSError, RuntimeError, ClientError) as error:
            raise ClusterError(f"lost job {self.id} ({_first_line(error)}); {self._again()}") from None
        except KeyboardInterrupt:
            raise ClusterError(f"job {self.id} continues; {self._again()}, or end it with `ray job stop`") from None
        if info.status == "SUCCEEDED":
            return 0
        reason = (info.message or "no message").splitlines()[0]  # further lines repeat the end of the log
        click.echo(f"job {self.id} {info.status}: {reason}", err=True)
        code = info.driver_exit_code
        return code if code is not None and 0 < code < 256 else 1

    async def _print_log(self) -> None:
        async for lines in self.client.tail_job_logs(self.id):
            click.echo(lines, nl=False)

    def _again(self) -> str:
        return f"follow it with `ray job logs {self.id} --address {self.address} --follow`"


def connect(address: str) -> Any:
    """A client of the cluster's job server.

    Raises:
        ClusterError: not a dashboard's address, no answer, or no Ray cluster.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"--address {address!r}: not a dashboard's address; give one such as {ADDRESS}")
    remedy = "start a cluster with `ray start --head`, or give the dashboard's address with --address"
    try:
        # Ray's client has no timeout and would wait for minutes on an address that drops packets.
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 10).close()
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Ray cluster at {address} ({_first_line(error)}); {remedy}") from None
    # Ray reads this variable, else RAY_ADDRESS, before the argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        raise ClusterError(f"no usable Ray cluster at {address} ({_first_line(error)}); {remedy}") from None


def submit(client: Any, address: str, project: Path, home: Path | str, stages: Sequence[str], **options: Any) -> Job:
    """Send the project's code to the cluster and start the entry point.

    Args:
        home: the job's folder, on a disk that the cluster's nodes share; its name, where they share a storage.
        options: `profile`, `python`, `gpus` of the command line.

    Raises:
        ClusterError: the cluster refused the job, for example more than 100 MiB of code.
    """
    command = [options.get("python", "python"), "-m", "ray_jobs.entry", str(home), *stages]
    if options.get("profile"):
        command += ["--profile", options["profile"]]
    request = {
        "entrypoint": shlex.join(command),
        "runtime_env": {"working_dir": str(project), "excludes": EXCLUDES, "env_vars": job_environment(os.environ)},
        "entrypoint_num_gpus": options.get("gpus") or None,
    }
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return Job(client, str(client.submit_job(**request)), address)
        except (OSError, ValueError, RuntimeError) as error:
            if "No available agent" in str(error) and time.monotonic() < deadline:
                time.sleep(2)
                continue
            hint = "; put large files in .gitignore" if "exceeds the maximum size" in str(error) else ""
            reason = " ".join(str(error).split())[:300]
            raise ClusterError(
                f"{address} refused the job ({reason}){hint}; run `ray status` there for details"
            ) from None


def job_environment(here: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of a job: the commit, its time to end, and addresses that are valid on the cluster too.

    Raises:
        ParamsError: an address holds a password, which Ray's dashboard, logs and job table would show.
    """
    travels = {COMMIT_VARIABLE: git_commit(), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    if here.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://")):  # a local database file is not sent
        travels["MLFLOW_TRACKING_URI"] = here["MLFLOW_TRACKING_URI"]
    travels |= {name: here[name] for name in (VARIABLE, *FORWARDED) if here.get(name)}  # no keys: nodes have theirs
    if here.get("HUB_MIRROR"):
        travels["HUB_MIRROR"] = str(Path(here["HUB_MIRROR"]).absolute())
    for name, value in travels.items():
        if redacted(value) != value:
            raise ParamsError(
                f"{name}: {redacted(value)} holds a password, which the cluster's dashboard would show; take it out, "
                "and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the cluster's nodes start"
            )
    return travels


def check(project: Path, stages: Sequence[str], profile: str | None) -> Params:
    """Check stages, profile and settings before the submission; return the settings.

    Raises:
        ParamsError: an unknown stage or profile, or impossible settings.
    """
    try:
        graph_stages = read_yaml(project / "dvc.yaml")["stages"]
    except FileNotFoundError:
        raise ParamsError(f"{project}: holds no dvc.yaml; run this in the project's folder") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ParamsError(f"{project / 'dvc.yaml'}: names no stages ({error}); check it out again") from None
    for stage in stages:
        if stage.partition("@")[0] not in graph_stages:
            raise unknown("stage", stage, graph_stages, key="--stages")
    profiles = {path.stem: path for path in (project / "profiles").glob("*.yaml")}
    if profile is not None and profile not in profiles:
        raise unknown("profile", profile, profiles, key="--profile")
    return load_params(profiles[profile] if profile else project / "params.yaml")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@click.command()
@click.option("--address", default=ADDRESS, envvar="RAY_API_SERVER_ADDRESS", show_default=True, help="Ray's dashboard.")
@click.option(
    "--stages", default="", help="Stages to run, separated by commas, with those that they need; default: all."
)
@click.option("--profile", help="Run profiles/NAME.yaml in place of params.yaml.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("jobs"),
    show_default=True,
    help="Folder for the results of jobs, at the same path on every node and here; unused with runtime.storage.",
)
@click.option("--name", help="The job's folder in --results; an existing one is continued. Default: time and commit.")
@click.option(
    "--python", default="python", show_default=True, help="Python of the cluster with this project's packages."
)
@click.option(
    "--gpus", type=float, default=0.0, help="GPUs for the job's own process, in which trace, latency and attack run."
)
def cli(
    address: str, stages: str, profile: str | None, results: Path, name: str | None, python: str, gpus: float
) -> None:
    """Run `dvc repro` as a job on a running Ray cluster, print its log and exit with its exit code."""
    logging.disable(logging.WARNING)  # Ray's client logs every packed file
    project, stage_names = Path.cwd(), [stage.strip() for stage in stages.split(",") if stage.strip()]
    params = check(project, stage_names, profile)
    storage = storage_of(params.runtime)
    commit = git_commit()
    name = name or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{commit[:8]}"
    home = results.absolute() / name
    client = connect(address)
    place = name if storage.travels else home
    job = submit(client, address, project, place, stage_names, profile=profile, python=python, gpus=gpus)
    click.echo(f"job {job.id}: commit {commit}, results in {storage.name if storage.travels else home}")
    code = job.follow()
    if storage.travels:
        come_home(storage, name, params, code)
        raise SystemExit(code)
    if code:
        click.echo(f"error: the job ended with exit code {code}; its files are in {home / WORK}", err=True)
    elif (home / RECORD).is_file():
        click.echo(f"Results: {home / OUTPUTS}")
        if (store := home / WORK / "mlflow.db").is_file():
            click.echo(f"Runs:    MLFLOW_TRACKING_URI={shlex.quote(database_uri(store))} make ui")
    else:
        click.echo(f"Results: {home / OUTPUTS} on the cluster, on a disk that this machine does not see")
    raise SystemExit(code)


def main() -> None:
    """Run the command line; errors of the input are one line and exit code 1."""
    with exit_with_one_line():
        cli(prog_name="python -m ray_jobs.submit")


if __name__ == "__main__":
    main()
