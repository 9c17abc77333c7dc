"""SIGTERM and SIGINT end a stage as an error does: runs end KILLED, locks are free, and the exit code names the signal.

Slurm, Kubernetes, CI and `ray job stop` send SIGTERM, which ends Python at once; Ray's own handler aborts the process
with a C++ stack, and Tune takes Ctrl-C for a wish to end well.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_listening = False
_received: signal.Signals | None = None
_held = 0
_waits = False


def received() -> signal.Signals | None:
    """The signal that ends this process."""
    return _received


@contextmanager
def stopped_by_signals(name: str) -> Iterator[None]:
    """Interrupt the main thread on the first signal, and end the process with its code; a second one ends it at once.

    Whatever libraries make of the interruption on its way up (Ray makes SystemExit(1) of a SystemExit), it ends here.

    Args:
        name: the stage's, for the line that says so.
    """
    global _listening, _received, _waits
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _listening, _received, _waits = True, None, False
    listen()
    try:
        yield
    except BaseException:
        if _received is None:
            raise
        print(f"{name}: stopped by {_received.name}; run it again, what is finished is kept", file=sys.stderr)
        raise SystemExit(128 + _received) from None
    finally:
        _listening = False
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Take the signals, again after a library took them; does nothing outside `stopped_by_signals`."""
    if _listening and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _stop)


@contextmanager
def held() -> Iterator[None]:
    """Let a step end before the first signal interrupts: a transaction that is left open locks the database for good.

    A second signal still ends the process at once.
    """
    global _held, _waits
    if threading.current_thread() is not threading.main_thread():  # interruptions come to the main thread only
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _waits and not _held:
            _waits = False
            raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    global _received, _waits
    _received = signal.Signals(number)
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    if _held:
        _waits = True
    else:
        raise KeyboardInterrupt
