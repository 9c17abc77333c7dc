"""The two runs that `compare` sets side by side: a folder's results, those of a git revision, or a trial."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.commands.why_stage import locked
from pipeline.commands.why_trial import flat, trial_keys
from pipeline.errors import ArtifactError, ParamsError, shown
from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE, Workspace
from pipeline.results import Evaluated, Latency, Manifest, Selected, TraceIndex, TrialRecord, Trials

FETCHED = ("evaluate", "selected", "finetune", "traces", "latency", "settings")
"""Folders of outputs/ that a comparison reads."""


@dataclass(frozen=True)
class Run:
    """The results of one run of the graph.

    Attributes:
        name: as the user gave it.
        workspace: where they lie.
        trials: the workspace whose cache has the trials.
        remedy: end of a message about a result that is missing.
    """

    name: str
    workspace: Workspace
    trials: Workspace
    remedy: str

    @cached_property
    def evaluated(self) -> dict[str, Evaluated]:
        """What evaluate found, by task.

        Raises:
            ArtifactError: nothing, or a file that cannot be read.
        """
        files = sorted(self.workspace.evaluated("*").parent.glob("*.json"))
        if not files:
            raise ArtifactError(f"{self.name}: no results of evaluate; {self.remedy}")
        return {path.stem: read_with_points(Evaluated, path, self.remedy) for path in files}

    @cached_property
    def records(self) -> dict[str, TrialRecord]:
        """Every trial of the plan, by its key."""
        return {record.key: record for record in Trials.read(self.workspace.trials_table, self.remedy).trials}

    def selected(self, task: str) -> Selected:
        return Selected.read(self.workspace.selected(task), self.remedy)

    def traces(self, task: str) -> TraceIndex | None:
        """The index of a task's traces; None where they are not there."""
        path = self.workspace.trace_index(task)
        return TraceIndex.read(path, self.remedy) if path.is_file() else None

    def manifest(self, task: str) -> Manifest | None:
        path = self.workspace.manifest(task)
        return Manifest.read(path, self.remedy) if path.is_file() else None

    def latency(self, task: str) -> Latency | None:
        path = self.workspace.latency(task)
        return read_with_points(Latency, path, self.remedy) if path.is_file() else None

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What each stage hung on, by stage, or stage@task, and by dotted name."""
        out = {}
        for path in sorted(self.workspace.settings.rglob("*.json")):
            place = path.relative_to(self.workspace.settings).with_suffix("")
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise ArtifactError(f"{path}: no readable JSON; {self.remedy}") from None
            out["@".join(place.parts)] = flat(values) if isinstance(values, Mapping) else {}
        return out

    @cached_property
    def code(self) -> dict[str, dict[str, str]]:
        """Hashes of the code files that each stage read, by stage, as dvc.lock has them; empty without one."""
        out = {}
        for stage, entry in locked(self.workspace).items():
            deps = entry.get("deps") if isinstance(entry.get("deps"), list) else []
            files = {str(dep.get("path")): str(dep.get("md5")) for dep in deps if isinstance(dep, dict)}
            out[stage] = {path: md5 for path, md5 in files.items() if path.endswith(".py")}
        return out


@contextmanager
def opened(names: tuple[str, str]) -> Iterator[tuple[Run | str, Run | str]]:
    """Two runs; or the keys of two trials.

    Raises:
        ParamsError: a name is neither, or names a run and the other a trial.
        ArtifactError: DVC does not have the results of a revision.
    """
    with ExitStack() as stack:
        first, second = _opened(names[0], stack), _opened(names[1], stack)
        if isinstance(first, str) != isinstance(second, str):
            trial, run = names if isinstance(first, str) else names[::-1]
            raise ParamsError(f"compare: {shown(trial)} is a trial and {shown(run)} a whole run; give two of one kind")
        yield first, second


def _opened(name: str, stack: ExitStack) -> Run | str:
    folder = Path(name)
    if (folder / "outputs").is_dir():
        return _of_folder(name, folder)
    if folder.name == "outputs" and folder.is_dir():
        return _of_folder(name, folder.parent)
    if (folder / "evaluate").is_dir():  # outputs under another name
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (root / "outputs").symlink_to(folder.resolve())
        return _of_folder(name, root)
    if (commit := _commit(name)) is not None:
        return _of_commit(name, commit, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    return _trial(name)


def _of_folder(name: str, root: Path) -> Run:
    workspace = Workspace(root)
    return Run("this folder" if name == "." else name, workspace, workspace, "run `dvc repro` or `dvc pull` there")


def _commit(name: str) -> str | None:
    """The commit of a git revision, or of an experiment of DVC's; None where git knows none."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is None and name:
        found = _git("for-each-ref", "--count=1", "--format=%(objectname)", f"refs/exps/**/{name}")
    return found or None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=HERE.root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return done.stdout.strip()


def _of_commit(name: str, commit: str, root: Path) -> Run:
    """The results of a commit, as DVC has them in its cache or a remote."""
    from dvc.api import DVCFileSystem

    remedy = f"check {name} out, run `dvc repro` and commit dvc.lock, or `dvc fetch` them"
    try:
        there = DVCFileSystem(".", rev=commit)
        for place in (*(f"outputs/{folder}" for folder in FETCHED), "dvc.lock"):
            if there.exists(place):
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                there.get(place, str(root / place), recursive=there.isdir(place))
        for task in (path.stem for path in (root / "outputs/evaluate").glob("*.json")):
            manifest = f"data/{task}/manifest.json"
            if there.exists(manifest):
                (root / manifest).parent.mkdir(parents=True, exist_ok=True)
                there.get_file(manifest, str(root / manifest))
    except Exception as error:  # DVC's errors have no base that it documents, and their cause may be a storage's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(f"compare: DVC does not have the results of {shown(name)} ({reason}); {remedy}") from None
    return Run(f"{name} ({commit[:7]})" if not commit.startswith(name) else name, Workspace(root), HERE, remedy)


def _trial(name: str) -> str:
    """The key of a trial that a name means: its key, the beginning of it, or its run in MLflow."""
    keys = trial_keys(HERE)
    matches = [key for key in keys if len(name) >= 4 and key.startswith(name)]
    if not matches:
        try:
            trials = Trials.read(HERE.trials_table, "").trials
        except ArtifactError:
            trials = ()
        matches = [record.key for record in trials if record.mlflow_run_id == name and record.key in keys]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ParamsError(f"compare: {len(matches)} trials begin with {shown(name)}; give more of the key")
    raise ParamsError(
        f"compare: {shown(name)} is no folder with results, no revision or experiment, no trial's key or MLflow run; "
        f"see `dvc exp list`, or {HERE.trials} ({len(keys)} trials)"
    )
