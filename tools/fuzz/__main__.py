"""Run the fuzzers: python -m tools.fuzz [COUNT] [SEED]. Prints findings and counts; exit code 1 on a finding.

Stored results are fuzzed where the working directory has a finished run (`make demo`).
"""

import sys
from pathlib import Path

from pipeline.layout import Workspace
from tools.fuzz import data, params, stored, tables, traces
from tools.fuzz.outcome import Tally

EDITS = 20
"""Of so many edits of stored results one is tried."""


def main(count: int, seed: int) -> int:
    """Run all fuzzers with `count` inputs each."""
    tallies: list[Tally] = [fuzzer.fuzz(count, seed) for fuzzer in (params, data, tables, traces)]
    if (Workspace().report / "report.md").is_file():
        tallies += stored.fuzz(Path(), EDITS)
    for tally in tallies:
        for finding in tally.findings:
            print(finding)
        print(tally.line())
    return 1 if any(tally.findings for tally in tallies) else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    raise SystemExit(main(*(numbers + [2000, 0][len(numbers) :])))
