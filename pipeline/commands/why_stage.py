"""Why a stage will run, from DVC's status; or why it last ran, from dvc.lock in git."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from pipeline.errors import ArtifactError
from pipeline.layout import Workspace

Json = dict[str, Any]


def stage_names(workspace: Workspace) -> list[str]:
    """The stages of dvc.yaml, and their instances, such as prepare@sst2, that have run."""
    stages = _yaml(workspace, "dvc.yaml").get("stages", {})
    return [*stages, *(name for name in _locked(workspace) if "@" in name)]


def why_stage(name: str, workspace: Workspace) -> list[str]:
    """Lines to print: the inputs that changed since the stage ran, or those that made it run last, or that none did.

    Args:
        name: a stage, one of its instances (trace@sst2), or all of them (trace).

    Raises:
        ArtifactError: DVC gives no status.
    """
    status = _status(name, workspace)
    chosen = [stage for stage in status if stage == name or stage.partition("@")[0] == name]
    others = [stage for stage in status if stage not in chosen]
    lines = []
    for stage in chosen:
        lines += [f"{stage} will run:", *_sentences(status[stage], stage, workspace)]
    for stage in others:
        lines.append(f"{stage}, on which it depends, will run first (`python -m pipeline why {stage}` says why)")
    return lines or _last_time(name, workspace)


def _status(name: str, workspace: Workspace) -> Json:
    command = [sys.executable, "-m", "dvc", "status", name, "--with-deps", "--json"]
    done = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[:300]
        raise ArtifactError(f"why: DVC gives no status of {name!r} ({reason}); mend dvc.yaml or params.yaml")
    status: Json = json.loads(done.stdout)
    return status


def _sentences(changes: Iterable[Any], stage: str, workspace: Workspace) -> list[str]:
    """DVC's list of changes, as lines."""
    before = _locked(workspace).get(stage)
    if before is None:
        return ["  it has not run here"]
    lines = []
    for change in changes:
        if isinstance(change, str):
            lines.append({"changed command": "  its command changed"}.get(change, f"  {change}"))
            continue
        for path, what in change.get("changed deps", {}).items():
            if isinstance(what, Mapping):
                lines += [_param(path, name, before, workspace) for name in what]
            else:
                lines.append(f"  {path}: {'is gone' if what == 'deleted' else 'changed'}")
        lines += [
            f"  its output {path} {_OUTPUT.get(what, what)}" for path, what in change.get("changed outs", {}).items()
        ]
    return lines


_OUTPUT = {"deleted": "is gone", "modified": "was changed by something else", "not in cache": "is not in DVC's cache"}


def _param(path: str, name: str, before: Json, workspace: Workspace) -> str:
    old = before.get("params", {}).get(path, {}).get(name, "not set")
    new: Any = _yaml(workspace, path)
    for part in name.split("."):
        new = new.get(part, "not set") if isinstance(new, dict) else "not set"
    return f"  {name} ({path}): {_shown(old)} -> {_shown(new)}"


def _last_time(name: str, workspace: Workspace) -> list[str]:
    """The differences between the last run, in dvc.lock, and the run before it, in git's dvc.lock."""
    now = {s: entry for s, entry in _locked(workspace).items() if name in (s, s.partition("@")[0])}
    earlier = _locked_in_git(workspace)
    lines = ["nothing: it is up to date" if now else "nothing: there is no such instance"]
    for stage, entry in now.items():
        if stage not in earlier:
            lines.append(f"{stage} ran for the first time since the last commit of dvc.lock" if earlier else "")
            continue
        if differences := _entry_differences(earlier[stage], entry):
            lines += [f"{stage} last ran, after the last commit of dvc.lock, because of", *differences]
    return [line for line in lines if line]


def _entry_differences(before: Json, after: Json) -> list[str]:
    lines = ["  its command"] if before.get("cmd") != after.get("cmd") else []
    old, new = ({dep["path"]: dep.get("md5") for dep in entry.get("deps", [])} for entry in (before, after))
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            lines.append(
                f"  {path}: {'new' if path not in old else 'no longer read' if path not in new else 'changed'}"
            )
    for file in sorted({*before.get("params", {}), *after.get("params", {})}):
        old, new = (entry.get("params", {}).get(file, {}) for entry in (before, after))
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                one, other = (_shown(params.get(name, "not set")) for params in (old, new))
                lines.append(f"  {name} ({file}): {one} -> {other}")
    return lines


def _locked(workspace: Workspace) -> Json:
    stages: Json = _yaml(workspace, "dvc.lock").get("stages", {})
    return stages


def _locked_in_git(workspace: Workspace) -> Json:
    try:
        show = ["git", "show", "HEAD:./dvc.lock"]
        text = subprocess.run(show, cwd=workspace.root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    stages: Json = (yaml.safe_load(text) or {}).get("stages", {})
    return stages


def _yaml(workspace: Workspace, name: str) -> Json:
    try:
        content = yaml.safe_load((workspace.root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise ArtifactError(
            f"{workspace.root / name}: no readable YAML ({str(error).splitlines()[0]}); mend it"
        ) from None
    return content if isinstance(content, dict) else {}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
