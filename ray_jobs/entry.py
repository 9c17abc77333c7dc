"""The entry point of a submitted job on the cluster: python -m ray_jobs.entry HOME [--profile NAME] [STAGES].

Ray names a job's working folder by its content and reuses it for an identical submission, so nothing may be written
there. The code is copied to HOME/work, where DVC runs; HOME/outputs appears when it is complete.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from filelock import FileLock, Timeout

from pipeline.errors import ClusterError, exit_with_one_line
from pipeline.identity.versions import git_commit
from pipeline.params import load_params
from pipeline.running.shared_folder import Storage
from pipeline.running.storage import storage_of
from pipeline.storage import write_json, write_text
from ray_jobs.results import PUSHED, RECORD, REMOTE, record_of, send

WORK = "work"
OUTPUTS = "outputs"
SOURCE = Path(__file__).resolve().parent.parent
"""The submitted code: the job's working folder, or the project's folder in an image."""
NOT_CODE = {".git", ".venv", ".locks", "data", "runs", OUTPUTS, "jobs", "dvc.lock", "mlflow.db", "mlartifacts"}
"""Files of earlier runs, which are not copied where the source has them (an image of a used checkout)."""


def run(source: Path, home: Path, stages: Sequence[str], profile: str | None, storage: Storage | None = None) -> int:
    """Run `dvc repro` on a copy of the code and publish its outputs.

    Args:
        source: folder of the submitted code.
        home: the job's folder; an existing one is continued. Without a storage it lies on a disk that all nodes share.
        stages: arguments of `dvc repro`; none means the whole graph.
        profile: the profile that replaces params.yaml, or None.
        storage: where results go too, under the folder's name.

    Returns:
        DVC's exit code. `home` then holds job.json and, if the code is 0, outputs.

    Raises:
        ClusterError: the folder cannot be written, or another job uses it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock", timeout=0):
            # Results of an earlier job of this name must not pass for this one's.
            (home / RECORD).unlink(missing_ok=True)
            # DVC restores outputs from its cache without running stages again.
            for stale in (home / OUTPUTS, home / WORK / OUTPUTS):
                shutil.rmtree(stale, ignore_errors=True)
            work = lay_out(source, home / WORK, profile)
            record = {"commit": git_commit(), "stages": list(stages), "profile": profile}
            if storage is not None:
                os.chdir(work)  # paths of a storage are below the working folder
                storage.remove(record_of(home.name))
            code = _repro(work, stages)
            if storage is not None:
                send(storage, home.name, record | {"exit_code": code})
            if code == 0:
                publish(work / OUTPUTS, home / OUTPUTS)
            write_json(home / RECORD, record | {"schema": 1, "exit_code": code})
            return code
    except Timeout:
        raise ClusterError(f"another job runs in {home}; wait for it, or submit under another --name") from None
    except OSError as error:
        reason = f"{error.strerror or str(error)[:200]}: {error.filename or home}"
        raise ClusterError(
            f"{home} cannot be used ({reason}); give --results on a disk that all nodes can write"
        ) from None


def lay_out(source: Path, work: Path, profile: str | None) -> Path:
    """Copy the code to a working folder and configure DVC; existing data, trials and DVC state are kept."""
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
    # In the local configuration only, since it disables DVC's experiments.
    remote = f"['remote \"{REMOTE}\"']\n    url = ../{PUSHED}\n"  # as seen from there: a path may have any name
    write_text(work / ".dvc" / "config.local", f"[core]\n    no_scm = true\n{remote}")
    return work


def publish(fresh: Path, home: Path) -> None:
    """Copy a folder of results and publish it with one rename."""
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if fresh.is_dir():
        shutil.copytree(fresh, partial)
        os.replace(partial, home)


def _repro(work: Path, stages: Sequence[str]) -> int:
    # Stages call `python`, which must be this one, also where the cluster was started by path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *stages], cwd=work, env={**os.environ, "PATH": path}, check=False
    ).returncode


@click.command()
@click.argument("home", type=click.Path(path_type=Path))
@click.argument("stages", nargs=-1)
@click.option("--profile")
def entry(home: Path, stages: tuple[str, ...], profile: str | None) -> None:
    """Run STAGES (default: all) in HOME/work and publish results in HOME/outputs, or in the settings' storage.

    With a storage HOME lies on the node's own disk; a mere name is one below the folder for temporary files.
    """
    with exit_with_one_line():
        params = load_params(SOURCE / "profiles" / f"{profile}.yaml" if profile else SOURCE / "params.yaml")
        storage = storage_of(params.runtime)
        home = storage.workplace(Path.cwd()) / "jobs" / home if storage.travels else home.absolute()
        raise SystemExit(run(SOURCE, home, stages, profile, storage if storage.travels else None))


if __name__ == "__main__":
    entry()
