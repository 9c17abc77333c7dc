"""A stage's entry in DVC's own lock, which keeps DVC from removing what the stage reads and writes.

DVC removes a stage's outputs before it starts the stage. While it runs one itself it holds a lock on the paths; a stage
that outlived its DVC, or was started by hand, has none to hold it. So each stage enters itself as a reader of its
dependencies and outputs: DVC then refuses to write there, and says who reads. It drops entries of processes that died.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock

from pipeline.layout import HERE
from pipeline.storage import read_yaml, write_text


@contextmanager
def kept_from_dvc(name: str, task: str) -> Iterator[None]:
    """Keep DVC from the paths of a stage as long as this process runs it; does nothing in a folder without DVC."""
    if not HERE.dvc_readers.parent.parent.is_dir():
        yield
        return
    paths = _paths(name, task)
    entry = {"pid": os.getpid(), "cmd": f"python -m stages.{name} {task}".strip()}
    with _readers() as readers:
        for path in paths:
            readers.setdefault(path, []).append(entry)
    try:
        yield
    finally:
        with _readers() as readers:
            for path in paths:
                readers[path] = [each for each in readers.get(path, []) if each != entry]
                if not readers[path]:
                    del readers[path]


def _paths(name: str, task: str) -> list[str]:
    """What dvc.yaml names as dependencies and outputs of a stage, as DVC writes them: absolute."""
    try:
        stage = read_yaml(HERE.graph)["stages"][name]
    except (OSError, ValueError, KeyError, TypeError):  # without a graph DVC removes nothing
        return []
    stage = stage.get("do", stage)
    entries = [*stage.get("deps", ()), *stage.get("outs", ())]
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    root = HERE.root.resolve()
    return [str(root / name.replace("${key}", task)) for name in names]


@contextmanager
def _readers() -> Iterator[dict[str, Any]]:
    """Change DVC's list of readers: path to the processes that read it."""
    file = HERE.dvc_readers
    file.parent.mkdir(exist_ok=True)
    with FileLock(file.with_name("rwlock.lock")):  # DVC's, which it holds for an instant
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = {}
        except ValueError:  # a DVC died as it wrote, and others refuse to work until the file is removed
            yield {}
            return
        yield known.setdefault("read", {})
        write_text(file, json.dumps(known))
