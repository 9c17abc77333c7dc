"""Does early exit pay here? One sentence, one picture, and a row per trained model."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from pipeline.evaluation.diagnosis import INDEPENDENT
from pipeline.report.cells import Cell, Table, TableRow, flags_of, model_name, row_id, runs_of, spoken, unlearned
from pipeline.report.clock import WORTH
from pipeline.report.lines import speed_axis
from pipeline.report.numbers import listed, number, points, setting, signed, times
from pipeline.report.paying import BEARABLE, FEWEST, SURE, Deal, best_of, deals
from pipeline.report.remarks import remarks
from pipeline.report.sections.base import Finding, Section
from pipeline.report.stored import Stored
from pipeline.report.svg import BAND, BLUE, GREEN, INK, MUTED, ORANGE, Panel, Plot, canvas
from pipeline.results import TrialRecord

COLUMNS = ("Task", "Model", "Exit rule", "Answer", "Score", "All layers", "One answer", "Difference",
           "Speed-up in layers", "Wall time", "Lost, won", "Evidence")  # fmt: skip
NOTES = (
    "Each trained model under the exit rule whose operating point does best on the rows that chose it; the rows "
    "reported chose nothing, unless a flag says so.",
    f"It pays: faster than {times(WORTH)} by the clock, or in layers where it was not timed; at most "
    f"{number(100 * BEARABLE)} points below all layers of the same model in the median; and not behind them on every "
    f"seed (with one seed: by the sign test over the rows lost and won, p below {SURE:g}). It costs: faster, and worse "
    "than that.",
    f"Too few rows to tell: it would cost, but on no seed does the sign test tell the rows lost from those won, and in "
    f"the median over seeds fewer than {FEWEST} rows are lost, less those won; the test needs {FEWEST}. Of a "
    "regression, no row is lost or won, and its seeds alone decide.",
    f"Not settled by the clock: the speed-up of some repeats is below {times(WORTH)} and that of others above. The "
    "range is that of the repeats, in each of which all layers and the exit rule ran side by side; from six repeats on "
    "without the extremes, so that more of them settle it. The timed model is the first seed's.",
    "Learned nothing: on more than half of the seeds all layers score no better than one answer for every row, or do "
    f"not depend on the labels (chi-squared test, for a regression Pearson's; p from {INDEPENDENT:g} on). On fewer "
    "seeds, the others alone say what is lost. One answer: the score of the class that does best as the answer to "
    "every row.",
    "Lost: rows with a wrong early answer where the last exit is right; won: the reverse. Wall time: measured, one row "
    "at a time.",
    "In MLflow, tags.keys holds the keys that a row is traced back to, in the run of each row; the model that the rows "
    "which chose prefer is registered as early-exit.TASK, with the alias selected unless it has learned nothing.",
)
COLOURS = {"pays": GREEN, "costs": ORANGE}
"""Of the answers that are one; the others are grey."""
TONES = {"pays": "ahead", "costs": "behind", "learned nothing": "behind"}
MARKERS = "osD^vP*X"
ALONE = {
    "pays": "Yes.",
    "costs": "At a price.",
    "too few rows to tell": "Too few rows to tell.",
    "not settled by the clock": "Not settled: repeats of the timing disagree.",
    "gains nothing": "No.",
    "learned nothing": "No answer: the model has learned nothing.",
}
WORDS = {
    "pays": "it pays on {}",
    "costs": "it costs score on {}",
    "too few rows to tell": "too few rows to tell on {}",
    "not settled by the clock": "not settled by the clock on {}",
    "gains nothing": "it gains nothing on {}",
    "learned nothing": "no answer on {}, where the model has learned nothing",
}


class DoesItPay(Section):
    """What an engineer asks first."""

    slug = "answer"
    title = "Does early exit pay here?"

    def answer(self, stored: Stored) -> str:
        """The answer in a sentence."""
        best = best_of(deals(stored.tasks))
        if not best:
            return "Unknown: nothing here leaves early."
        generated = all(deal.task.demo for deal in best)
        return _in_short(best) + (" (Generated data: it shows that the pipeline works, no more.)" if generated else "")

    def findings(self, stored: Stored) -> Sequence[Finding]:
        return [Finding(deal.task.heading(deal.row.split), _sentence(deal)) for deal in best_of(deals(stored.tasks))]

    def plots(self, stored: Stored) -> Sequence[Plot]:
        every = deals(stored.tasks)
        return [
            Plot(
                "answer",
                "What it gains and what it costs",
                "A marker per trained model under its exit rule. To the right: fewer layers run. Above the line: a "
                "better score than with all layers; below: worse. Bars: the range over seeds. Green pays, orange "
                "costs score, grey gains nothing or has no answer.",
                (_panel(every),) if every else (),
            )
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        rows = tuple(_row(deal, stored.trials) for deal in deals(stored.tasks))
        return [Table(self.slug, self.title, COLUMNS, rows, NOTES, names=4)]


def _in_short(best: Sequence[Deal]) -> str:
    if len(best) == 1:
        some = _partly(best[0])
        if some and best[0].learned.nothing:
            return f"No answer: {some}."
        return ALONE[best[0].answer] + (f" But {some}." if some else "")
    by_answer: dict[str, list[str]] = {}
    for deal in best:
        some, name = _partly(deal), deal.task.heading(deal.row.split)
        by_answer.setdefault(deal.answer, []).append(f"{name} ({some})" if some else name)
    parts = [words.format(listed(by_answer[answer])) for answer, words in WORDS.items() if answer in by_answer]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _partly(deal: Deal) -> str:
    """That some seeds have learned nothing, where others have."""
    return unlearned(deal.learned) if deal.learned.ignorant < len(deal.learned.by_seed) else ""


def _sentence(deal: Deal) -> str:
    row, task = deal.row, deal.task
    parts = [
        f"{model_name(row.backbone, row.method)}, {row.criterion} "
        f"({setting(row.points, regression=task.regression)}) scores {number(points(row.score.centre))} at "
        f"{times(row.layer_speedup.centre)} in layers, all layers {number(points(deal.full.score.centre))} "
        f"(difference {_gap(deal)})"
    ]
    if deal.constant is not None:
        parts.append(f"one answer for every row: {number(points(deal.constant))}")
    if deal.lost is not None and deal.won is not None:
        parts.append(f"{number(points(deal.lost))}% of rows lose a right answer, {number(points(deal.won))}% win one")
    if deal.clock is not None:
        parts.append(f"by the clock, one row at a time, {times(deal.clock.speedup)} ({deal.clock.beside})")
    parts.append(_evidence(deal))
    return " ".join(["; ".join(parts) + ".", *remarks(deal)])


def _gap(deal: Deal) -> str:
    gap = deal.gap
    if gap.centre is None:
        return number(None)
    text = signed(100 * gap.centre)
    return (
        text if gap.low is None or gap.high is None else f"{text} [{signed(100 * gap.low)}, {signed(100 * gap.high)}]"
    )


def _evidence(deal: Deal) -> str:
    seeds = len(deal.row.seeds)
    text = f"{seeds} seed{'s' * (seeds != 1)}, {deal.models[0].rows:,} rows"
    return text + (f", p = {deal.changes[0].p:.2g}" if len(deal.changes) == 1 else "")


def _row(deal: Deal, trials: Mapping[str, TrialRecord]) -> TableRow:
    row, task = deal.row, deal.task
    lost = number(None)
    if deal.lost is not None and deal.won is not None:
        lost = f"{signed(-100 * deal.lost)}, {signed(100 * deal.won)}"
    clock = Cell("not timed")
    if deal.clock is not None:
        clock = Cell(times(deal.clock.speedup), f"{deal.clock.spread}\n{deal.clock.model}".strip())
    flags = tuple(flag for flag in flags_of(task, row) if flag != deal.answer)
    cells = (
        Cell(task.heading(row.split)),
        Cell(model_name(row.backbone, row.method)),
        Cell(row.criterion or "", setting(row.points, regression=task.regression), link=row_id(task, row)),
        Cell(deal.answer, flags=flags, tone=TONES.get(deal.answer, "")),
        Cell(number(points(row.score.centre))),
        Cell(number(points(deal.full.score.centre))),
        Cell(number(points(deal.constant))),
        Cell(_gap(deal)),
        Cell(times(row.layer_speedup.centre)),
        clock,
        Cell(lost),
        Cell(_evidence(deal)),
    )
    return TableRow(cells, runs_of(row.keys, trials, row.seeds))


def _panel(every: Sequence[Deal]) -> Panel:
    alt = "Score minus that of all layers against layer speed-up: " + "; ".join(map(_spoken, every)) + "."
    with canvas("answer", alt, 3.3, width=5.4) as drawing:
        axes = drawing.axes[0]
        axes.axhline(0, color=INK, lw=1)
        axes.axvspan(0.5, 1.05, color=BAND, lw=0)
        markers = dict(zip(dict.fromkeys(deal.task.name for deal in every), cycle(MARKERS), strict=False))
        furthest = 1.5
        for deal in every:
            gap, speed = deal.gap, deal.row.layer_speedup
            if gap.centre is None or speed.centre is None:
                continue
            furthest = max(furthest, speed.high or speed.centre)
            colour = COLOURS.get(deal.answer, MUTED)
            x, y = speed.centre, 100 * gap.centre
            if gap.low is not None and gap.high is not None and speed.low is not None and speed.high is not None:
                axes.plot([x, x], [100 * gap.low, 100 * gap.high], color=colour, lw=1.4, alpha=0.6)
                axes.plot([speed.low, speed.high], [y, y], color=colour, lw=1.4, alpha=0.6)
            axes.plot([x], [y], markers[deal.task.name], color=colour, markersize=8, markeredgecolor=INK)
            drawing.spot(axes, x, y, _spoken(deal), row_id(deal.task, deal.row))
        for task, marker in markers.items():
            axes.plot([], [], marker, color=BLUE, label=task, linestyle="none")
        speed_axis(axes, furthest)
        axes.margins(y=0.15)
        axes.set(xlabel="speed-up (layers in all / layers run)", ylabel="score minus all layers (points)")
        return drawing.finish("", columns=3)


def _spoken(deal: Deal) -> str:
    task, row = deal.task, deal.row
    return f"{task.heading(row.split)}, {spoken(task, row)}, {_gap(deal)} against all layers"
