"""Does early exit pay here? One sentence, one picture, and a row per trained model."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from pipeline.evaluation.diagnosis import INDEPENDENT
from pipeline.report.cells import Cell, Table, TableRow, flags_of, model_name, row_id, runs_of, spoken
from pipeline.report.lines import speed_axis
from pipeline.report.numbers import listed, number, points, setting, signed, times
from pipeline.report.paying import BEARABLE, SURE, WORTH, Deal, best_of, deals
from pipeline.report.sections.base import Finding, Section
from pipeline.report.stored import Stored
from pipeline.report.svg import BAND, BLUE, GREEN, INK, MUTED, ORANGE, Panel, Plot, canvas
from pipeline.results import TrialRecord

COLUMNS = ("Task", "Model", "Exit rule", "Answer", "Score", "All layers", "Difference", "Speed-up in layers",
           "Wall time", "Lost, won", "Evidence")  # fmt: skip
NOTES = (
    "Each trained model under the exit rule whose operating point does best on the rows that chose it; the rows "
    "reported chose nothing, unless a flag says so.",
    f"It pays: faster than {times(WORTH)} by the clock, or in layers where it was not timed; at most "
    f"{number(100 * BEARABLE)} points below all layers of the same model in the median; and not behind them on every "
    f"seed (with one seed: by the sign test over the rows lost and won, p below {SURE:g}). It costs: faster, and worse "
    "than that. No answer where the model has learned nothing: all layers score no better than one answer for every "
    f"row, or do not depend on the labels (chi-squared test, for a regression Pearson's; p from {INDEPENDENT:g} on).",
    "Lost: rows with a wrong early answer where the last exit is right; won: the reverse. Wall time: measured, one row "
    "at a time.",
    "In MLflow, tags.keys holds the keys that a row is traced back to, in the run of each row; the model that the rows "
    "which chose prefer is registered for its task as early-exit. and the task's name, with the alias selected.",
)
COLOURS = {"pays": GREEN, "costs": ORANGE, "gains nothing": MUTED, "learned nothing": MUTED}
TONES = {"pays": "ahead", "costs": "behind", "learned nothing": "behind"}
MARKERS = "osD^vP*X"
ALONE = {
    "pays": "Yes.",
    "costs": "At a price.",
    "gains nothing": "No.",
    "learned nothing": "No answer: the model has learned nothing, so every exit is as good as the last.",
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
                "costs score, grey gains nothing or has learned nothing.",
                (_panel(every),) if every else (),
            )
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        rows = tuple(_row(deal, stored.trials) for deal in deals(stored.tasks))
        return [Table(self.slug, self.title, COLUMNS, rows, NOTES, names=4)]


def _in_short(best: Sequence[Deal]) -> str:
    by_answer: dict[str, list[str]] = {}
    for deal in best:
        by_answer.setdefault(deal.answer, []).append(deal.task.heading(deal.row.split))
    if len(best) == 1:
        return ALONE[best[0].answer]
    words = {
        "pays": "It pays on {}",
        "costs": "it costs score on {}",
        "gains nothing": "it gains nothing on {}",
        "learned nothing": "no answer on {}, where the model has learned nothing",
    }
    parts = [words[answer].format(listed(by_answer[answer])) for answer in words if answer in by_answer]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _sentence(deal: Deal) -> str:
    row, task = deal.row, deal.task
    parts = [
        f"{model_name(row.backbone, row.method)}, {row.criterion} "
        f"({setting(row.points, regression=task.regression)}) scores {number(points(row.score.centre))} at "
        f"{times(row.layer_speedup.centre)} in layers, all layers {number(points(deal.full.score.centre))} "
        f"(difference {_gap(deal)})"
    ]
    if deal.lost is not None and deal.won is not None:
        parts.append(f"{number(points(deal.lost))}% of rows lose a right answer, {number(points(deal.won))}% win one")
    if deal.measured is not None:
        parts.append(f"by the clock, one row at a time, {times(deal.measured)}")
    parts.append(_evidence(deal))
    return "; ".join(parts) + "." + ("" if deal.learned else f" {_remedy(deal)}")


def _remedy(deal: Deal) -> str:
    """What stands against a model that has learned nothing, and what may help."""
    same = "one answer for every row has no correlation"
    if deal.constant is not None:
        same = f"one answer for every row scores {number(points(deal.constant))}"
    return (
        f"The model has learned nothing ({same}): more rows, more epochs, another learning rate or a pretrained "
        "backbone come before early exit."
    )


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
    rows = next((model.rows for model in deal.task.evaluated.diagnosis if model.key in deal.row.keys), None)
    text = f"{seeds} seed{'s' * (seeds != 1)}" + (f", {rows:,} rows" if rows else "")
    return text + (f", p = {deal.p:.2g}" if deal.p is not None else "")


def _row(deal: Deal, trials: Mapping[str, TrialRecord]) -> TableRow:
    row, task = deal.row, deal.task
    lost = number(None)
    if deal.lost is not None and deal.won is not None:
        lost = f"{signed(-100 * deal.lost)}, {signed(100 * deal.won)}"
    cells = (
        Cell(task.heading(row.split)),
        Cell(model_name(row.backbone, row.method)),
        Cell(row.criterion or "", setting(row.points, regression=task.regression), link=row_id(task, row)),
        Cell(deal.answer, flags=flags_of(row), tone=TONES.get(deal.answer, "")),
        Cell(number(points(row.score.centre))),
        Cell(number(points(deal.full.score.centre))),
        Cell(_gap(deal)),
        Cell(times(row.layer_speedup.centre)),
        Cell(times(deal.measured) if deal.measured is not None else "not timed"),
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
            colour = COLOURS[deal.answer]
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
