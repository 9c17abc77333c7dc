"""What code a name reaches: definitions that it reads, those that they read, and what a module runs at its import."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from pipeline.identity.imports import ROOT, Import, module_path
from pipeline.identity.modules import Definition, Module, read_module

PLUMBING = (
    "pipeline/errors.py",
    "pipeline/settings.py",
    "pipeline/params.py",
    "pipeline/layout.py",
    "pipeline/storage.py",
    "pipeline/identity/*",
    "pipeline/running/*",
    "pipeline/tasks/hub.py",
    "pipeline/models/device.py",
    "pipeline/training/code.py",
)
"""Code that says how and where, never what: it cannot change a result, so nothing depends on it."""

LOADED_BY_NAME: Mapping[str, str] = {
    "pipeline.evaluation.criteria:CRITERIA": "pipeline/evaluation/criteria/*.py",
    "pipeline.training.methods:load_recipe": "pipeline/training/recipes/*.py",
}
"""Registries that import modules by their names, and the modules that there are."""


def reach(
    roots: Iterable[str],
    without: Collection[str] = (),
    *,
    plumbing: Collection[str] = PLUMBING,
    root: Path = ROOT,
) -> dict[str, dict[str, Definition]]:
    """The project's definitions that roots reach.

    An import counts wherever it stands, in a function too, unless it is for type checkers. An imported module counts
    with what is used of it and with what runs at its import. A name counts wherever it is read, be it a local one: too
    much rather than too little. Not seen: names that are put together when the program runs (LOADED_BY_NAME), and names
    looked up in a module with `getattr`.

    Args:
        roots: "package.module:name", or "package.module" for all that is in it.
        without: what is not to be entered, "package.module:name", "package.module" or "package": what settings say
            already, and what is never chosen, or chosen by the roots.
        plumbing: patterns of paths that are not entered either.

    Returns:
        Path to the reached definitions by their names; modules of which nothing is reached are not in it.
    """
    walk = _Walk(frozenset(without), tuple(plumbing), root)
    for name in roots:
        module, _, definition = name.partition(":")
        walk.ask(module, definition or None)
    walk.run()
    return {path: walk.modules[path].labels(walk.reached[path]) for path in sorted(walk.reached) if walk.reached[path]}


class _Walk:
    def __init__(self, without: frozenset[str], plumbing: tuple[str, ...], root: Path) -> None:
        self.without, self.plumbing, self.root = without, plumbing, root
        self.modules: dict[str, Module] = {}
        self.reached: dict[str, set[Definition]] = defaultdict(set)
        self.entered: dict[str, Module | None] = {}
        self.asked: set[tuple[str, str | None]] = set()
        self.todo: list[tuple[str, str | None]] = []

    def ask(self, module: str, name: str | None) -> None:
        """A name of a module is read; None: all of the module."""
        if (module, name) not in self.asked:
            self.asked.add((module, name))
            self.todo.append((module, name))

    def run(self) -> None:
        while self.todo:
            module, name = self.todo.pop()
            source = self.enter(module)
            if source is not None:
                self.answer(module, source, name)
            elif name is not None and module_path(f"{module}.{name}", self.root):  # of a package without a file
                self.ask(f"{module}.{name}", None)

    def enter(self, name: str) -> Module | None:
        """Import a module: its packages, its imports, and what runs at its import; None where it is not entered."""
        if name not in self.entered:
            self.entered[name] = None  # a package's file may import its own modules, which ask for the package again
            path = module_path(name, self.root)
            if path is not None and not self.is_cut(name, path):
                self.entered[name] = self.modules[path] = read_module(path, self.root)
                self.at_import(name, self.modules[path])
        return self.entered[name]

    def is_cut(self, name: str, path: str) -> bool:
        parts = name.split(".")
        packages = {".".join(parts[: i + 1]) for i in range(len(parts))}
        return not self.without.isdisjoint(packages) or any(fnmatch(path, pattern) for pattern in self.plumbing)

    def at_import(self, name: str, source: Module) -> None:
        if "." in name:
            self.enter(name.rpartition(".")[0])
        for entry in source.imports:
            self.enter(entry.module)
            if entry.name is not None:
                self.enter(f"{entry.module}.{entry.name}")
        for definition in source.definitions:
            if definition.at_import:
                self.take(name, source, definition)

    def answer(self, module: str, source: Module, name: str | None) -> None:
        if name is not None and name in source.by_name:
            for definition in source.by_name[name]:
                self.take(module, source, definition)
        elif name is not None and source.imports_as(name):
            self.follow(source.imports_as(name))
        elif name is not None and module_path(f"{module}.{name}", self.root):
            self.ask(f"{module}.{name}", None)
        else:  # all of it, or a name that the module makes up as it runs
            for definition in source.definitions:
                self.take(module, source, definition)

    def take(self, module: str, source: Module, definition: Definition) -> None:
        full_names = [f"{module}:{name}" for name in definition.names]
        if definition in self.reached[source.path] or not self.without.isdisjoint(full_names):
            return
        self.reached[source.path].add(definition)
        for name in definition.form.names:
            if name in source.by_name:
                self.ask(module, name)
            self.follow(source.imports_as(name))
        self.follow(definition.form.imports)
        for pattern in (LOADED_BY_NAME[name] for name in full_names if name in LOADED_BY_NAME):
            for path in self.root.glob(pattern):
                self.ask(path.relative_to(self.root).with_suffix("").as_posix().replace("/", "."), None)

    def follow(self, entries: Iterable[Import]) -> None:
        for entry in entries:
            self.ask(entry.module, entry.name)
