"""Measured wall time beside what the layer and FLOP ratios promise."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.cells import Cell, Table, TableRow, row_name, runs_of, slug
from pipeline.report.clock import Clock
from pipeline.report.numbers import TIMES, listed, number, points, setting, times
from pipeline.report.sections.base import Finding, Section
from pipeline.report.shipping import engine_of, roof_tables, shipping_tables, threads_of, what_to_ship
from pipeline.report.stored import Stored, TaskResults
from pipeline.report.svg import BAND, MUTED, Panel, Plot, canvas, look
from pipeline.results import LatencyRow, Measured, TrialRecord

COLUMNS = ("Task", "Model and exit rule", "Setting", "Engine", "Mode", "Threads", "Examples", "Score", "ms per example",
           "p50, ms", "p99, ms", "Rows per s", "Measured", "Own layer ratio", "Own FLOP ratio")  # fmt: skip


class Latency(Section):
    """What a saved layer is worth against the clock."""

    slug = "latency"
    title = "Latency"

    def not_run(self, stored: Stored) -> Sequence[str]:
        timed = list(_timed(stored))
        if not timed:
            return ["no task under latency.tasks in params.yaml; add one of those under tasks"]
        return [
            f"{task.name} has no model with early exits to time; add a method that trains them, such as joint, under "
            "methods in params.yaml"
            for task, measured in timed
            if not measured.rows
        ]

    def ran(self, stored: Stored) -> Sequence[str]:
        return [f"wall time on {task.name}" for task, measured in _timed(stored) if measured.rows]

    def findings(self, stored: Stored) -> Sequence[Finding]:
        return [
            Finding(f"Wall time, {task.name}", sentence)
            for task, measured in _timed(stored)
            if (sentence := _sentence(measured))
        ] + [
            Finding(f"What to ship, {task.name}", sentence)
            for task, measured in _timed(stored)
            if (sentence := what_to_ship(measured))
        ]

    def plots(self, stored: Stored) -> Sequence[Plot]:
        return [
            Plot(
                "latency",
                "Measured speed-up against what the layer ratio promises",
                "On the dashed line a saved layer is saved time; below it, asking the exits and small batches cost "
                f"part of the gain; below 1{TIMES} early exit is slower than the full pass. Full: one row at a time; "
                "hollow: batched.",
                tuple(
                    _panel(task.name, measured, engine)
                    for task, measured in _timed(stored)
                    for engine in dict.fromkeys(map(engine_of, measured.rows))
                ),
            )
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        timed = list(_timed(stored))
        rows = tuple(_row(task, row, measured, stored.trials) for task, measured in timed for row in measured.rows)
        devices = dict.fromkeys(f"{task.name}: {m.device}, {threads_of(*m.threads)} ({m.machine})" for task, m in timed)
        notes = (
            "Speed-ups under their three names, each against the same model run through all layers with one head in "
            "the same engine; the other tables' are against the plain model, which a smaller model was cut from.",
            "Score: of the timed model alone, with the thresholds of its engine, on the whole report split. p50, p99: "
            "of the time of a call, which answers a batch.",
            "Measured: of the median times, and the range over repeats, in each of which a setting's rows ran side by "
            "side; from six repeats on without the extremes.",
            f"Measured on {'; '.join(devices)}.",
            "The paper reports no wall times.",
        )
        return [
            Table(self.slug, self.title, COLUMNS, rows, notes, names=6),
            *shipping_tables(timed, stored.trials),
            *roof_tables(timed),
        ]


def _timed(stored: Stored) -> Iterator[tuple[TaskResults, Measured]]:
    for task in stored.tasks:
        if task.latency is not None:
            yield task, task.latency


def _sentence(measured: Measured) -> str:
    first = measured.rows[:1]
    rows = [
        row
        for row in measured.rows
        if row.point.criterion == "patience"
        and (engine_of(row), row.threads) == (engine_of(first[0]), first[0].threads)
    ]
    several = len({row.backbone for row in rows}) > 1
    parts = [
        f"{times(row.measured_speedup)} ({f'{row.backbone}, ' if several else ''}{row.method}, {row.mode}; layers "
        f"promise {times(row.own_layer_speedup)}{_range(row, measured)})"
        for row in rows
    ]
    return (
        f"Patience runs at {listed(parts)} the speed of the full pass, measured on {measured.device}." if rows else ""
    )


def _range(row: LatencyRow, measured: Measured) -> str:
    spread = Clock.of(row, measured.rows).spread
    return f"; {spread}" if spread else ""


def _row(task: TaskResults, row: LatencyRow, measured: Measured, trials: Mapping[str, TrialRecord]) -> TableRow:
    clock = Clock.of(row, measured.rows)
    cells = (
        Cell(task.name),
        Cell(row_name(row.method, row.point.criterion, multi_exit=True), row.backbone),
        Cell(setting([row.point], regression=task.regression)),
        Cell(engine_of(row)),
        Cell(row.mode.replace(" ", "\xa0")),
        Cell(str(row.threads)),
        Cell(f"{row.examples:,}"),
        Cell(number(points(row.score))),
        Cell(number(row.ms_per_example, 2)),
        Cell(number(row.p50_ms, 2)),
        Cell(number(row.p99_ms, 2)),
        Cell(number(row.rows_per_second)),
        Cell(times(row.measured_speedup), clock.spread if row.point.criterion else ""),
        *(Cell(times(ratio)) for ratio in (row.own_layer_speedup, row.own_flop_speedup)),
    )
    return TableRow(cells, runs_of([row.key], trials))


def _panel(task: str, measured: Measured, engine: str) -> Panel:
    own = [row for row in measured.rows if engine_of(row) == engine and row.threads == measured.rows[0].threads]
    rows = [row for row in own if row.point.criterion]
    names = tuple(dict.fromkeys(row.point.name for row in rows))
    first_mode = measured.rows[0].mode
    plain = (own[0].engine, own[0].precision) == ("pytorch", "float32")
    device = measured.device if plain else engine
    caption = f"Measured speed-up against layer speed-up on {task}, {device}."
    name = () if plain else (own[0].engine, own[0].precision)
    with canvas(slug("latency", task, *name), caption, 2.9) as drawing:
        axes = drawing.axes[0]
        top = 1.08 * max([row.own_layer_speedup for row in rows] + [row.measured_speedup for row in rows] + [1.2])
        bottom = min([row.measured_speedup for row in rows] + [1.0]) - 0.08
        axes.plot([1, top], [1, top], color=MUTED, ls="--", lw=1.1, label="measured = layers")
        axes.axhspan(bottom, 1, color=BAND, lw=0)
        several = len({(row.backbone, row.method) for row in rows}) > 1
        for row in rows:
            style = look(row.point.name, names)
            face = style.colour if row.mode == first_mode else "none"
            label = f"{row.point.name}, {row.mode}" + (f", {row.method}" if several else "")
            dot: dict[str, Any] = {"color": style.colour, "markerfacecolor": face, "markersize": 7, "label": label}
            axes.plot([row.own_layer_speedup], [row.measured_speedup], style.marker, **dot)
        axes.set(xlim=(0.97, top), ylim=(bottom, top))
        axes.set(xlabel="speed-up promised (layers)", ylabel="speed-up measured (time)")
        return drawing.finish(f"{task}: {device}", 2)
