"""What ran, by name: the project's commit, the versions of the libraries that a result can depend on, the hardware."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

COMMIT_VARIABLE = "EARLY_EXIT_COMMIT"
"""Names the commit of code that was copied somewhere without its git history, such as a Ray job's folder."""
HARDWARE = ("processor", "threads", "gpu")
"""What `hardware` gives."""
LIBRARIES = ("numpy", "torch", "transformers", "tokenizers", "datasets", "safetensors", "pyarrow")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a result, the commit, the hardware; imports none."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not all are needed for every trial
    return versions | {"commit": git_commit()} | hardware()


def hardware() -> dict[str, str]:
    """The processor, and what PyTorch uses where it is loaded: threads, and the GPU once something ran on it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"processor": processor()}
    on_gpu = torch.cuda.is_initialized()
    gpu = {"gpu": str(torch.cuda.get_device_name())} if on_gpu else {}
    return {"processor": processor(), "threads": str(torch.get_num_threads()), **gpu}


def processor() -> str:
    """The name of this machine's processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


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
