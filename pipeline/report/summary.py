"""The top of the page in plain words: what was run, what it shows, and what to beware of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.report import paper
from pipeline.report.cells import model_name
from pipeline.report.choices import aim, explained, missed
from pipeline.report.numbers import number, points, times
from pipeline.report.stored import Attack, Defence, Evaluated, Interval, Result, Stored
from pipeline.report.verdicts import ALL_LAYERS, SINGLE, Verdict, word
from pipeline.theory import EXAMPLE, promised_from


@dataclass(frozen=True)
class Finding:
    """One finding: what it is about, and the sentence."""

    about: str
    text: str


def what_was_run(stored: Stored) -> list[str]:
    """Tasks, models, seeds, and how operating points were chosen."""
    groups = [group for task in stored.tasks for group in task.groups]
    names = [f"{t.name} ({t.kind}{', generated data' if t.name in stored.demo else ''})" for t in stored.tasks]
    backbones = dict.fromkeys(f"{g.backbone} ({g.layers} layers)" for g in groups)
    methods = dict.fromkeys(g.method.replace("_", " ") for g in groups)
    trials, failed = sum(len(g.trials) for g in groups), sum(len(g.failed) for g in groups)
    lines = [
        f"Tasks: {_listed(names)}. Backbone: {_listed(backbones)}. Training: {_listed(methods)}. "
        f"{trials} selected models stand behind the rows, {len(stored.trained)} trials were run"
        + (f", {failed} failed." if failed else ", none failed."),
    ]
    for task in stored.tasks[:1]:
        where = (
            "on selection rows taken from the training split; the rows reported chose nothing"
            if task.protocol == "holdout"
            else "on the rows of the first report split, as the paper did, so scores there are flattered; rows say so"
        )
        lines.append(
            f"Each exit rule's setting was chosen, seed by seed, for {aim(task)} (the paper: best score, "
            f"{times(1.30)} to {times(1.96)}), {where}."
        )
    extra = []
    if stored.cifar.rows:
        extra.append(f"images ({_listed(dict.fromkeys(row.task for row in stored.cifar.rows))})")
    extra += [f"wall time on {result.task}" for result in stored.latency]
    extra += [
        f"{attack.recipe}{' against the speed' if attack.goal == 'slow_down' else ''} on {attack.task}"
        for attack in stored.attacks
    ]
    lines.append(f"Also: {_listed([*extra, 'Appendix C and Theorem 1'])}.")
    return lines


def cautions(stored: Stored, found: Sequence[Verdict]) -> list[str]:
    """What limits the findings."""
    lines = []
    if stored.demo.issuperset(task.name for task in stored.tasks):
        lines.append(
            "This is the demo: small models from random weights on generated data. It shows that the pipeline works "
            "from end to end; it says nothing for or against the paper's claims."
        )
    coverage = [v.own_points.coverage for v in found if v.own_points.coverage is not None]
    if coverage and min(coverage) < 0.9:
        lines.append(
            f"The range of so few seeds holds the true median with a probability of only {min(coverage):.0%} (five "
            "seeds: 94%): “ahead” and “behind” are weak evidence here."
        )
    if found and not coverage:
        lines.append("One seed: there are no intervals, and no verdict is more than an observation.")
    outside = Counter(row.rule for result in (*stored.tasks, stored.cifar) for row in result.rows if not row.in_window)
    for rule, count in outside.items():
        lines.append(f"{_rows(count)} {explained(rule)}. They are marked and are not a fair comparison.")
    return lines


def findings(stored: Stored, found: Sequence[Verdict], names: Mapping[tuple[str, str], str]) -> list[Finding]:
    """A tally, a few sentences per task, and one for each of the other parts.

    Args:
        names: task and split to the name shown.
    """
    tasks = [_task_finding(list(mine), names) for _, mine in groupby(found, key=lambda v: id(v.champion))]
    return [*_tally(found), *tasks, *_against_paper(stored), *_latency(stored), *_attacks(stored), *_theorem(stored)]


def _tally(found: Sequence[Verdict]) -> list[Finding]:
    """How often patience is told apart from the other exit rules, over all tasks."""
    rules = [v for v in found if v.theirs.criterion]
    if not rules:
        return []
    own = Counter(word(v.own_points) for v in rules)
    equal = Counter(word(v.same_speed) for v in rules if v.same_speed is not None)
    text = (
        f"Patience was compared {len(rules)} times with another exit rule on the same trained models. Each at its own "
        f"operating point: {_counted(own)}. At equal speed: {_counted(equal)}. “Ahead” and “behind” mean on every seed."
    )
    return [Finding("In short", text)]


def _counted(words: Counter[str]) -> str:
    return _listed([f"{count} {said}" for said, count in sorted(words.items())])


def _task_finding(found: Sequence[Verdict], names: Mapping[tuple[str, str], str]) -> Finding:
    me = found[0].champion
    text = f"Patience scores {number(points(me.score.centre))} at {times(me.layer_speedup.centre)}"
    text += f", {missed(me)}. " if not me.in_window else ". "
    own: dict[str, list[str]] = {}
    equal: dict[str, list[str]] = {}
    for v in found:
        own.setdefault(word(v.own_points), []).append(_rival(v))
        if v.same_speed is not None:
            equal.setdefault(word(v.same_speed), []).append(v.rival)
    parts = [f"{_joined(said)} {_listed(rivals)}" for said, rivals in own.items()]
    text += f"It is {'; '.join(parts)}."
    if equal:
        parts = [f"{_joined(said)} {_listed(rivals)}" for said, rivals in equal.items()]
        text += f" At equal speed it is {'; '.join(parts)}."
    return Finding(f"{names[me.task, me.split]}: {model_name(me.backbone, me.method)}", text)


def _rival(v: Verdict) -> str:
    """A rival with its score, and the speed where it has one."""
    score = number(points(v.theirs.score.centre))
    if v.rival == ALL_LAYERS:
        return f"all layers of the same model ({score})"
    if v.rival == SINGLE:
        return f"the plainly trained model ({score})"
    if not v.theirs.criterion:
        return f"the model made smaller by {v.rival} ({score} at {times(v.theirs.layer_speedup.centre)})"
    outside = "" if v.theirs.in_window else f", {missed(v.theirs)}"
    return f"{v.rival} ({score} at {times(v.theirs.layer_speedup.centre)}{outside})"


def _joined(said: str) -> str:
    """A verdict as it stands before a rival.

    >>> _joined("not told apart"), _joined("equal"), _joined("ahead (one seed)")
    ('not told apart from', 'equal to', 'ahead, on one seed, of')
    """
    base, _, one = said.partition(" (")
    after = {"ahead": "of", "behind": "", "equal": "to", "not told apart": "from", "n/a": "against"}[base]
    return f"{base}{', on one seed,' if one else ''} {after}".strip()


def _against_paper(stored: Stored) -> list[Finding]:
    """How many of our rows that have a counterpart hold the paper's figure in their range."""
    pairs = [
        (row, theirs.value)
        for task in stored.tasks
        for row in task.rows
        if (theirs := _beside(task, row)).value is not None and row.score.low is not None  # one seed has no range
    ]
    if not pairs:
        return []
    inside = sum(_holds(row.score, value) for row, value in pairs if value is not None)
    text = f"{len(pairs)} rows with a range over seeds have a figure in the paper; {inside} of them hold it within."
    cut = [name for name in stored.cut if any(row.task == name for row, _ in pairs)]
    if cut:
        text += f" {_listed(cut)}: trained on a part of the rows only, so not like for like."
    return [Finding("The paper's figures", text)]


def _beside(task: Evaluated, row: Result) -> paper.Beside:
    return paper.beside(task.name, row.backbone, task.group(row).layers, (row.method, row.criterion))


def _holds(interval: Interval, value: float) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return round(100 * interval.low, 1) <= value <= round(100 * interval.high, 1)


def _latency(stored: Stored) -> list[Finding]:
    out = []
    for result in stored.latency:
        rows = [row for row in result.rows if row.criterion == "patience"]
        if rows:
            parts = [
                f"{times(row.measured_speedup)} ({row.method}, {row.mode}; layers promise {times(row.layer_speedup)})"
                for row in rows
            ]
            text = f"Patience runs at {_listed(parts)} the speed of the full pass, measured on {result.device}."
            out.append(Finding(f"Wall time, {result.task}", text))
    return out


def _attacks(stored: Stored) -> list[Finding]:
    return [
        Finding(f"Robustness, {attack.task}", _slowed(attack) if attack.goal == "slow_down" else _misled(attack))
        for attack in stored.attacks
    ]


def _misled(attack: Attack) -> str:
    parts, astray = [], []
    for row in attack.rows:
        before, after = row.figures["original_accuracy"], row.figures["after_attack_accuracy"]
        name = _defence(row)
        pooled = number(points(row.figures["pooled_accuracy"].centre))
        parts.append(
            f"{name} falls from {number(points(before.centre))} to {number(points(after.centre))} "
            f"({pooled} on all texts found)"
        )
        if _above(after, row.figures["pooled_accuracy"]):
            astray.append(name)
    close = _told_apart(attack)
    if astray:
        close += f" What {_listed(astray)} gained by misleading the search goes on texts found against others."
    return f"Under {attack.recipe} ({attack.examples} examples) {_listed(parts)}.{close}"


def _slowed(attack: Attack) -> str:
    """A row of which no example was attacked had no layers left to lose."""
    parts = [
        f"{_defence(row)} goes from {number(row.figures['layers_before'].centre)} "
        f"layers to {number(row.figures['layers_after'].centre)} "
        f"({number(points(row.figures['attack_success_rate'].centre))}% of the attacks reach the last)"
        for row in attack.rows
        if row.figures["attack_success_rate"].centre is not None
    ]
    return f"Under {attack.recipe} against the speed, answers unchanged ({attack.examples} examples), {_listed(parts)}."


def _above(one: Interval, other: Interval) -> bool:
    return one.low is not None and other.high is not None and one.low > other.high


def _told_apart(attack: Attack) -> str:
    """Which rows differ from the first on the same examples; 5% for all comparisons together (Bonferroni)."""
    tested = {_defence(row): row.against_first.p_value for row in attack.rows if row.against_first is not None}
    if not tested:
        return ""
    apart = [name for name, p in tested.items() if p * len(tested) < 0.05]
    verdict = f"{_listed(apart)} {'is' if len(apart) == 1 else 'are'}" if apart else "none is"
    return f" On the same examples {verdict} told apart from {_defence(attack.rows[0])} (McNemar's exact test)."


def _defence(row: Defence) -> str:
    return row.criterion or row.method.replace("_", " ")


def _theorem(stored: Stored) -> list[Finding]:
    rows = stored.simulation.theorem
    if not rows:
        return []
    wrong = [row["name"] for row in rows if row["false_claims"]]
    example = [row for row in stored.simulation.example if row["exact_accuracy"] > 0.9 + 1e-9]
    false = f"{_listed(wrong)} promised gains that are not there" if wrong else "none promised a gain that is not there"
    text = f"Of its three printed bounds {false}, on the grid of cases tried. "
    if example:
        patiences = [row["t"] for row in example]
        span = f"t = {min(patiences):g} to {max(patiences):g}"
        start = promised_from(stored.simulation.n_layers, *EXAMPLE)
        bound = "for none" if start is None else f"from t = {start} only"
        text += f"In the paper's example patience helps for {span}; the paper's bound promises it {bound}."
    return [Finding("Theorem 1", text)]


def _rows(n: int) -> str:
    return "1 row lies" if n == 1 else f"{n} rows lie"


def _listed(items: Sequence[str] | dict[str, None]) -> str:
    words = list(items)
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else "none"
