"""Why a stage will run, from DVC's status; or why it last ran, from dvc.lock in git."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.commands.why_trial import flat, shown
from pipeline.errors import ArtifactError
from pipeline.layout import Workspace
from pipeline.storage import parse_yaml, read_yaml

Json = dict[str, Any]
_OUTPUT = {"deleted": "is gone", "modified": "was changed by something else", "not in cache": "is not in DVC's cache"}


def stage_names(workspace: Workspace) -> list[str]:
    """The stages of dvc.yaml, and their instances, such as prepare@sst2, that have run."""
    stages = _yaml(workspace.root / "dvc.yaml").get("stages", {})
    return [*stages, *(name for name in locked(workspace) if "@" in name)]


def why_stage(name: str, workspace: Workspace) -> list[str]:
    """Lines to print: the inputs that changed since the stage ran, or those that made it run last, or that none did.

    Args:
        name: a stage, one of its instances (trace@sst2), or all of them (trace).

    Raises:
        ArtifactError: DVC gives no status.
    """
    status = _status(name, workspace)
    chosen = [stage for stage in status if name in (stage, stage.partition("@")[0])]
    lines = []
    for stage in chosen:
        lines += [f"{stage} will run:", *_sentences(status[stage], stage, workspace)]
    for stage in status:
        if stage not in chosen:
            lines.append(f"{stage}, on which it depends, will run first (`python -m pipeline why {stage}` says why)")
    return lines or _last_time(name, workspace)


def _status(name: str, workspace: Workspace) -> Json:
    command = [sys.executable, "-m", "dvc", "status", name, "--with-deps", "--json"]
    done = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[:300]
        raise ArtifactError(f"why: DVC gives no status of {name!r} ({reason}); mend dvc.yaml or params.yaml")
    return dict(sorted(json.loads(done.stdout).items()))


def _sentences(changes: Iterable[Any], stage: str, workspace: Workspace) -> list[str]:
    """DVC's list of changes, as lines."""
    entry = locked(workspace).get(stage)
    if entry is None:
        return ["  it has not run here"]
    before, lines = _hashes(entry), []
    for change in changes:
        if isinstance(change, str):
            lines.append({"changed command": "  its command changed"}.get(change, f"  {change}"))
            continue
        for path, what in sorted(change.get("changed deps", {}).items()):
            after = workspace.root / path
            lines += [f"  {path}: is gone"] if what == "deleted" else _changes(path, before.get(path), after, workspace)
        for path, what in change.get("changed outs", {}).items():
            lines.append(f"  its output {path} {_OUTPUT.get(what, what)}")
    return lines


def _last_time(name: str, workspace: Workspace) -> list[str]:
    """The differences between the last run, in dvc.lock, and the run before it, in git's dvc.lock."""
    now = {stage: entry for stage, entry in locked(workspace).items() if name in (stage, stage.partition("@")[0])}
    earlier = _locked_in_git(workspace)
    lines = ["nothing: it is up to date" if now else "nothing: it has no instance"]
    for stage, entry in now.items():
        if stage not in earlier:
            lines += [f"{stage} ran for the first time since the last commit of dvc.lock"] if earlier else []
        elif differences := _entry_differences(earlier[stage], entry, workspace):
            lines += [f"{stage} last ran, after the last commit of dvc.lock, because of", *differences]
    return lines


def _entry_differences(before: Json, after: Json, workspace: Workspace) -> list[str]:
    lines = ["  its command"] if before.get("cmd") != after.get("cmd") else []
    old, new = _hashes(before), _hashes(after)
    for path in sorted({*old, *new}):
        if path in old and path in new and old[path] != new[path]:
            lines += _changes(path, old[path], _cached(new[path], workspace), workspace)
        elif path not in old or path not in new:
            lines.append(f"  {path}: {'new' if path in new else 'no longer read'}")
    return lines


def _changes(path: str, before: str | None, after: Path | None, workspace: Workspace) -> list[str]:
    """A line for a changed file; for a file of settings whose old version is cached, a line per changed setting."""
    if (workspace.root / path).is_relative_to(workspace.settings):
        old, new = (_yaml(file) if file else {} for file in (_cached(before, workspace), after))
        if old and new:
            one, other = flat(old), flat(new)
            names = [name for name in sorted({*one, *other}) if shown(one, name) != shown(other, name)]
            return [f"  {name}: {shown(one, name)} -> {shown(other, name)}" for name in names]
    return [f"  {path}: changed"]


def _cached(md5: str | None, workspace: Workspace) -> Path | None:
    """The file with a hash in DVC's cache; None where there is none."""
    if md5 is None:
        return None
    path = workspace.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    return path if path.is_file() else None


def _hashes(entry: Json) -> dict[str, str | None]:
    deps = entry.get("deps")
    deps = deps if isinstance(deps, list) else []
    return {dep["path"]: dep.get("md5") for dep in deps if isinstance(dep, dict) and isinstance(dep.get("path"), str)}


def locked(workspace: Workspace) -> Json:
    """The stages of dvc.lock; none where there is no such file."""
    return _stages(_yaml(workspace.root / "dvc.lock"))


def _locked_in_git(workspace: Workspace) -> Json:
    try:
        show = ["git", "show", "HEAD:./dvc.lock"]
        text = subprocess.run(show, cwd=workspace.root, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return _stages(parse_yaml(text))


def _stages(content: Any) -> Json:
    """The stages of a dvc.lock, of which DVC says itself where they are not as it wrote them."""
    stages = content.get("stages") if isinstance(content, dict) else None
    return (
        {name: entry for name, entry in stages.items() if isinstance(entry, dict)} if isinstance(stages, dict) else {}
    )


def _yaml(path: Path) -> Json:
    """A YAML or JSON file; empty where there is none."""
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ArtifactError(f"{path}: no readable YAML ({error}); mend it") from None
    return content if isinstance(content, dict) else {}
