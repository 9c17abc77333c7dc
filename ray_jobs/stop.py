"""Stop the jobs of this cluster and wait until they have ended: python -m ray_jobs.stop, before its head goes.

A head that is taken away takes its jobs with it without a word. Stopped first, a job's stages get SIGTERM: they end
their runs as KILLED and keep what they have. Ray kills what still runs after RAY_JOB_STOP_WAIT_TIME_S of the job's
environment.
"""

import time
from contextlib import suppress
from typing import Any

import click

from pipeline.errors import ClusterError, exit_with_one_line, one_line
from ray_jobs.submit import ADDRESS, connect


def stop_jobs(client: Any, seconds: float) -> list[str]:
    """Stop every job of a cluster and wait for their ends.

    Args:
        client: Ray's JobSubmissionClient.
        seconds: how long to wait.

    Returns:
        The ids of jobs that still run.

    Raises:
        ClusterError: the cluster no longer answers.
    """
    try:
        return _stop_jobs(client, seconds)
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"the cluster no longer answers ({one_line(error)}); see that its jobs have ended") from None


def _stop_jobs(client: Any, seconds: float) -> list[str]:
    running = _running(client)
    for job in running:
        with suppress(RuntimeError):  # one that was deleted meanwhile; the others are stopped all the same
            client.stop_job(job)
    deadline = time.monotonic() + seconds
    while (left := running & _running(client)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return sorted(left)


def _running(client: Any) -> set[str]:
    return {job.submission_id for job in client.list_jobs() if job.submission_id and not job.status.is_terminal()}


@click.command()
@click.option("--address", default=ADDRESS, envvar="RAY_API_SERVER_ADDRESS", show_default=True, help="Ray's dashboard.")
@click.option("--seconds", type=float, default=90.0, show_default=True, help="How long to wait for their ends.")
def cli(address: str, seconds: float) -> None:
    """Stop the jobs of a cluster and wait until they have ended; exit code 1 where one still runs."""
    with exit_with_one_line():
        left = stop_jobs(connect(address), seconds)
        click.echo(f"still running: {', '.join(left)}" if left else "no job runs")
        raise SystemExit(1 if left else 0)


if __name__ == "__main__":
    cli()
