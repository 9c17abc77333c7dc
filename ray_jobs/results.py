"""The results of a job whose cluster shares no disk with the submitter: into the storage, and home from it.

`jobs/NAME/job.json` in the storage names every file of the job with its hash, and is written last.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.errors import ArtifactError, ClusterError, ParamsError, TrackingError, exit_with_one_line
from pipeline.layout import HERE
from pipeline.params import Params, load_params
from pipeline.running.local_files import write_links
from pipeline.running.shared_folder import Storage
from pipeline.running.storage import storage_of
from pipeline.running.store import roll_back
from pipeline.storage import copy_whole, link_or_copy, read_json, read_yaml, write_json

RECORD = "job.json"
SCHEMA = 2
LOCK = Path("dvc.lock")
REMOTE, PUSHED = "home", Path("jobs/pushed")
"""A remote of DVC in the job's folder, which takes what dvc.lock names."""


def record_of(name: str) -> Path:
    """The record of a job, in the storage and below the project's folder."""
    return Path("jobs") / name / RECORD


def send(storage: Storage, name: str, record: Mapping[str, Any]) -> None:
    """Store what the job made, from the working directory; of one that failed its runs only.

    Args:
        record: what the submitter shall know: "exit_code", 0 for a job that ended well, and "profile", whose results
            are the submitter's to read; those of the project's own settings go into DVC's cache.
    """
    if HERE.tracking_store.is_file():
        roll_back(HERE.tracking_store)
    tops = [HERE.tracking_store, HERE.tracked_artifacts]
    if record["exit_code"] == 0 and record["profile"]:
        tops.append(HERE.outputs)
    elif record["exit_code"] == 0:
        shutil.rmtree(PUSHED, ignore_errors=True)
        dvc("push", "--quiet", "--remote", REMOTE)
        tops += [LOCK, PUSHED]
    files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*"))) if file.is_file()]
    path = record_of(name)
    write_json(path, {"schema": SCHEMA, **record, "files": dict(storage.share({file: file for file in files}))})
    storage.publish(path)


def dvc(*arguments: str) -> str:
    """What a command of DVC prints.

    Raises:
        ClusterError: it failed.
    """
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1][:300]
        raise ClusterError(f"`dvc {' '.join(arguments)}` failed ({reason}); try it by hand")
    return done.stdout.strip()


def come_home(storage: Storage, name: str, params: Params, code: int) -> None:
    """Bring a job's results from the storage, and its runs; those of the project's own settings become the project's.

    Args:
        code: the job's exit code, as far as the cluster said it.
    """
    try:
        record = bring(storage, name)
    except ArtifactError:
        if code == 0:
            raise
        click.echo(f"error: the job ended with exit code {code} before it stored anything; submit it again", err=True)
        return
    if count := bring_runs(name, params.runtime.tracking_uri):
        click.echo(f"Runs:    {count} in this project's MLflow; make ui")
    if record["exit_code"]:
        click.echo(
            f"error: the job ended with exit code {record['exit_code']}; what is finished is kept, submit it again",
            err=True,
        )
    elif record["profile"]:
        click.echo(f"Results: {Path('jobs') / name / HERE.outputs}")
    else:
        settle(name, params)
        click.echo("Results: outputs, and dvc.lock, as if `dvc repro` had run here")


def bring(storage: Storage, name: str) -> dict[str, Any]:
    """Bring a job's files into `jobs/NAME` of the working directory; return its record.

    Raises:
        ArtifactError: the storage has none.
    """
    path = record_of(name)
    path.unlink(missing_ok=True)
    storage.fetch(path)
    record = read_json(path, SCHEMA, "submit the job again")
    files = record["files"]
    if not isinstance(files, dict) or not all(isinstance(entry, str) for pair in files.items() for entry in pair):
        raise ArtifactError(f"{storage.name}/{path}: files: names no files; submit the job again")
    storage.take({(path.parent / file).as_posix(): sha256 for file, sha256 in files.items()})
    for file in (path.parent / file for file in files if not Path(file).is_relative_to(PUSHED)):
        if file.stat().st_nlink > 1:  # of a folder as the store: MLflow, say, would edit the store's content
            copy_whole(file, file)
    return record


def settle(name: str, params: Params) -> None:
    """Make a job's results those of the project: as if `dvc repro` had run here.

    Raises:
        ClusterError: DVC cannot put them into their places.
    """
    folder = Path("jobs") / name
    pushed = folder / PUSHED  # a remote has the cache's layout
    cache = Path(dvc("cache", "dir"))
    for file in (path for path in pushed.rglob("*") if path.is_file()):
        target = cache / file.relative_to(pushed)
        if not target.exists():
            link_or_copy(file, target)
    copy_whole(folder / LOCK, LOCK)  # DVC edits it in place
    write_links(params, HERE)
    stages = read_yaml(LOCK)["stages"].values()
    outs = [str(out["path"]) for stage in stages for out in stage.get("outs", ())]
    # DVC takes no path that dvc.yaml does not name.
    dvc("checkout", "--force", "--quiet", "--", *(out for out in outs if out != HERE.local_files.as_posix()))


def bring_runs(name: str, uri: str | None) -> int:
    """Put a job's runs into the project's database; 0 where a server has them already.

    Raises:
        TrackingError: the database cannot be used.
    """
    from pipeline.running.merge import left_behind, merge_runs
    from pipeline.running.mlflow.client import EXPERIMENT
    from pipeline.running.mlflow.sending import FOLDER_TAG
    from pipeline.running.mlflow.tracker import Tracker
    from pipeline.running.store import database_of

    job = Path("jobs") / name / HERE.tracking_store
    if not job.is_file():
        return 0
    tracker = Tracker(uri)
    home = database_of(tracker.uri)
    if home is None:
        raise TrackingError(
            f"{job}: has the job's runs, and runs go into SQLite files only; name one, or give the job a server"
        )
    count = merge_runs(job, home, EXPERIMENT, FOLDER_TAG, tracker.place.id)
    if left := left_behind(job):
        click.echo(f"note: {', '.join(left)} of the job's MLflow stay in {job}", err=True)
    return count


@click.command()
@click.argument("name")
def cli(name: str) -> None:
    """Bring the results of the job NAME home from the settings' storage, whoever submitted it."""
    params = load_params()
    if params.runtime.storage is None:
        raise ParamsError("runtime.storage: none is set, from which a job's results could come; set EARLY_EXIT_STORAGE")
    come_home(storage_of(params.runtime), name, params, 0)


def main() -> None:
    """Run the command line; errors of the input are one line and exit code 1."""
    with exit_with_one_line():
        cli(prog_name="python -m ray_jobs.results")


if __name__ == "__main__":
    main()
