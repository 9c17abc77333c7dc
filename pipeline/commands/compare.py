"""The command `compare`: two runs side by side, and why their numbers differ; docs/design/views.md."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.commands.compare_rows import OnExamples, Pair, only_in, pairs, refuse_nothing_in_common
from pipeline.commands.compare_runs import Run, opened
from pipeline.commands.compare_trials import compare_trials
from pipeline.commands.compare_why import Cause, causes
from pipeline.commands.output import refuse_output, writing
from pipeline.layout import HERE
from pipeline.report.cells import Cell, Table, TableRow, model_name, runs_of, slug
from pipeline.report.numbers import EQUALS, bounds, difference, number, points, setting, times
from pipeline.report.plain import table_lines
from pipeline.report.render import Content, render_sections
from pipeline.report.verdicts import word
from pipeline.results import Interval
from pipeline.storage import write_text

PAGES = (".html", ".md")
COLUMNS = ("Exit rule", "Before", "After", "Difference", "Verdict", "Same examples", "Speed-up", "Setting")
NOTES = (
    "Scores in points: the median over seeds, with their range in brackets. Difference: after minus before, paired by "
    "seed; “ahead” and “behind” mean on every seed that both have.",
    "Same examples: those that the second run answers better and worse than the first, over the seeds that both have, "
    "with the p-value of the sign test (one seed and classes: McNemar's exact test).",
)
ARROW = "\u2192"


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        missing: rows that only one has, by that one's name.
        causes: inputs that differ.
    """

    first: Run
    second: Run
    pairs: Sequence[Pair]
    missing: dict[str, list[str]]
    causes: Sequence[Cause]

    @property
    def moved(self) -> int:
        """Number of rows with a number that differs."""
        return sum(pair.moved for pair in self.pairs)

    @property
    def headline(self) -> str:
        """What there is to see, in a sentence or two."""
        same = f"{len(self.pairs)} rows in common"
        if not self.moved:
            return f"{same}, all with the same numbers."
        verdicts = [word(pair.gap).partition(" ")[0] for pair in self.pairs if pair.moved]
        counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("ahead", "behind") if name in verdicts)
        why = "" if self.causes else " No stored input differs."
        return f"{same}, {self.moved} with other numbers" + (f" ({counts})." if counts else ".") + why

    @property
    def reasons(self) -> list[str]:
        """Each cause as a line."""
        if not self.causes:
            return ["no stored input differs" if self.moved else "nothing differs"]
        return [_reason(cause) for cause in self.causes]


def compare(first: str, second: str, out: Path | None) -> tuple[list[str], Any]:
    """Set two runs, or two trials, side by side.

    Args:
        first, second: a folder, a git revision, an experiment, a trial's key or its MLflow run.
        out: page to write, .html or .md; None: none.

    Returns:
        Lines to print, and the same as JSON.

    Raises:
        ParamsError: a name means nothing, or the two are of different kinds.
        ArtifactError: results are missing or unreadable, or the two have nothing in common.
    """
    if out is not None:
        refuse_output(out, PAGES)
    with opened((first, second)) as two:
        one, other = two
        if not isinstance(one, Run) or not isinstance(other, Run):
            return compare_trials(str(one), str(other), HERE)
        refuse_nothing_in_common(one, other)
        missing = {run.name: [*only_in(run, against)] for run, against in ((one, other), (other, one))}
        made = Comparison(one, other, pairs(one, other), missing, causes(one, other))
        lines = [*_lines(made)]
        if out is not None:
            with writing(out):
                write_text(out, render_sections(_title(made), made.headline, _sections(made), out.suffix))
            lines.append(f"written: {out}")
        return lines, _payload(made)


def _title(made: Comparison) -> str:
    return f"{made.first.name} {ARROW} {made.second.name}"


def _lines(made: Comparison) -> list[str]:
    lines = [f"before: {made.first.name}", f"after:  {made.second.name}", made.headline]
    for table in _tables(made):
        lines += ["", table.title, *table_lines(table)]
    for name, rows in made.missing.items():
        lines += ["", f"Only in {name}:", *(f"  {row}" for row in rows)] if rows else []
    return [*lines, "", "Why they differ:", *(f"  {line}" for line in made.reasons)]


def _tables(made: Comparison) -> list[Table]:
    """A table for each model that both have on a split."""
    out = []
    for (task, split, backbone, method), members in groupby(made.pairs, key=lambda pair: pair.name[:4]):
        title = f"{task} {split}: {model_name(backbone, method)}"
        rows = tuple(_row(made, pair) for pair in members)
        out.append(Table(slug("compare", task, split, backbone, method), title, COLUMNS, rows))
    return out


def _row(made: Comparison, pair: Pair) -> TableRow:
    task, before, after = pair.name[0], pair.before, pair.after
    regression = made.second.evaluated[task].kind == "regression"
    settings = [setting(row.points, regression=regression) for row in (before, after)]
    verdict = word(pair.gap) if pair.moved else "the same"
    tone = verdict.split()[0] if verdict.split()[0] in ("ahead", "behind") else ""
    cells = (
        Cell(pair.name[4]),
        Cell(number(points(before.score.centre)), bounds(before.score, 1, 100)),
        Cell(number(points(after.score.centre)), bounds(after.score, 1, 100)),
        Cell(difference(pair.gap, "no seed in common")),
        Cell(verdict, tone=tone),
        Cell(_on_examples(pair.examples) if pair.examples else pair.why_not),
        Cell(_change(times(before.layer_speedup.centre), times(after.layer_speedup.centre))),
        Cell(_change(*settings) if after.criterion else "—"),
    )
    keys = dict.fromkeys([*zip(before.keys, before.seeds, strict=True), *zip(after.keys, after.seeds, strict=True)])
    records = made.first.records | made.second.records
    return TableRow(cells, runs_of([key for key, _ in keys], records, [seed for _, seed in keys]))


def _on_examples(found: OnExamples) -> str:
    if found.better == found.worse == 0:
        return f"all {found.rows:,} alike"
    return f"{found.better} better, {found.worse} worse of {found.rows:,}, p{EQUALS}{found.p:.2g}"


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} {ARROW} {after}"


def _reason(cause: Cause) -> str:
    places = list(cause.where)
    shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    change = "changed" if cause.kind == "code" else f"{cause.before} {ARROW} {cause.after}"
    return f"{cause.kind}: {cause.name}: {change} ({shown})"


def _sections(made: Comparison) -> list[Content]:
    """The page: reasons, then the tables of each model."""
    names = ("Input", "What", "Before", "After", "Where")
    rows = tuple(
        TableRow((*map(Cell, (cause.kind, cause.name, cause.before, cause.after)), Cell(", ".join(cause.where))))
        for cause in made.causes
    )
    why = Table("why", "Why they differ", names, rows, names=5)
    missing = tuple(
        TableRow((Cell(name), Cell(row))) for name, rows_of_it in made.missing.items() for row in rows_of_it
    )
    only = Table("only", "Rows that only one has", ("Run", "Rows"), missing, names=2)
    return [
        Content.shown(title=why.title, slug="inputs", tables=[why]),
        Content.shown(title="Numbers", slug="numbers", tables=[*_noted(_tables(made)), only]),
    ]


def _noted(tables: Sequence[Table]) -> list[Table]:
    """The notes once, below the last table."""
    *others, last = tables
    return [*others, Table(last.slug, last.title, last.columns, last.rows, NOTES)]


def _payload(made: Comparison) -> Any:
    return {
        "before": made.first.name,
        "after": made.second.name,
        "rows": [_json(pair) for pair in made.pairs],
        "only_before": made.missing[made.first.name],
        "only_after": made.missing[made.second.name] if made.second.name != made.first.name else [],
        "causes": [asdict(cause) for cause in made.causes],
    }


def _json(pair: Pair) -> Any:
    names = dict(zip(("task", "split", "backbone", "method", "criterion"), pair.name, strict=True))
    sides = {
        side: {
            "score": _interval(row.score),
            "layer_speedup": _interval(row.layer_speedup),
            "flop_speedup": _interval(row.flop_speedup),
            "seeds": list(row.seeds),
            "trials": list(row.keys),
            "thresholds": [point.threshold for point in row.points],
        }
        for side, row in (("before", pair.before), ("after", pair.after))
    }
    examples = asdict(pair.examples) if pair.examples else None
    return names | sides | {"difference": _interval(pair.gap), "same_examples": examples, "moved": pair.moved}


def _interval(value: Interval) -> Any:
    return {"value": value.centre, "low": value.low, "high": value.high}
