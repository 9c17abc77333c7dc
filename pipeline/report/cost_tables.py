"""Tables about cost: training (Table 3), latency, and the trained models themselves."""

import statistics
from collections.abc import Mapping, Sequence

from pipeline.report import paper
from pipeline.report.cells import Cell, Row, Table, rule_name, runs_of
from pipeline.report.numbers import count, duration, number, setting, times
from pipeline.report.stored import Group, Latency, Stored, Timed, Trained


def cost_table(stored: Stored) -> Table:
    """Table 3: parameters that exits add, and training time until the best checkpoint."""
    rows = [_cost_row(group, stored.trained) for task in stored.tasks for group in task.groups]
    columns = ("Task", "Backbone", "Method", "Parameters", "Added by exits", "Time to best", "Time in all",
               "Best epoch", "Paper: parameters", "Paper: time to best")  # fmt: skip
    notes = (
        "Medians over the selected trials; times are this machine's and are comparable within this table only. The "
        "paper's are minutes on one V100.",
        "A method that starts from another's model (two_stage) counts its own training only.",
    )
    return Table("cost", "Training cost (Table 3)", columns, tuple(rows), notes, names=3)


def _cost_row(group: Group, trained: Mapping[str, Trained]) -> Row:
    took = [trained[key] for _, key in group.trials if key in trained]
    theirs = paper.COST.get((group.backbone, group.method, group.task))
    if paper.LAYERS.get(group.backbone) != group.layers:
        theirs = None
    cells = (
        Cell(group.task),
        Cell(group.backbone),
        Cell(group.method),
        Cell(count(group.parameters)),
        Cell(count(group.early_exit_parameters) if group.multi_exit else "none"),
        Cell(duration(_median([t.seconds_to_best for t in took]))),
        Cell(duration(_median([t.seconds for t in took]))),
        Cell(number(_median([t.best_epoch for t in took]), 0)),
        Cell(theirs.parameters if theirs else paper.NONE),
        Cell(f"{theirs.minutes} min" if theirs else paper.NONE),
    )
    seeds = [seed for seed, _ in group.trials]
    return Row(cells, runs_of([key for _, key in group.trials], trained, seeds))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def latency_table(results: Sequence[Latency], trained: Mapping[str, Trained]) -> Table:
    """Measured wall time beside what the layer and FLOP ratios promise."""
    rows = [_latency_row(row, trained) for result in results for row in result.rows]
    columns = ("Task", "Model and exit rule", "Setting", "Mode", "Examples", "ms per example", "Measured",
               "Layer ratio", "FLOP ratio")  # fmt: skip
    devices = dict.fromkeys(f"{r.task}: {r.device}, {r.threads} thread{'s'[: r.threads != 1]}" for r in results)
    notes = (
        "Speed-ups under their three names, each against the same model run through all layers with one head.",
        f"Measured on {'; '.join(devices)}." if devices else "Not run: latency.tasks names no task.",
        "The paper reports no wall times.",
    )
    return Table("latency", "Latency", columns, tuple(rows), notes, names=4)


def _latency_row(row: Timed, trained: Mapping[str, Trained]) -> Row:
    cells = (
        Cell(row.task),
        Cell(rule_name(row.method, row.criterion, True), row.backbone),
        Cell(setting(row.criterion, [row.threshold], {})),
        Cell(row.mode.replace(" ", "\xa0")),
        Cell(f"{row.examples:,}"),
        Cell(number(row.ms_per_example, 2)),
        *(Cell(times(ratio)) for ratio in (row.measured_speedup, row.layer_speedup, row.flop_speedup)),
    )
    return Row(cells, runs_of([row.key], trained))


def trials_table(stored: Stored) -> Table:
    """Every model that a row rests on."""
    rows = []
    for group in (group for task in stored.tasks for group in task.groups):
        about = (Cell(group.task), Cell(group.backbone), Cell(group.method))
        for seed, key in group.trials:
            cells = (*about, Cell(str(seed)), Cell(str(group.batch_size)), Cell(f"{group.learning_rate:g}"))
            rows.append(Row((*cells, Cell(group.weights[key][:16])), runs_of([key], stored.trained)))
        for seed, key in group.failed:
            rows.append(
                Row((*about, Cell(str(seed)), Cell(""), Cell(""), Cell("failed")), runs_of([key], stored.trained))
            )
    columns = ("Task", "Backbone", "Method", "Seed", "Batch size", "Learning rate", "Weights, SHA-256")
    return Table("trials", "Trained models behind the rows", columns, tuple(rows), names=3)
