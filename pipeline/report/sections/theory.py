"""Theorem 1 and Appendix C: when patience helps, exact, simulated and as the paper's bounds promise it."""

from collections.abc import Sequence

import numpy as np

from pipeline.layout import HERE
from pipeline.report.cells import Cell, Table, TableRow
from pipeline.report.numbers import listed, number, signed, times
from pipeline.report.sections.base import Finding, Section
from pipeline.report.stored import Stored
from pipeline.report.svg import MUTED, Panel, Plot, canvas
from pipeline.results import Bound, ExamplePoint, Simulation
from pipeline.theory import EXAMPLE, promised_from, statement_bound

ORIGIN = HERE.simulation.as_posix()


class Theory(Section):
    """Figure 5, the three printed bounds, and the paper's example."""

    slug = "theory"
    title = "Theorem 1 and Appendix C"

    def not_run(self, stored: Stored) -> Sequence[str]:
        simulation = stored.simulation
        if not simulation.example:
            return ["no patience under simulate.patiences in params.yaml; add some, such as 1 to 11"]
        if not _bounds(simulation):
            last = simulation.layers - 2
            return [
                f"no patience from 1 to {last}, the theorem's own, under simulate.patiences in params.yaml; add one"
            ]
        return []

    def ran(self, stored: Stored) -> Sequence[str]:
        return ["Appendix C and Theorem 1"] if stored.simulation.example else []

    def findings(self, stored: Stored) -> Sequence[Finding]:
        bounds = _bounds(stored.simulation)
        return [Finding("Theorem 1", _sentences(stored.simulation, bounds))] if bounds else []

    def plots(self, stored: Stored) -> Sequence[Plot]:
        simulation = stored.simulation
        return [
            Plot(
                "figure-5",
                "Figure 5: accuracy that each classifier needs under patience",
                f"{simulation.layers} independent classifiers of equal accuracy. a: the accuracy that each of them "
                "needs so that patience t reaches the original accuracy (exact; below the diagonal patience helps). "
                "b: how much less that is.",
                (_required_panel(simulation), _reduction_panel(simulation)) if simulation.rows else (),
            )
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        return [_theorem(stored.simulation), _example(stored.simulation)]


def _bounds(simulation: Simulation) -> list[Bound]:
    """The bounds that were held against any case."""
    return [bound for bound in simulation.theorem if bound.cells]


def _sentences(simulation: Simulation, bounds: Sequence[Bound]) -> str:
    wrong = [bound.name for bound in bounds if bound.false_claims]
    false = f"{listed(wrong)} promised gains that are not there" if wrong else "none promised a gain that is not there"
    text = f"Of its three printed bounds {false}, on the grid of cases tried. "
    patiences = [point.t for point in simulation.example if point.exact_accuracy > 1 - EXAMPLE[1] + 1e-9]
    if patiences:
        span = f"t = {min(patiences)} to {max(patiences)}"
        start = promised_from(simulation.layers, *EXAMPLE)
        promise = "for none" if start is None else f"from t = {start} only"
        text += f"In the paper's example patience helps for {span}; the paper's bound promises it {promise}."
    return text


def _theorem(simulation: Simulation) -> Table:
    """What the theorem's three statements promise, and what the exact probability says."""
    rows = []
    for bound in _bounds(simulation):
        worst = bound.counterexample
        example = "none" if worst is None else f"t = {worst.t}, q = {worst.q:g}, p = {worst.p:g}"
        counts = (bound.cells, bound.claims, bound.true_claims, bound.false_claims, bound.missed)
        cells = (Cell(bound.name), *(Cell(f"{value:,}") for value in counts), Cell(example))
        rows.append(TableRow(cells, origin=ORIGIN))
    columns = ("Bound as printed in", "Cases", "Gains promised", "of these true", "of these false", "Gains missed",
               "Worst counterexample")  # fmt: skip
    notes = (
        "The theorem's statement, its proof's header and equation 11 give three different bounds. Each is held against "
        f"the exact accuracy of {simulation.layers} independent classifiers, over a grid of error rates q, p and "
        "patiences.",
    )
    return Table("theorem", "Theorem 1: three bounds against the exact probability", columns, tuple(rows), notes)


def _example(simulation: Simulation) -> Table:
    """The paper's own example: q = 0.2, p = 0.1."""
    n = simulation.layers
    rows = tuple(TableRow(_example_cells(point, n), origin=ORIGIN) for point in simulation.example)
    columns = ("Patience t", "Accuracy, exact", "Accuracy, simulated", "Gain", "Mean layers", "Layer ratio",
               "Statement's bound")  # fmt: skip
    notes = (
        f"{n} classifiers, every one with error rate q = 0.2 but the last with p = 0.1: without early exit 90 points. "
        f"Simulated with {simulation.samples:,} rows. The paper says: promised from t = 4 on (n = 12).",
    )
    return Table("example", "The paper's example of Theorem 1", columns, rows, notes)


def _example_cells(point: ExamplePoint, n: int) -> tuple[Cell, ...]:
    return (
        Cell(str(point.t)),
        Cell(number(100 * point.exact_accuracy, 2)),
        Cell(number(100 * point.simulated_accuracy, 2)),
        Cell(signed(100 * (point.exact_accuracy - (1 - EXAMPLE[1])), 2)),
        Cell(number(point.mean_layers, 2)),
        Cell(times(n / point.mean_layers)),
        Cell("promised" if statement_bound(n, point.t, *EXAMPLE) else "not promised"),
    )


def _required_panel(simulation: Simulation) -> Panel:
    import matplotlib

    patiences = sorted({row.t for row in simulation.rows})
    shades = matplotlib.colormaps["cividis"].resampled(len(patiences) + 1)
    caption = "Accuracy needed of each classifier against original accuracy, a line per patience."
    with canvas("figure-5a", caption, 3.7) as drawing:
        axes = drawing.axes[0]
        axes.plot([50, 100], [50, 100], color=MUTED, ls="--", lw=1.1, label="no early exit")
        for i, t in enumerate(patiences):
            rows = [row for row in simulation.rows if row.t == t]
            x = [100 * row.original_accuracy for row in rows]
            y = [100 * row.required_accuracy for row in rows]
            dash = ("-", "--", "-.")[i % 3]
            axes.plot(x, y, dash, color=shades(i), lw=1.4, label=f"t = {t}")
        axes.set(xlabel="original accuracy (%)", ylabel="accuracy needed of each (%)")
        return drawing.finish("a. Accuracy needed", 4)


def _reduction_panel(simulation: Simulation) -> Panel:
    patiences = sorted({row.t for row in simulation.rows})
    targets = sorted({row.original_accuracy for row in simulation.rows})
    at = {(row.t, row.original_accuracy): 100 * row.reduction for row in simulation.rows}
    field = np.array([[at.get((t, target), np.nan) for target in targets] for t in patiences])
    best = patiences[int(np.nanargmax(np.nanmean(field, axis=1)))]
    caption = (
        f"Reduction of the needed accuracy by original accuracy and patience; on average largest at patience {best}."
    )
    with canvas("figure-5b", caption, 3.7) as drawing:
        axes = drawing.axes[0]
        half = 50 * (targets[-1] - targets[0]) / max(1, len(targets) - 1)
        extent = (100 * targets[0] - half, 100 * targets[-1] + half, -0.5, len(patiences) - 0.5)
        image = axes.imshow(field, origin="lower", aspect="auto", extent=extent, cmap="cividis", interpolation="none")
        axes.set_yticks(range(len(patiences)), [f"{t}" for t in patiences])
        axes.grid(visible=False)
        bar = drawing.figure.colorbar(image, ax=axes, label="reduction (points)")
        if bar.solids is not None:
            bar.solids.set_rasterized(True)  # one small image instead of 256 shapes
        bar.outline.set_visible(False)
        axes.set(xlabel="original accuracy (%)", ylabel="patience t")
        return drawing.finish("b. Reduction")
