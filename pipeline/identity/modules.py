"""A module taken apart into its definitions: what each binds and reads, and what runs when the module is imported."""

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.identity.imports import PACKAGES, Import, for_type_checkers, imports_of, package_of
from pipeline.identity.normal_form import NormalForm, is_inert, normal_form

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MAIN = "__main__"
"""What a module does as a program is bound to this name: none asks for it but who asks for the whole module."""


@dataclass(frozen=True, eq=False)
class Definition:
    """A function, class, constant or other statement at the top of a module.

    Attributes:
        names: that it binds.
        at_import: it does more when the module is imported than bind its names.
        is_constant: it is neither a function nor a class, so that its place among the others may count.
    """

    statement: ast.stmt
    package: str
    names: frozenset[str]
    at_import: bool
    is_constant: bool

    @cached_property
    def form(self) -> NormalForm:
        return normal_form(self.statement, self.package)


@dataclass(frozen=True, eq=False)
class Module:
    """A source file.

    Attributes:
        path: below the root, POSIX.
        imports: at its top.
    """

    path: str
    definitions: Sequence[Definition]
    imports: Sequence[Import]

    def imports_as(self, local: str) -> list[Import]:
        """What a local name may be imported from; a star may be any name that is not bound here."""
        if local in self._by_local or local in self.by_name:
            return self._by_local.get(local, [])
        return self._by_local.get("*", [])

    @cached_property
    def _by_local(self) -> dict[str, list[Import]]:
        locals_: dict[str, list[Import]] = {}
        for entry in self.imports:
            locals_.setdefault(entry.local, []).append(entry)
        return locals_

    @cached_property
    def by_name(self) -> dict[str, list[Definition]]:
        """Which definitions bind a name."""
        bound: dict[str, list[Definition]] = {}
        for definition in self.definitions:
            for name in definition.names:
                bound.setdefault(name, []).append(definition)
        return bound

    def labels(self, reached: set[Definition]) -> dict[str, Definition]:
        """The reached definitions under the names that they bind, numbered where their order may count."""
        runs = any(d.at_import and d.is_constant for d in self.definitions)
        twice = {d for bound in self.by_name.values() if len(bound) > 1 for d in bound}
        labels: dict[str, Definition] = {}
        for definition in self.definitions:
            if definition in reached:
                name = ", ".join(sorted(definition.names)) or "statement"
                numbered = definition in twice or (definition.is_constant and (runs or twice))
                labels[f"{name} ({len(labels) + 1})" if numbered else name] = definition
        return labels


def read_module(path: str, root: Path) -> Module:
    """Take a file apart; a text that was read before is not parsed again.

    Raises:
        SyntaxError: no Python.
    """
    return _parse(path, (root / path).read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=2048)
def _parse(path: str, text: str) -> Module:
    tree = ast.parse(text, path)
    package = package_of(path)
    statements = list(_flat(tree.body))
    importing = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
    imports = [entry for statement in importing for entry in imports_of(statement, package)]
    own = {s.name for s in statements if isinstance(s, _DEFINITIONS)}
    own |= {entry.local for entry in imports if entry.module.partition(".")[0] in PACKAGES}
    return Module(path, [_definition(s, package, own) for s in statements if s not in importing], imports)


def _flat(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that count, with those of `else` where type checkers read the other half."""
    for statement in statements:
        if isinstance(statement, ast.If) and for_type_checkers(statement):
            yield from _flat(statement.orelse)
        elif not is_inert(statement):
            yield statement


def _definition(statement: ast.stmt, package: str, own: set[str]) -> Definition:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            # The project's own decorators may do anything, such as enter what they decorate in a registry.
            decorated = any(_first_name(d) in own for d in statement.decorator_list)
            return Definition(statement, package, frozenset({name}), decorated, False)
        case ast.Assign(targets=targets) if all(map(_is_plain, targets)):
            return Definition(statement, package, _stored(statement), False, True)
        case ast.AnnAssign(target=ast.Name(id=name)):
            return Definition(statement, package, frozenset({name}), False, True)
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return Definition(statement, package, frozenset({MAIN}), False, True)
    return Definition(statement, package, _stored(statement), True, True)


def _is_plain(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) or (isinstance(target, ast.Tuple) and all(map(_is_plain, target.elts)))


def _stored(statement: ast.stmt) -> frozenset[str]:
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    inner = {n.name for n in ast.walk(statement) if isinstance(n, _DEFINITIONS)}
    local = {e.local for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom) for e in imports_of(n)}
    return frozenset(names | inner | local)


def _first_name(decorator: ast.expr) -> str:
    node: ast.expr = decorator
    while not isinstance(node, ast.Name):
        match node:
            case ast.Call(func=inner) | ast.Attribute(value=inner) | ast.Subscript(value=inner):
                node = inner
            case _:
                return ""
    return node.id
