"""How a reader took a mutated input."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.errors import PipelineError

Outcome = Literal["taken", "refused", "fault"]


@dataclass
class Tally:
    """Outcomes, and each fault with the mutation that it takes to see it again."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome, text: str) -> None:
        """Count one outcome of the mutation called `name`."""
        self.counts[outcome] += 1
        if outcome == "fault":
            self.faults.append(f"{name}: {text}")

    def __str__(self) -> str:
        taken, refused, faults = self.counts["taken"], self.counts["refused"], self.counts["fault"]
        return f"{taken + refused + faults} mutations: {taken} taken, {refused} refused, {faults} faults"


def drive(reader: Callable[[], Any]) -> tuple[Outcome, str]:
    """Run a reader; a fault is a traceback, a warning, or a refusal of more than one line or without a remedy.

    Returns:
        The outcome, and the refusal or the last lines of the traceback.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader()
    except PipelineError as error:
        text = str(error)
        return ("refused", text) if "\n" not in text and ";" in text else ("fault", f"no line with a remedy: {text}")
    except Exception:
        return "fault", " | ".join(traceback.format_exc().strip().splitlines()[-5:])
    return "taken", ""
