"""Code without what cannot change a result: layout, comments, docstrings, types, texts of errors.

A form of our own and not `ast.dump` or tokens, since both differ between versions of Python.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.identity.imports import PACKAGES, Import, for_type_checkers, imports_of

TYPING = {"__future__", "typing", "typing_extensions", "collections.abc"}
"""Modules whose names only say types, or show in the code that uses them."""
_POINTER = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")
"""A text that names code of the project, such as "pipeline.training.trial:train_text", counts as an import of it."""
_SKIPPED = {"ctx", "kind", "type_comment", "type_params"}


@dataclass(frozen=True)
class NormalForm:
    """A statement's normal form.

    Attributes:
        text: equal for two statements that differ in nothing that can change a result.
        names: identifiers in it, whatever binds them.
        imports: made when it runs.
    """

    text: str
    names: frozenset[str]
    imports: tuple[Import, ...]


def normal_form(statement: ast.stmt, package: str) -> NormalForm:
    """The normal form of a module's statement.

    Left out: comments, layout and quotes; docstrings and other expressions that are one constant; what only type
    checkers read; annotations of variables and of functions without a decorator (a decorator may read them, and so does
    a class of its fields); texts in `raise Error("text")`; the order of imports. The name of a local variable stays.

    Args:
        package: dotted name of the package that the module is in.
    """
    writer = _Writer(package)
    writer.statement(statement)
    return NormalForm("".join(writer.parts), frozenset(writer.names), tuple(writer.imports))


def is_inert(statement: ast.stmt) -> bool:
    """Whether a statement does nothing: `pass`, a docstring, another constant, an import for types."""
    match statement:
        case ast.Pass() | ast.Expr(ast.Constant()):
            return True
        case ast.ImportFrom(module=module, level=0):
            return module in TYPING
    return for_type_checkers(statement) and not getattr(statement, "orelse", [])


class _Writer:
    def __init__(self, package: str) -> None:
        self.package, self.in_class = package, False
        self.parts: list[str] = []
        self.names: set[str] = set()
        self.imports: list[Import] = []

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """Statements, those that do nothing left out, imports that follow each other in alphabetical order."""
        lines: list[str] = []
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom) and not is_inert(statement):
                entries = imports_of(statement, self.package)
                self.imports += entries
                lines += [f"import {e.local}={e.module}:{e.name};" for e in entries]
                continue
            self.parts += sorted(lines)
            lines = []
            self.statement(statement)
        self.parts += sorted(lines)

    def statement(self, statement: ast.stmt) -> None:
        if is_inert(statement):
            return
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self.block([statement])
        elif isinstance(statement, ast.If) and for_type_checkers(statement):
            self.block(statement.orelse)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.definition(statement)
        elif isinstance(statement, ast.AnnAssign) and not self.in_class:
            self.variable(statement)
        elif isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call):
            call = statement.exc
            args = [a for a in call.args if not isinstance(a, ast.JoinedStr) and not _is_text(a)]
            error = ast.Call(func=call.func, args=args, keywords=call.keywords)
            self.fields(ast.Raise(exc=error, cause=statement.cause))
        else:
            self.fields(statement)

    def definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        outer, self.in_class = self.in_class, isinstance(node, ast.ClassDef)
        if not isinstance(node, ast.ClassDef) and not node.decorator_list:
            every = node.args
            several = [a for a in (every.vararg, every.kwarg) if a is not None]
            for argument in [*every.posonlyargs, *every.args, *every.kwonlyargs, *several]:
                argument.annotation = None
            node.returns = None
        self.fields(node)
        self.in_class = outer

    def variable(self, node: ast.AnnAssign) -> None:
        """`x: int = 1` as `x = 1`; `x: int` still makes x a local name."""
        if node.value is None:
            self.parts.append("local ")
            self.node(node.target)
        else:
            self.fields(ast.Assign(targets=[node.target], value=node.value))

    def node(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            self.names.add(node.id)
            self.parts.append(f"{node.id} ")
        elif isinstance(node, ast.Constant):
            self.parts.append(f"{type(node.value).__name__}:{node.value!a} ")
            if isinstance(node.value, str) and _POINTER.fullmatch(node.value):
                module, _, name = node.value.partition(":")
                self.imports.append(Import("", module, name))
        elif isinstance(node, ast.JoinedStr):
            self.text(node)
        elif isinstance(node, ast.stmt):
            self.statement(node)
        else:
            self.fields(node)

    def text(self, node: ast.JoinedStr) -> None:
        """An f-string; whether its constant parts were written as one or as several makes no difference."""
        constant = ""
        self.parts.append("f(")
        for part in node.values:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                constant += part.value
                continue
            self.parts.append(f"{constant!a} ")
            constant = ""
            self.node(part)
        self.parts.append(f"{constant!a})")

    def fields(self, node: ast.AST) -> None:
        self.parts.append(f"{type(node).__name__}(")
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == [] or field in _SKIPPED:
                continue
            self.parts.append(f"{field}=")
            if isinstance(value, ast.AST):
                self.node(value)
            elif not isinstance(value, list):
                self.parts.append(f"{value!a} ")
            elif isinstance(value[0], ast.stmt):
                self.block(value)
            else:
                for item in value:
                    self.node(item) if isinstance(item, ast.AST) else self.parts.append(f"{item!a} ")
        self.parts.append(")")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
