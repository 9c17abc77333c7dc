"""The project's files and what each imports, read from the syntax trees; nothing is executed."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the project's packages."""
PACKAGES = ("pipeline", "stages", "ray_jobs", "tools", "benchmarks", "tests")
"""The project's own; what lies beside them, such as a virtual environment, is others'."""


class Import(NamedTuple):
    """A module, or one name of it, and the local name that it gets; `name` is None for the module itself."""

    local: str
    module: str
    name: str | None


def module_path(name: str, root: Path = ROOT) -> str | None:
    """The project's file of a dotted module name, as a POSIX path below `root`; None for others' modules."""
    if name.partition(".")[0] not in PACKAGES:
        return None
    base = name.replace(".", "/")
    return next((path for path in (f"{base}.py", f"{base}/__init__.py") if (root / path).is_file()), None)


def imports_of(statement: ast.Import | ast.ImportFrom, package: str = "") -> list[Import]:
    """What a statement imports; `package` is where a leading dot counts from."""
    if isinstance(statement, ast.Import):
        return [Import(a.asname or a.name.partition(".")[0], a.name, None) for a in statement.names]
    above = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
    module = ".".join([*above, *([statement.module] if statement.module else [])])
    return [Import(a.asname or a.name, module, a.name) for a in statement.names]


def package_of(path: str) -> str:
    """Dotted name of the package that a file belongs to."""
    return path.rpartition("/")[0].replace("/", ".")


def for_type_checkers(statement: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    match statement:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return True
    return False


def imported_names(path: Path, *, for_types: bool = True, root: Path = ROOT) -> set[str]:
    """Dotted names that a file imports, at its top or in a function; `for_types`: also those for type checkers only."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    names: set[str] = set()
    for entry in _all_imports(tree, package_of(path.as_posix()), for_types):
        names.add(entry.module)
        if entry.name is not None:
            names.add(f"{entry.module}.{entry.name}")
    return names


def imported_files(path: Path, *, for_types: bool = True, root: Path = ROOT) -> set[Path]:
    """The project's files that one of its files imports, relative to `root`."""
    files = {module_path(name, root) for name in imported_names(path, for_types=for_types, root=root)}
    return {Path(file) for file in files if file is not None} - {path}


def _all_imports(node: ast.AST, package: str, for_types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from imports_of(node, package)
        return
    skipped = node.body if isinstance(node, ast.If) and not for_types and for_type_checkers(node) else []
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from _all_imports(child, package, for_types)
