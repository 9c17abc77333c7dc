"""A bar on a terminal for long work; elsewhere nothing, so that logs keep the lines alone."""

import contextlib
import io
import os
import sys
from types import TracebackType
from typing import Any, TextIO


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
        self._bar = tqdm(total=total, initial=done, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True)
        self._stack.enter_context(contextlib.redirect_stdout(_Above(sys.stdout)))

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

    def __init__(self, output: TextIO) -> None:
        self._output, self._line = output, ""

    def write(self, text: str) -> int:
        from tqdm import tqdm

        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            tqdm.write(line, file=self._output)
        self._output.flush()
        return len(text)

    def isatty(self) -> bool:
        return self._output.isatty()

    def fileno(self) -> int:
        return self._output.fileno()
