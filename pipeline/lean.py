"""Imports of large libraries without what they take along and we do not use."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*packages: str) -> Iterator[None]:
    """While it lasts, packages that nobody has imported yet seem not to be installed.

    A library that can do without one then does: None in `sys.modules` is Python's own way to say so, to an import and
    to `importlib.util.find_spec` alike. Packages that are there already stay.

    Args:
        packages: names of top-level packages.
    """
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            if sys.modules.get(package) is None:
                sys.modules.pop(package, None)
