"""What became of one wrong input, and the tally of all."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError, one_line

SEEN = ("tried", "accepted", "refused")
LONGEST = 600
"""Characters of a refusal: it is one line, whatever the input's length."""


@dataclass
class Tally:
    """Counts of accepted and refused inputs, and the findings: faults, each with its input."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def run(
        self,
        label: str,
        call: Callable[[], Any],
        changed: Callable[[Any], str | None] = lambda result: None,
        *,
        must_pass: bool = False,
        remedy: bool = False,
    ) -> None:
        """Try one input.

        Args:
            label: the input, for a finding.
            call: reads the input.
            changed: what the result silently changed of it; None: nothing.
            must_pass: whether the input is sound, so that a refusal is a fault.
            remedy: whether a refusal has to end with a remedy, after a semicolon.
        """
        self.counts["tried"] += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = call()
        except PipelineError as error:
            self.counts["refused"] += 1
            if remedy and ";" not in str(error):
                self.find("no remedy", label, str(error))
            if must_pass:
                self.find("refused though sound", label, str(error))
            if len(one_line(error)) > LONGEST:
                self.find("long message", label, one_line(error)[:LONGEST])
        except (Exception, SystemExit, RecursionError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.find(
                "traceback", label, f"{type(error).__name__}: {str(error)[:200]} at {last.filename}:{last.lineno}"
            )
        else:
            self.counts["accepted"] += 1
            if (what := changed(result)) is not None:
                self.find("silent change", label, what)

    def find(self, kind: str, label: str, what: str) -> None:
        """Note a fault."""
        self.counts[kind] += 1
        self.findings.append(f"{self.name}: {kind}: {label[:300]}: {what}")

    def line(self) -> str:
        """The counts as one line."""
        faults = [f"{count} {kind}" for kind, count in self.counts.items() if kind not in SEEN]
        seen = ", ".join(f"{self.counts[kind]} {kind}" for kind in SEEN)
        return f"{self.name}: {seen}; {', '.join(faults) or 'no finding'}"
