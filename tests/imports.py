"""The project's import graph, read from the syntax trees: what a module imports, at its top or in a function."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PLUMBING = {
    "pipeline/__init__.py",
    "pipeline/errors.py",
    "pipeline/storage.py",
    "pipeline/tasks/hub.py",
    "pipeline/settings.py",
    "pipeline/params.py",
    "pipeline/running/stage.py",
    "pipeline/running/mlflow.py",
    "pipeline/running/observer.py",
    "stages/__init__.py",
}
"""Code that reads settings, stores and tracks; it cannot change a result, so no DVC stage depends on it."""


def module_file(name: str) -> Path | None:
    """The project's file of a dotted module name, relative to the root; None for others' modules."""
    base = ROOT / name.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.relative_to(ROOT)
    return None


def imported_names(path: Path, *, for_types: bool = True) -> set[str]:
    """Dotted names that a file imports, at its top or in a function; `for_types`: also those for type checkers only."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    if not for_types:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_files(path: Path, *, for_types: bool = True) -> set[Path]:
    """Project files that a project file imports."""
    return {f for name in imported_names(path, for_types=for_types) if (f := module_file(name)) is not None} - {path}


def imports_of(path: Path) -> set[Path]:
    """Project files that a project file reaches: its imports, and the recipes that a registry of names loads."""
    if not (ROOT / path).is_file():
        return set()
    found = imported_files(path)
    if path.as_posix() == "pipeline/training/methods.py":
        found |= {file.relative_to(ROOT) for file in (ROOT / "pipeline/training/recipes").glob("*.py")}
    return found - {path}


def closure(start: Path, stop: Iterable[str] = ()) -> set[str]:
    """All project files reachable from one, itself included, not going into those in `stop`."""
    stop = set(stop)
    seen: set[str] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        name = path.as_posix()
        if name in seen or name in stop:
            continue
        seen.add(name)
        todo += imports_of(path)
    return seen
