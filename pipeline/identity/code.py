"""The identity of code: a hash of every definition that roots reach, in its normal form, and one of them all."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.identity.imports import ROOT
from pipeline.identity.modules import Definition, Module, read_module
from pipeline.identity.normal_form import TYPING
from pipeline.identity.reach import reach
from pipeline.storage import content_key


@dataclass(frozen=True)
class CodeIdentity:
    """Code that a result depends on.

    Attributes:
        definitions: path of each module to the hash of each of its definitions that is reached.
    """

    definitions: dict[str, dict[str, str]]

    @cached_property
    def hash(self) -> str:
        """One hash of all definitions, 16 hex digits."""
        return content_key(self.definitions)

    def differences(self, other: "CodeIdentity") -> list[str]:
        """The modules that differ from another code's, with the definitions that do.

        >>> one = CodeIdentity({"fit.py": {"Fit": "1", "run_fit": "2"}})
        >>> one.differences(CodeIdentity({"fit.py": {"Fit": "1", "run_fit": "3"}, "joint.py": {"Joint": "4"}}))
        ['fit.py (run_fit)', 'joint.py (Joint)']
        """
        lines = []
        for path in sorted({*self.definitions, *other.definitions}):
            mine, others = self.definitions.get(path, {}), other.definitions.get(path, {})
            names = sorted(name for name in {*mine, *others} if mine.get(name) != others.get(name))
            if names:
                lines.append(f"{path} ({', '.join(names)})")
        return lines


def code_identity(roots: Sequence[str], without: Collection[str] = (), root: Path = ROOT) -> CodeIdentity:
    """The identity of the code that roots reach (`reach` has the rules); the same on every machine and Python.

    Needs the source files and no git.

    Args:
        roots: "package.module:name", or "package.module" for all that is in it.
        without: the same, of what is not to be entered; a package is left out whole.
        root: the folder that holds the project's packages.
    """
    definitions = {}
    for path, reached in reach(roots, without, root=root).items():
        module = read_module(path, root)
        definitions[path] = {name: _hash(definition, module) for name, definition in reached.items()}
    return CodeIdentity(definitions)


def _hash(definition: Definition, module: Module) -> str:
    """Of the normal form, and of what the imported names in it stand for."""
    entries = [e for name in definition.form.names for e in module.imports_as(name) if e.module not in TYPING]
    text = definition.form.text + "".join(sorted(f"\n{e.local}={e.module}:{e.name}" for e in entries))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
