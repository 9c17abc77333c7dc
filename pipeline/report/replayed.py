"""One figure of several criteria over one trace, as the command `replay --compare` draws it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.evaluation.sweep import Sweep
from pipeline.report.lines import criterion_lines, speed_axis
from pipeline.report.svg import MUTED, canvas
from pipeline.results import Curve, CurvePoint
from pipeline.storage import whole_file, write_text

KINDS = (".svg", ".png")
DOTS_PER_INCH = 200


def draw(sweeps: Mapping[str, Sweep], metrics: tuple[str, ...], title: str, out: Path) -> Path:
    """Draw score against layer speed-up of each criterion, and the full model's score, into a .svg or .png file."""
    curves = [_curve(name, swept, metrics) for name, swept in sweeps.items()]
    names = tuple(sweeps)
    with canvas("compare", f"Score against layer speed-up on {title}, for {', '.join(names)}.") as drawing:
        axes = drawing.axes[0]
        full = next(iter(sweeps.values())).metrics(metrics)["score"][-1]
        if np.isfinite(full):
            axes.axhline(100 * float(full), color=MUTED, ls="--", lw=1.1, label="all layers")
        for curve in curves:
            if curve.points:
                criterion_lines(axes, [curve], curve.criterion, names)
        speed_axis(axes, max((point.layer_speedup for curve in curves for point in curve.points), default=1.0))
        measure = " and ".join(metrics)
        axes.set(xlabel="speed-up (layers in all / layers run)", ylabel=f"{measure} (points)")
        panel = drawing.finish(title)
        if out.suffix == ".svg":
            return write_text(out, panel.file())
        with whole_file(out) as partial:
            drawing.figure.savefig(partial, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    return out


def _curve(criterion: str, swept: Sweep, metrics: tuple[str, ...]) -> Curve:
    """Settings with a defined score, of no model in particular."""
    identity = ("", "", criterion, 0, "")
    table = (swept.thresholds, swept.metrics(metrics)["score"], swept.layer_speedup, swept.flop_speedup)
    points = (CurvePoint(*identity, *(float(value) for value in row)) for row in zip(*table, strict=True))
    return Curve(*identity, tuple(point for point in points if not np.isnan(point.score)))
