"""How operating points were chosen, in words and in figures: each rule of pipeline/evaluation/choosing.py."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pipeline.report.numbers import listed, number, points, times
from pipeline.report.stored import TaskResults
from pipeline.report.svg import BAND, MUTED
from pipeline.results import Choosing, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FURTHEST = 100.0
"""Largest speed-up to which a figure's axis reaches for a window or a target."""
_LOSSES = {
    "gap": "wrong where the full model is right",
    "consistency": "answered otherwise than by the full model",
    "brier": "growth of the Brier score, halved",
    "brier_consistency": "distance of the distribution from the full model's, as of Brier scores, halved",
    "error": "growth of the error",
}
_BOUNDS = {
    "binomial": "exact binomial test",
    "betting": "bound of Waudby-Smith and Ramdas",
    "crc": "conformal risk control",
}


def aim(task: TaskResults) -> str:
    """What a task's thresholds were chosen for."""
    choosing = task.evaluated.choosing
    if choosing.rule == "speedup":
        return f"the nearest speed-up at or above {times(choosing.target)} in layers"
    if choosing.rule == "risk" and choosing.epsilon is not None:
        return _risk(choosing, task.regression, choosing.epsilon)
    if choosing.rule == "online":
        cost = 1.0 if choosing.cost is None else choosing.cost
        return f"what a bandit likes best without labels: the answer's probability less {cost:g} for all layers"
    if choosing.rule == "latency":
        return (
            f"the best score with an expected time of at most {choosing.budget_ms:g} ms a row, one at a time, by the "
            f"measured cost of each exit in {choosing.engine} on {choosing.machine}"
        )
    low, high = choosing.window
    return f"the best score with a speed-up between {times(low)} and {times(high)} in layers"


def _risk(choosing: Choosing, regression: bool, epsilon: float) -> str:
    beyond = f", by more than {choosing.tolerance:g}" if regression and choosing.tolerance else ""
    loss = choosing.loss or "gap"
    if loss == "error":
        beyond = f" in units of {choosing.tolerance:g}"
    sense = f"with a probability of {number(points(1 - choosing.delta))}%," if choosing.delta else "on average"
    bounded = f"at most {number(points(epsilon))}% of rows are lost ({_LOSSES[loss]}{beyond}"
    if loss in ("brier", "brier_consistency", "error"):
        bounded = f"the mean loss is at most {epsilon:g} ({_LOSSES[loss]}{beyond}"
    how = f"; {_BOUNDS[choosing.bound]}" if choosing.bound else ""
    return f"the most speed at which, {sense} {bounded}{how})"


def aims(tasks: Iterable[TaskResults]) -> str:
    """What the thresholds of several tasks were chosen for; names tasks only where they differ."""
    by_aim: dict[str, list[str]] = {}
    for task in tasks:
        by_aim.setdefault(aim(task), []).append(task.name)
    if len(by_aim) == 1:
        return next(iter(by_aim))
    return "; ".join(f"{wish} on {listed(names)}" for wish, names in by_aim.items())


def missed(row: Row) -> str:
    """The flag of a row whose rule's condition could not be met on some seed's selection rows; else nothing."""
    flags = {
        "window": "outside window",
        "speedup": "target not reached",
        "risk": "no early exit certified",
        "online": "",
        "latency": "over budget",
    }
    return "" if row.in_window else flags[row.rule]


def explained(rule: str) -> str:
    """What a row did whose rule's condition could not be met, after "1 row lies" or "n rows lie"."""
    return {
        "window": "outside the speed-up window on some seed: nothing inside it existed, the nearest setting was taken",
        "speedup": "below the target speed-up on some seed: no setting reached it, the fastest was taken",
        "risk": "at all layers on some seed: no early exit could be certified",
        "online": "where the bandit chose",
        "latency": "over the budget of milliseconds on some seed: no setting kept to it, the fastest was taken",
    }[rule]


def marked(tasks: Iterable[TaskResults]) -> str:
    """How `mark` shows the rule, for a figure's caption."""
    words = {
        "window": "chosen inside the shaded window",
        "speedup": "chosen at or above the speed-up of the grey line",
        "risk": "chosen so that the risk of losing rows is bounded",
        "online": "chosen by a bandit without labels",
        "latency": "chosen within a budget of milliseconds",
    }
    rules = dict.fromkeys(task.evaluated.choosing.rule for task in tasks)
    return ", or ".join(words[rule] for rule in rules)


def mark(axes: "Axes", choosing: Choosing, axis: Literal["x", "y"], *, label: bool = False) -> None:
    """Shade the window, or draw a line at the target speed-up, on the axis of layer speed-ups."""
    if choosing.rule == "window":
        low, high = (min(end, FURTHEST) for end in choosing.window)
        text = f"window {times(choosing.window[0])} to {times(choosing.window[1])}" if label else ""
        (axes.axvspan if axis == "x" else axes.axhspan)(low, high, color=BAND, lw=0, label=text)
    elif choosing.target is not None and choosing.target <= FURTHEST:
        text = f"target {times(choosing.target)}" if label else ""
        (axes.axvline if axis == "x" else axes.axhline)(choosing.target, color=MUTED, lw=0.8, label=text)
