"""Large libraries, without optional packages that this project does not use, and without lines of their logs."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*packages: str) -> Iterator[None]:
    """Make packages that are not yet imported seem not installed, for the duration of the context.

    A library for which they are optional then does not import them. None in `sys.modules` has this effect in Python, on
    an import and on `importlib.util.find_spec`. Packages that are already imported stay.

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


@contextmanager
def quiet(logger: str | None = None) -> Iterator[None]:
    """Without what a logger says below an error, for the duration of the context.

    Args:
        logger: its name; None: the root's.
    """
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(before)
