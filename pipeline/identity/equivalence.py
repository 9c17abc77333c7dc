"""Declarations that two states of the code train alike (docs/design/identity.md)."""

from collections import defaultdict, deque
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from pipeline.errors import ArtifactError
from pipeline.identity.code import CodeIdentity
from pipeline.identity.imports import ROOT
from pipeline.settings import Block
from pipeline.storage import write_json

FILE = "code-equivalence.json"
"""Beside the packages, in git: it belongs to the code."""
UNDECLARED = "no declaration calls it equal to today's"


class Pair(Block):
    """The hash of a trial's code before a change and after it."""

    before: str
    after: str


class Declaration(Block):
    """One change of the code that changes no result."""

    reason: str
    """Why, in the words of who declared it."""
    date: str
    """Of the declaration, ISO 8601."""
    since: str
    """The commit that the code was compared with."""
    changed: tuple[str, ...]
    """The modules that differ, with their definitions that do."""
    equal: dict[str, Pair]
    """Kind of trial to its code before and after, for every kind whose code differs."""


class Equivalence(Block):
    """All declarations, in the order in which they were made.

    Whole closures are called equal, not modules: where a factor moved from one module to another, each module's two
    states are equal only together with the other's.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    declarations: tuple[Declaration, ...] = ()

    @cached_property
    def older(self) -> dict[str, str]:
        """A hash to one of the same class that is nearer to the class's oldest."""
        older: dict[str, str] = {}
        for declaration in self.declarations:
            for pair in declaration.equal.values():
                before, after = _end(older, pair.before), _end(older, pair.after)
                if before != after:
                    older[after] = before
        return older

    def canonical(self, code: str) -> str:
        """The hash that stands for all that are declared equal to one: the oldest."""
        return _end(self.older, code)

    def reasons(self, trained: str, today: str) -> tuple[str, ...]:
        """Why two codes train alike: the reasons of the declarations that lead from one to the other.

        Empty where they are one code; UNDECLARED alone where nothing leads from one to the other.
        """
        steps: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for declaration in self.declarations:
            for pair in declaration.equal.values():
                steps[pair.before].append((pair.after, declaration.reason))
                steps[pair.after].append((pair.before, declaration.reason))
        paths: dict[str, tuple[str, ...]] = {trained: ()}
        todo = deque([trained])
        while todo and today not in paths:
            here = todo.popleft()
            for there, reason in steps[here]:
                if there not in paths:
                    paths[there] = (*paths[here], reason)
                    todo.append(there)
        return paths.get(today, (UNDECLARED,))

    def with_declaration(self, declaration: Declaration) -> "Equivalence":
        """These and one more."""
        return Equivalence(declarations=(*self.declarations, declaration))


def read_equivalence(root: Path = ROOT) -> Equivalence:
    """The project's declarations; none where there is no file.

    Raises:
        ArtifactError: the file is not what `write_equivalence` writes.
    """
    path = root / FILE
    try:
        return Equivalence.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Equivalence()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "text"
        raise ArtifactError(f"{path}: {where}: {first['msg']}; mend it, or restore it with git") from None


def write_equivalence(equivalence: Equivalence, root: Path = ROOT) -> Path:
    """Write the project's declarations."""
    return write_json(root / FILE, equivalence.model_dump(mode="json", by_alias=True))


def trained_by_other_code(trained: str, code: CodeIdentity, equivalence: Equivalence) -> tuple[str, ...]:
    """Whether a row comes from other code than today's; empty: it does not.

    Args:
        trained: hash of the code that trained it, as its result keeps it.
        code: today's, of a trial of that kind.

    Returns:
        The reasons for which the two were declared to train alike, or UNDECLARED alone.
    """
    return equivalence.reasons(trained, code.hash)


def _end(older: Mapping[str, str], code: str) -> str:
    while code in older:
        code = older[code]
    return code
