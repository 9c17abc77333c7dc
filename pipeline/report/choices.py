"""How operating points were chosen, in words and in figures: each rule of pipeline/evaluation/choosing.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pipeline.report.numbers import number, points, times
from pipeline.report.stored import Evaluated, Result
from pipeline.report.svg import BAND, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSSES = {
    "gap": "wrong where the full model is right",
    "consistency": "answered otherwise than by the full model",
}


def aim(result: Evaluated) -> str:
    """What each exit rule's setting was chosen for."""
    choose = result.choose
    if choose["rule"] == "speedup":
        return f"the nearest speed-up at or above {times(choose['target'])} in layers"
    if choose["rule"] == "risk":
        beyond = f", by more than {choose['tolerance']:g}" if result.kind == "regression" else ""
        return (
            f"the most speed at which, with a probability of {number(points(1 - choose['delta']))}%, at most "
            f"{number(points(choose['epsilon']))}% of rows are lost ({_LOSSES[choose['loss'] or 'gap']}{beyond})"
        )
    low, high = result.window
    return f"the best score with a speed-up between {times(low)} and {times(high)} in layers"


def missed(row: Result) -> str:
    """The flag of a row whose rule's condition could not be met on some seed's selection rows; else nothing."""
    flags = {"window": "outside window", "speedup": "target not reached", "risk": "no early exit certified"}
    return "" if row.in_window else flags[row.rule]


def explained(rule: str) -> str:
    """What a row did whose rule's condition could not be met, after "1 row lies" or "n rows lie"."""
    return {
        "window": "outside the speed-up window on some seed: nothing inside it existed, the nearest setting was taken",
        "speedup": "below the target speed-up on some seed: no setting reached it, the fastest was taken",
        "risk": "at all layers on some seed: no early exit could be certified",
    }[rule]


def marked(results: Sequence[Evaluated]) -> str:
    """How `mark` shows the rule, for a figure's caption."""
    rules = dict.fromkeys(result.choose["rule"] for result in results) or {"window": None}
    said = {
        "window": "chosen inside the shaded window",
        "speedup": "chosen at or above the speed-up of the grey line",
        "risk": "chosen so that the risk of losing rows is bounded",
    }
    return ", or ".join(said[rule] for rule in rules)


def mark(axes: "Axes", result: Evaluated, axis: Literal["x", "y"], *, label: bool = False) -> None:
    """Shade the window, or draw a line at the target speed-up, on the axis of layer speed-ups."""
    if result.choose["rule"] == "window":
        low, high = result.window
        said = f"window {times(low)} to {times(high)}" if label else ""
        (axes.axvspan if axis == "x" else axes.axhspan)(low, high, color=BAND, lw=0, label=said)
    elif result.choose["rule"] == "speedup":
        target = result.choose["target"]
        said = f"target {times(target)}" if label else ""
        (axes.axvline if axis == "x" else axes.axhline)(target, color=MUTED, lw=0.8, label=said)
