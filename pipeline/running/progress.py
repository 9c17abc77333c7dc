"""A bar on a terminal for long work; elsewhere nothing, so that logs keep the lines alone."""

import contextlib
import io
import os
import sys
from types import TracebackType
from typing import Any, TextIO

WIDTH = 80
"""Columns of a terminal that does not say how many it has."""


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, and no CI's."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


class Bar:
    """A bar of `total` steps. What is printed while it is there stands above it.

    Args:
        done: steps that were done before.
        show: `runtime.progress`.
    """

    def __init__(self, label: str, total: int, *, done: int = 0, show: bool = True) -> None:
        self._bar: Any = None
        self._stack = contextlib.ExitStack()
        if not (show and total > done and is_watched()):
            return
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own
        unknown = os.get_terminal_size(sys.stderr.fileno()).columns == 0  # tqdm would then print nothing
        width: dict[str, Any] = {"ncols": WIDTH, "nrows": 20} if unknown else {"dynamic_ncols": True}
        self._bar = tqdm(total=total, initial=done, desc=label, file=sys.stderr, leave=False, **width)
        self._stack.enter_context(contextlib.redirect_stdout(_Above(sys.stdout, self._bar)))

    def __reduce__(self) -> Any:
        """A copy shows nothing: Tune pickles its callbacks, which know the ledger and so its bar."""
        return Bar, ("", 0)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()
        if self._bar is not None:
            self._bar.close()

    def step(self, done: int | None = None) -> None:
        """One more step is done, or so many in all."""
        if self._bar is not None:
            self._bar.update(1 if done is None else done - self._bar.n)

    def note(self, text: str) -> None:
        """What is said behind the numbers."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)


class _Above(io.TextIOBase):
    """Standard output while a bar is shown: whole lines, above it."""

    def __init__(self, output: TextIO, bar: Any) -> None:
        self._output, self._bar, self._line = output, bar, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            self._bar.clear()
            self._output.writelines(f"{line}\n" for line in lines)
            self._output.flush()
            self._bar.refresh()
        return len(text)

    def isatty(self) -> bool:
        return self._output.isatty()

    def fileno(self) -> int:
        return self._output.fileno()
