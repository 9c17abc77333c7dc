"""What a submitted job runs on the cluster: python -m ray_jobs.entry HOME [--profile NAME] [STAGES].

Ray names a job's own folder by its content and hands it to the next identical submission, so nothing may be written
there: the code is copied to HOME/work, DVC runs there, and HOME/outputs appears whole or not at all.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from filelock import FileLock, Timeout

from pipeline.errors import ClusterError, PipelineError
from pipeline.identity.versions import git_commit
from pipeline.storage import write_json, write_text

WORK = "work"
OUTPUTS = "outputs"
RECORD = "job.json"
SOURCE = Path(__file__).resolve().parent.parent
"""The code as it came to the cluster: a job's own folder, or the project in an image."""
NOT_CODE = {".git", ".venv", ".locks", "data", "runs", OUTPUTS, "jobs", "dvc.lock", "mlflow.db", "mlartifacts"}
"""What runs leave behind, should the source hold it (an image made of a used checkout): the job keeps its own."""


def run(source: Path, home: Path, stages: Sequence[str], profile: str | None) -> int:
    """Run `dvc repro` on a copy of the code and publish what it left.

    Args:
        source: the code as submitted.
        home: the job's folder on a disk that every node sees; one that exists is gone on with.
        stages: what to give to `dvc repro`; none means the whole graph.
        profile: the profile that replaces params.yaml, or None.

    Returns:
        DVC's exit code. `home` then holds job.json and, when it is 0, outputs.

    Raises:
        ClusterError: the folder cannot be written, or another job uses it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock", timeout=0):
            # What lies here belongs to an earlier job of this name and must not pass for this one's.
            (home / RECORD).unlink(missing_ok=True)
            # DVC lays out from its cache what the stages of this job need or make, and runs none of it again.
            for stale in (home / OUTPUTS, home / WORK / OUTPUTS):
                shutil.rmtree(stale, ignore_errors=True)
            work = lay_out(source, home / WORK, profile)
            code = _repro(work, stages)
            if code == 0:
                publish(work / OUTPUTS, home / OUTPUTS)
            record = {"schema": 1, "commit": git_commit(), "stages": list(stages), "profile": profile}
            write_json(home / RECORD, record | {"exit_code": code})
            return code
    except Timeout:
        raise ClusterError(f"another job runs in {home}; wait for it, or submit under another --name") from None
    except OSError as error:
        reason = f"{error.strerror or str(error)[:200]}: {error.filename or home}"
        raise ClusterError(f"{home} cannot be used ({reason}); give --results on a disk that nodes write") from None


def lay_out(source: Path, work: Path, profile: str | None) -> Path:
    """Copy the code to a working folder and set DVC up for it; data, trials and DVC's state already there are kept."""
    work.mkdir(exist_ok=True)
    for entry in source.iterdir():
        target = work / entry.name
        if entry.name in NOT_CODE:
            continue
        if entry.is_dir():
            if entry.name != ".dvc":  # it also holds the cache
                shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(entry, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(entry, target)
    if profile is not None:
        shutil.copyfile(work / "profiles" / f"{profile}.yaml", work / "params.yaml")
    # Local, never committed: it switches DVC's experiments off.
    write_text(work / ".dvc" / "config.local", "[core]\n    no_scm = true\n")
    return work


def publish(fresh: Path, home: Path) -> None:
    """Put a folder of results in place with one rename."""
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if fresh.is_dir():
        shutil.copytree(fresh, partial)
        os.replace(partial, home)


def _repro(work: Path, stages: Sequence[str]) -> int:
    # Stages call `python`; it must be this one, also where the cluster was started by path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *stages], cwd=work, env={**os.environ, "PATH": path}, check=False
    ).returncode


@click.command()
@click.argument("home", type=click.Path(path_type=Path))
@click.argument("stages", nargs=-1)
@click.option("--profile")
def entry(home: Path, stages: tuple[str, ...], profile: str | None) -> None:
    """Run stages (all of them without an argument) in HOME/work and leave results in HOME/outputs."""
    try:
        raise SystemExit(run(SOURCE, home.absolute(), stages, profile))
    except PipelineError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    entry()
