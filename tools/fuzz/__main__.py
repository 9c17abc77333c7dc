"""Run the fuzzers: python -m tools.fuzz [COUNT] [SEED]. Prints findings and counts; exit code 1 on a finding."""

import sys

from tools.fuzz import data, params


def main(count: int, seed: int) -> int:
    """Run all fuzzers with `count` inputs each."""
    tallies = [params.fuzz(count, seed), data.fuzz(count, seed)]
    for tally in tallies:
        print(*tally.findings, sep="\n")
        print(tally.line())
    return 1 if any(tally.findings for tally in tallies) else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    raise SystemExit(main(*(numbers + [2000, 0][len(numbers) :])))
