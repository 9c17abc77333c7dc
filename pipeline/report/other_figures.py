"""The verdicts at a glance, Figure 5, and measured latency."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from pipeline.report.cells import model_name, slug
from pipeline.report.numbers import TIMES
from pipeline.report.stored import Latency, Simulation
from pipeline.report.svg import BAND, INK, MUTED, Panel, Plot, canvas, look
from pipeline.report.verdicts import Verdict


def verdict_figure(found: Sequence[Verdict], names: Mapping[tuple[str, str], str]) -> Plot:
    """Patience minus each rival: a dot and the range over seeds."""
    panels = []
    for _, group in groupby(found, key=lambda v: id(v.champion)):
        mine = list(group)
        me = mine[0].champion
        key = (me.task, me.split, me.backbone, me.method)
        panels.append(_verdict_panel(f"{names[key[:2]]}: {model_name(*key[2:])}", mine, slug("verdict", *key)))
    return Plot(
        "verdict",
        "Patience against each rival, at their operating points",
        "Right of the line patience is ahead. The dot is the median of the paired differences, the bar their range "
        "over seeds; a bar that crosses the line decides nothing.",
        tuple(panels),
    )


def _verdict_panel(title: str, found: Sequence[Verdict], name: str) -> Panel:
    rivals = tuple(v.rival for v in found)
    with canvas(name, f"Patience minus {', '.join(rivals)} on {title}.", 0.95 + 0.28 * len(found)) as drawn:
        axes = drawn.axes[0]
        axes.axvline(0, color=INK, lw=1)
        reach = 0.1
        for place, v in enumerate(found):
            gap, style = v.own_points, look(v.rival, rivals)
            if gap.centre is None:
                continue
            ends = [100 * (gap.centre if end is None else end) for end in (gap.low, gap.high)]
            axes.plot(ends, [place, place], color=style.colour, lw=3, alpha=0.5, solid_capstyle="butt")
            axes.plot([100 * gap.centre], [place], style.marker, color=style.colour, markersize=7)
            reach = max(reach, *(abs(end) for end in ends))
        axes.set_yticks(range(len(found)), rivals)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(-1.15 * reach, 1.15 * reach)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="patience minus rival (points)")
        return drawn.finish(title)


def figure_5(simulation: Simulation) -> Plot:
    """What each classifier needs so that patience reaches the original accuracy."""
    return Plot(
        "figure-5",
        "Figure 5: accuracy that each classifier needs under patience",
        f"{simulation.n_layers} independent classifiers of equal accuracy. a: the accuracy that each of them needs so "
        "that patience t reaches the original accuracy (exact; below the diagonal patience helps). b: how much less "
        "that is.",
        (_required_panel(simulation), _reduction_panel(simulation)) if simulation.rows else (),
    )


def _required_panel(simulation: Simulation) -> Panel:
    import matplotlib

    patiences = sorted({row["t"] for row in simulation.rows})
    shades = matplotlib.colormaps["cividis"].resampled(len(patiences) + 1)
    with canvas(
        "figure-5a", "Accuracy needed of each classifier against original accuracy, a line per patience.", 3.7
    ) as drawn:
        axes = drawn.axes[0]
        axes.plot([50, 100], [50, 100], color=MUTED, ls="--", lw=1.1, label="no early exit")
        for i, t in enumerate(patiences):
            rows = [row for row in simulation.rows if row["t"] == t]
            x = [100 * row["original_accuracy"] for row in rows]
            y = [100 * row["required_accuracy"] for row in rows]
            dash = ("-", "--", "-.")[i % 3]
            axes.plot(x, y, dash, color=shades(i), lw=1.4, label=f"t = {t:g}")
        axes.set(
            xlabel="original accuracy (%)",
            ylabel="accuracy needed of each (%)",
        )
        return drawn.finish("a. Accuracy needed", 4)


def _reduction_panel(simulation: Simulation) -> Panel:
    patiences = sorted({row["t"] for row in simulation.rows})
    targets = sorted({row["original_accuracy"] for row in simulation.rows})
    at = {(row["t"], row["original_accuracy"]): 100 * row["reduction"] for row in simulation.rows}
    field = np.array([[at.get((t, target), np.nan) for target in targets] for t in patiences])
    best = patiences[int(np.nanargmax(np.nanmean(field, axis=1)))]
    about = (
        f"Reduction of the needed accuracy by original accuracy and patience; on average largest at patience {best:g}."
    )
    with canvas("figure-5b", about, 3.7) as drawn:
        axes = drawn.axes[0]
        half = 50 * (targets[-1] - targets[0]) / max(1, len(targets) - 1)
        extent = (100 * targets[0] - half, 100 * targets[-1] + half, -0.5, len(patiences) - 0.5)
        image = axes.imshow(field, origin="lower", aspect="auto", extent=extent, cmap="cividis", interpolation="none")
        axes.set_yticks(range(len(patiences)), [f"{t:g}" for t in patiences])
        axes.grid(visible=False)
        bar = drawn.figure.colorbar(image, ax=axes, label="reduction (points)")
        if bar.solids is not None:
            bar.solids.set_rasterized(True)  # one small image instead of 256 shapes
        bar.outline.set_visible(False)
        axes.set(
            xlabel="original accuracy (%)",
            ylabel="patience t",
        )
        return drawn.finish("b. Reduction")


def latency_figure(results: Sequence[Latency]) -> Plot:
    """Measured speed-up against the layer ratio's promise."""
    return Plot(
        "latency",
        "Measured speed-up against what the layer ratio promises",
        "On the dashed line a saved layer is saved time; below it, asking the exits and small batches cost part of the "
        f"gain; below 1{TIMES} early exit is slower than the full pass. Full: one row at a time; hollow: batched.",
        tuple(_latency_panel(result) for result in results),
    )


def _latency_panel(result: Latency) -> Panel:
    rows = [row for row in result.rows if row.criterion]
    names = tuple(dict.fromkeys(row.criterion or "" for row in rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    name = slug("latency", result.task)
    with canvas(name, f"Measured speed-up against layer speed-up on {result.task}, {result.device}.", 2.9) as drawn:
        axes = drawn.axes[0]
        top = 1.08 * max([row.layer_speedup for row in rows] + [row.measured_speedup for row in rows] + [1.2])
        bottom = min([row.measured_speedup for row in rows] + [1.0]) - 0.08
        axes.plot([1, top], [1, top], color=MUTED, ls="--", lw=1.1, label="measured = layers")
        axes.axhspan(bottom, 1, color=BAND, lw=0)
        for row in rows:
            style = look(row.criterion or "", names)
            face = style.colour if row.mode == modes[0] else "none"
            several = len({(r.backbone, r.method) for r in rows}) > 1
            label = f"{row.criterion}, {row.mode}" + (f", {row.method}" if several else "")
            axes.plot(
                [row.layer_speedup],
                [row.measured_speedup],
                style.marker,
                color=style.colour,
                markerfacecolor=face,
                markersize=7,
                label=label,
            )
        axes.set(xlim=(0.97, top), ylim=(bottom, top))
        axes.set(xlabel="speed-up promised (layers)", ylabel="speed-up measured (time)")
        return drawn.finish(f"{result.task}: {result.device}", 2)
