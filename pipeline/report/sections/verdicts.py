"""Patience against each rival: a figure and a table of paired differences, and a few sentences per task."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from pipeline.evaluation.criteria import CRITERIA
from pipeline.report.cells import Cell, Table, TableRow, flags_of, model_name, runs_of, slug, unlearned
from pipeline.report.choices import missed
from pipeline.report.numbers import difference, listed, number, points, times
from pipeline.report.sections.base import Finding, Section, no_early_exit
from pipeline.report.stored import SINGLE_EXIT, Stored
from pipeline.report.svg import INK, Panel, Plot, canvas, look
from pipeline.report.verdicts import ALL_LAYERS, CHAMPION, SINGLE, Verdict, place, verdicts, word
from pipeline.results import TrialRecord

NOTES = (
    "Differences are patience minus rival in points, paired by seed, each rule at its own operating point: the median "
    "and the range over seeds. “Ahead” and “behind” mean on every seed; where the range holds 0 the two are not told "
    "apart.",
    "At equal speed: the rival's curve is read at patience's layer speed-up, seed by seed, on the reported rows.",
    "“All layers” is the same model without early exit; “single exit” is a model of its own, trained plainly; a "
    "training method's name is a model that it made smaller. A model that has learned nothing is not compared.",
)


class DoesPatienceWin(Section):
    """The question that the paper answers with yes."""

    slug = "verdicts"
    title = "Does patience win?"

    def not_run(self, stored: Stored) -> Sequence[str]:
        every = verdicts(stored.tasks)
        if not every and any(group.multi_exit for _, group in stored.groups):
            return ["no patience under evaluate.criteria in params.yaml, to compare with the others; add it"]
        if not every:
            return [no_early_exit(stored)]
        sentences = []
        if not any(v.rival.criterion for v in every):
            such = "such as confidence" if any(not v.task.regression for v in every) else _for_regressions()
            sentences.append(
                "no rival of patience that serves these tasks under evaluate.criteria in params.yaml; add one, " + such
            )
        if not any(group.method == SINGLE_EXIT for _, group in stored.groups):
            sentences.append(
                f"no plainly trained model to compare with; add {SINGLE_EXIT} under methods in params.yaml"
            )
        return sentences

    def findings(self, stored: Stored) -> Sequence[Finding]:
        every = verdicts(stored.tasks)
        return [*_tally(every), *(_of_champion(mine) for mine in _by_champion(every))]

    def plots(self, stored: Stored) -> Sequence[Plot]:
        panels = tuple(_panel(mine) for mine in _by_champion(verdicts(stored.tasks)))
        return [
            Plot(
                "verdict",
                "Patience against each rival, at their operating points",
                "Right of the line patience is ahead. The dot is the median of the paired differences, the bar their "
                "range over seeds; a bar that crosses the line decides nothing.",
                panels,
            )
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        every = verdicts(stored.tasks)
        rivals = list(dict.fromkeys(v.name for v in sorted(every, key=place)))
        rows = tuple(_row(mine, rivals, stored.trials) for mine in _by_champion(every))
        columns = ("Task", "Patience", *(f"Against {rival}" for rival in rivals))
        return [Table(self.slug, self.title, columns, rows, NOTES)]


def _for_regressions() -> str:
    """The rivals of patience that a regression can have, and the method whose models one needs."""
    rivals = [one for name, one in CRITERIA.items() if one.regression and one.causal and name != CHAMPION]
    rivals.sort(key=lambda one: one.recorded_by or "")
    names = (f"{one.name} with method {one.recorded_by}" if one.recorded_by else one.name for one in rivals)
    return f"such as {', or '.join(names)}"


def _by_champion(every: Iterable[Verdict]) -> list[list[Verdict]]:
    """The verdicts of each trained model on each split."""
    return [list(mine) for _, mine in groupby(every, key=lambda v: id(v.champion))]


def _panel(mine: Sequence[Verdict]) -> Panel:
    task, champion = mine[0].task, mine[0].champion
    title = f"{task.heading(champion.split)}: {model_name(champion.backbone, champion.method)}"
    name = slug("verdict", task.name, champion.split, champion.backbone, champion.method)
    rivals = tuple(v.name for v in mine)
    with canvas(name, f"Patience minus {', '.join(rivals)} on {title}.", 0.95 + 0.28 * len(mine)) as drawing:
        axes = drawing.axes[0]
        axes.axvline(0, color=INK, lw=1)
        reach = 0.1
        for height, v in enumerate(mine):
            gap, style = v.own_points, look(v.name, rivals)
            if gap.centre is None:
                continue
            ends = [100 * (gap.centre if end is None else end) for end in (gap.low, gap.high)]
            axes.plot(ends, [height, height], color=style.colour, lw=3, alpha=0.5, solid_capstyle="butt")
            axes.plot([100 * gap.centre], [height], style.marker, color=style.colour, markersize=7)
            reach = max(reach, *(abs(end) for end in ends))
        axes.set_yticks(range(len(mine)), rivals)
        axes.set_ylim(len(mine) - 0.4, -0.6)
        axes.set_xlim(-1.15 * reach, 1.15 * reach)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="patience minus rival (points)")
        return drawing.finish(title)


def _row(mine: Sequence[Verdict], rivals: Sequence[str], trials: Mapping[str, TrialRecord]) -> TableRow:
    by_rival = {v.name: v for v in mine}
    task, champion = mine[0].task, mine[0].champion
    cells = (
        Cell(task.heading(champion.split), model_name(champion.backbone, champion.method)),
        Cell(
            number(points(champion.score.centre)),
            f"at {times(champion.layer_speedup.centre)}",
            flags=flags_of(task, champion),
        ),
        *(_cell(by_rival[rival]) if rival in by_rival else Cell("—") for rival in rivals),
    )
    keys = dict.fromkeys(key for row in (champion, *(v.rival for v in mine)) for key in row.keys)
    return TableRow(cells, runs_of(keys, trials))


def _cell(v: Verdict) -> Cell:
    verdict = word(v.own_points) if v.compared else "not compared"
    lines = [difference(v.own_points, "not reached")]
    if v.name not in (ALL_LAYERS, SINGLE):
        lines.append(f"{number(points(v.rival.score.centre))} at {times(v.rival.layer_speedup.centre)}")
    if v.same_speed is not None:
        lines.append(f"at equal speed: {difference(v.same_speed, 'not reached')}")
    tone = verdict.split()[0] if verdict.split()[0] in ("ahead", "behind") else ""
    return Cell(verdict, "\n".join(lines), flags=flags_of(v.task, v.rival), tone=tone)


def _tally(every: Sequence[Verdict]) -> list[Finding]:
    """How often patience is told apart from the other criteria, over all tasks and models that have learned."""
    rules = [v for v in every if v.rival.criterion and v.compared]
    if not rules:
        return []
    own = Counter(word(v.own_points) for v in rules)
    equal = Counter(word(v.same_speed) for v in rules if v.same_speed is not None)
    text = (
        f"Patience was compared {len(rules)} times with another exit rule on the same trained models. Each at its own "
        f"operating point: {_counts(own)}. At equal speed: {_counts(equal)}. “Ahead” and “behind” mean on every seed."
    )
    return [Finding("In short", text)]


def _counts(words: Counter[str]) -> str:
    return listed(f"{count} {verdict}" for verdict, count in sorted(words.items()))


def _of_champion(mine: Sequence[Verdict]) -> Finding:
    task, champion = mine[0].task, mine[0].champion
    subject = f"{task.heading(champion.split)}: {model_name(champion.backbone, champion.method)}"
    text = f"Patience scores {number(points(champion.score.centre))} at {times(champion.layer_speedup.centre)}"
    text += f", {missed(champion)}. " if not champion.in_window else ". "
    learned = task.learned(champion)
    if learned.nothing:
        some = unlearned(learned) if learned.ignorant < len(learned.by_seed) else "the model has learned nothing"
        return Finding(subject, f"{text}It is not compared, since {some}.")
    if learned.ignorant:
        text += f"{unlearned(learned)}. "
    own: dict[str, list[str]] = {}
    equal: dict[str, list[str]] = {}
    for v in mine:
        if not v.compared:
            continue
        own.setdefault(word(v.own_points), []).append(_rival(v))
        if v.same_speed is not None:
            equal.setdefault(word(v.same_speed), []).append(v.name)
    text += f"It is {_grouped(own)}."
    if equal:
        text += f" At equal speed it is {_grouped(equal)}."
    if ignorant := [_rival(v) for v in mine if not v.compared]:
        text += f" It is not compared with what has learned nothing: {listed(ignorant)}."
    return Finding(subject, text)


def _grouped(rivals_by_word: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{_before_rival(verdict)} {listed(rivals)}" for verdict, rivals in rivals_by_word.items())


def _rival(v: Verdict) -> str:
    """A rival with its score, and the speed where it has one."""
    score = number(points(v.rival.score.centre))
    if v.name == ALL_LAYERS:
        return f"all layers of the same model ({score})"
    if v.name == SINGLE:
        return f"the plainly trained model ({score})"
    speed = times(v.rival.layer_speedup.centre)
    if not v.rival.criterion:
        return f"the model made smaller by {v.name} ({score} at {speed})"
    outside = "" if v.rival.in_window else f", {missed(v.rival)}"
    return f"{v.name} ({score} at {speed}{outside})"


def _before_rival(verdict: str) -> str:
    """A verdict as it stands before a rival.

    >>> _before_rival("not told apart"), _before_rival("equal"), _before_rival("ahead (one seed)")
    ('not told apart from', 'equal to', 'ahead, on one seed, of')
    """
    base, _, one = verdict.partition(" (")
    after = {"ahead": "of", "behind": "", "equal": "to", "not told apart": "from", "n/a": "against"}[base]
    return f"{base}{', on one seed,' if one else ''} {after}".strip()
