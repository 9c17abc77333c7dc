"""The nightly job: python -m tools.nightly PROFILE (docs/design/ci.md).

Fetches what a DVC remote has, runs what changed, compares with docs/PROFILE-metrics.json, and writes one comment.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import click

from pipeline.commands.compare_metrics import TOLERANCES, collect, differences, read_stored
from pipeline.errors import exit_with_one_line
from pipeline.identity.versions import library_versions
from pipeline.layout import HERE
from pipeline.report.render import markdown_text
from pipeline.results import StoredMetrics
from pipeline.results.metrics import Kind
from pipeline.storage import write_text

REPRO = ("repro", "--pull")
"""Takes from the default DVC remote, where there is one, what it has of these inputs, and runs the rest."""
COMMENT = "nightly.md"
"""The comment's file in outputs/."""
LONGEST = 60_000
"""Characters of a comment; GitHub takes 65,536, and the workflow adds a link."""
MOST_ROWS = 100
"""Rows of the table of moved metrics."""


class Row(NamedTuple):
    """A metric before and after: numbers, or "undefined", or "absent" on a side that lacks it."""

    kind: Kind
    name: str
    stored: float | str
    fresh: float | str

    @property
    def move(self) -> float | None:
        """How far it moved; None without two numbers."""
        both = isinstance(self.stored, float) and isinstance(self.fresh, float)
        return self.fresh - self.stored if both else None  # type: ignore[operator]

    @property
    def tolerances(self) -> float:
        """How many tolerances it moved; infinite without two numbers."""
        return float("inf") if self.move is None else abs(self.move) / TOLERANCES[self.kind]


def comment(profile: str, stored: StoredMetrics, fresh: StoredMetrics) -> str:
    """The comment in Markdown: metrics that moved too far, the largest first; then all, before and after."""
    moved = sorted(_moved(stored, fresh), key=lambda row: row.tolerances, reverse=True)
    title = f"{len(moved)} of {sum(map(len, stored.metrics.values()))} metrics moved" if moved else "no metric moved"
    parts = [f"## Profile `{profile}`: {title}", _where(), ""]
    if moved:
        parts += _table(moved[:MOST_ROWS])
        if len(moved) > MOST_ROWS:
            parts.append(f"\nand {len(moved) - MOST_ROWS} more")
        parts.append("")
    tables = []
    for kind in fresh.metrics | stored.metrics:
        rows = list(_rows(kind, stored, fresh))
        if rows:
            tables += [f"### {kind} (tolerance {TOLERANCES[kind]:g})", "", *_table(rows), ""]
    folded = ["<details><summary>All metrics, stored and of this run</summary>", "", *tables, "</details>", ""]
    if len("\n".join(parts + folded)) > LONGEST:
        folded = ["The tables of all metrics do not fit a comment; the stored results are in the artifact.", ""]
    return "\n".join(parts + folded)


def _where() -> str:
    """The commit and what else may move a number: versions, and the vector kernels of the processor."""
    from torch.backends import cpu

    versions = library_versions()
    commit = versions.pop("commit")
    kernels = cpu.get_cpu_capability()
    return f"Commit {commit}; {', '.join(f'{name} {version}' for name, version in versions.items())}; {kernels}."


def _moved(stored: StoredMetrics, fresh: StoredMetrics) -> Iterator[Row]:
    """The rows that `compare-metrics` names."""
    for kind, metrics in stored.metrics.items():
        for row in _rows(kind, stored, fresh):
            one = {row.name: metrics[row.name]} if row.name in metrics else {}
            if differences(StoredMetrics(metrics={kind: one}), fresh):
                yield row


def _rows(kind: Kind, stored: StoredMetrics, fresh: StoredMetrics) -> Iterator[Row]:
    before, after = stored.metrics.get(kind, {}), fresh.metrics.get(kind, {})
    for name in sorted(before | after):
        yield Row(kind, name, _value(before, name), _value(after, name))


def _value(metrics: Mapping[str, float | None], name: str) -> float | str:
    value = metrics.get(name, "absent")
    return "undefined" if value is None else value


def _table(rows: Sequence[Row]) -> list[str]:
    lines = ["| metric | stored | this run | moved |", "|---|---|---|---|"]
    for row in rows:
        stored, fresh = (f"{v:.6g}" if isinstance(v, float) else v for v in (row.stored, row.fresh))
        lines.append(f"| {markdown_text(row.name)} | {stored} | {fresh} | {f'{row.move:+.4g}' if row.move else ''} |")
    return lines


@click.command()
@click.argument("profile", default="demo")
def main(profile: str) -> None:
    """Run PROFILE and compare its metrics; exit code 1 where one moved too far."""
    with exit_with_one_line():
        stored = read_stored(HERE.root / "docs" / f"{profile}-metrics.json")  # before anything runs
        out = HERE.outputs / COMMENT
        out.unlink(missing_ok=True)
        if code := _run("pipeline", "profile", profile):
            raise SystemExit(code)
        if code := _run("dvc", *REPRO):
            failed = f"`dvc {' '.join(REPRO)}` ended with exit code {code}; the log of the run says why."
            write_text(out, f"## Profile `{profile}` failed\n{failed}\n")
            raise SystemExit(1)
        fresh = collect(HERE)
        write_text(out, comment(profile, stored, fresh))
        for line in (lines := differences(stored, fresh)):
            click.echo(line)
        click.echo(f"{len(lines)} metrics moved or are missing; the comment is in {out}")
        raise SystemExit(1 if lines else 0)


def _run(module: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *arguments]).returncode


if __name__ == "__main__":
    main()
