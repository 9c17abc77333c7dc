"""The command `harmless`: declare that a change of the code changes no result, so that trials keep their keys."""

import datetime
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from pipeline.errors import ArtifactError, ParamsError
from pipeline.identity.code import CodeIdentity
from pipeline.identity.equivalence import FILE, canonical, read_equivalence
from pipeline.identity.imports import ROOT
from pipeline.results import CodeEquivalence, CodePair, Declaration


def declare_harmless(reason: str, since: str, root: Path = ROOT) -> list[str]:
    """Declare that the code of every kind of trial trains as it did at a commit; return lines to print.

    The earlier code computes its own hashes, in a process of its own. So modules may have been moved, renamed, split
    or merged since, and the rules of the hash may have changed.

    Args:
        since: a commit, in any form that git takes.
        root: the project's folder, in a git repository.

    Raises:
        ParamsError: no reason, or no such commit.
        ArtifactError: the earlier code has no identity.
    """
    if not reason.strip():
        raise ParamsError("--reason: empty; give the reason why no result changes, which the declaration keeps")
    commit = _git(root, since, "rev-parse", "--verify", "--quiet", f"{since}^{{commit}}").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        archive = _git(root, since, "archive", "--format=tar", commit, "pipeline")
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        earlier = _kinds(Path(folder), since)
    today = _kinds(root, "the working tree")
    equivalence = read_equivalence(root)
    equal, changed = {}, set()
    for kind in sorted(earlier.keys() & today.keys()):
        before, after = earlier[kind], today[kind]
        if canonical(before.hash, equivalence) != canonical(after.hash, equivalence):
            equal[kind] = CodePair(before=before.hash, after=after.hash)
            changed |= set(before.differences(after))
    if not equal:
        return [f"nothing to declare: every kind of trial has the key that it had at {since}"]
    declaration = Declaration(
        reason=reason.strip(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        since=commit,
        changed=tuple(sorted(changed)),
        equal=equal,
    )
    CodeEquivalence(declarations=(*equivalence.declarations, declaration)).write(root / FILE)
    return [
        f"declared harmless since {since}, for {len(equal)} of {len(today)} kinds of trial ({', '.join(equal)}):",
        *(f"  {line}" for line in declaration.changed),
        f"{FILE} says so: commit it with the change",
    ]


def _git(root: Path, since: str, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise ParamsError(
            f"--since: no commit {since!r} of this project; name one of `git log`, in a clone of the repository"
        ) from None


def _kinds(root: Path, name: str) -> dict[str, CodeIdentity]:
    """The code of every kind of trial, computed by the code in a folder."""
    command = [sys.executable, "-m", "pipeline.training.code"]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ArtifactError(
            f"--since: the code of {name} gives no identity of its trials ({reason}); name a later commit, or train "
            "the trials again"
        )
    return {kind: CodeIdentity(definitions) for kind, definitions in json.loads(done.stdout).items()}
