"""What ran, by name: the project's commit and the versions of the libraries that a result can depend on."""

import importlib.metadata
import os
import platform
import subprocess

COMMIT_VARIABLE = "EARLY_EXIT_COMMIT"
"""Names the commit of code that was copied somewhere without its git history, such as a Ray job's folder."""
LIBRARIES = ("numpy", "torch", "transformers", "tokenizers", "datasets", "safetensors", "pyarrow")


def library_versions() -> dict[str, str]:
    """Versions of Python, of the libraries that can change a result, and the project's commit; imports none of them."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not all are needed for every trial
    return versions | {"commit": git_commit()}


def git_commit() -> str:
    """The commit that runs, with "-dirty" when tracked files differ from it; "unknown" outside git.

    EARLY_EXIT_COMMIT comes first: a copy of the code may lie inside some other checkout, whose commit is not its own.
    """
    if named := os.environ.get(COMMIT_VARIABLE):
        return named
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
