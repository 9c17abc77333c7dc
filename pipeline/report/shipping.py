"""Which deployment to ship in each setting that was timed, and what the machine could do at most."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.cells import Cell, Table, TableRow, model_name, row_name, runs_of
from pipeline.report.numbers import listed, number, points
from pipeline.report.paying import BEARABLE
from pipeline.report.stored import TaskResults
from pipeline.results import LatencyRow, Measured, Memory, Reached, TrialRecord

ENGINES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime"}
Timed = Sequence[tuple[TaskResults, Measured]]
MAYBE = "not told"


def engine_of(row: LatencyRow | Reached | Memory) -> str:
    """An engine with its precision, in words."""
    return f"{ENGINES[row.engine]}, {row.precision}"


def threads_of(*counts: int) -> str:
    """Numbers of threads in words.

    >>> threads_of(1), threads_of(1, 2)
    ('1 thread', '1 and 2 threads')
    """
    return f"{listed(map(str, counts))} thread{'s' * (counts != (1,))}"


@dataclass(frozen=True)
class Shipped:
    """What to ship in one setting: the fastest that scores hardly less than the best.

    Attributes:
        rows: the deployments of the setting, the fastest first.
        best: the one to ship.
        tied: others that the repeats do not tell apart from it.
    """

    rows: tuple[LatencyRow, ...]
    best: LatencyRow
    tied: tuple[LatencyRow, ...]

    @classmethod
    def of(cls, rows: Iterable[LatencyRow]) -> "Shipped":
        """The choice among the deployments of one setting."""
        ordered = sorted(rows, key=lambda row: row.ms_per_example)
        best = max((row.score for row in ordered if row.score is not None), default=0)
        good = [row for row in ordered if row.score is not None and row.score >= best - BEARABLE] or ordered
        tied = tuple(row for row in good[1:] if not _always_faster(good[0], row))
        return cls(tuple(ordered), good[0], tied)

    @property
    def early(self) -> str:
        """Whether early exit is part of it: yes, no, or that the repeats do not tell."""
        kinds = {row.own_layer_speedup > 1 for row in (self.best, *self.tied)}
        return MAYBE if len(kinds) > 1 else "yes" if kinds == {True} else "no"


def _always_faster(one: LatencyRow, other: LatencyRow) -> bool:
    """Whether a deployment was faster in every repeat, which ran side by side; models are timed one after another."""
    if (one.backbone, one.method) == (other.backbone, other.method):
        return all(a < b for a, b in zip(one.repeats_ms, other.repeats_ms, strict=True))
    return max(one.repeats_ms) < min(other.repeats_ms)


def shipped(measured: Measured) -> dict[tuple[str, int], Shipped]:
    """What to ship, by mode and number of threads; nothing where one engine was timed."""
    if len({engine_of(row) for row in measured.rows}) < 2:
        return {}
    settings = dict.fromkeys((row.mode, row.threads) for row in measured.rows)
    return {
        setting: Shipped.of(row for row in measured.rows if (row.mode, row.threads) == setting) for setting in settings
    }


def what_to_ship(measured: Measured) -> str:
    """What to ship in the first setting in full, and in how many of the others early exit is part of it."""
    every = shipped(measured)
    if not every:
        return ""
    (mode, threads), first = next(iter(every.items()))
    setting = "one row at a time" if mode == "batch 1" else f"in {mode}"
    several = f" on {threads_of(threads)}" if len(measured.threads) > 1 else ""
    part = {
        "yes": "early exit is part of it",
        "no": "early exit is not part of it",
        MAYBE: "whether early exit is part of it, these repeats do not tell",
    }[first.early]
    others = f", not told apart by the repeats from {listed(map(_deployment, first.tied))}" if first.tied else ""
    fastest = first.rows[0]
    leading = "" if first.best is fastest else f"the fastest by its median is {_deployment(fastest)}; "
    within = f"within {number(points(BEARABLE))} points of the best score"
    text = (
        f"Of {len(first.rows)} deployments timed {setting}{several}, {leading}the fastest {within} is "
        f"{_deployment(first.best)}{others}; {part}."
    )
    rest = [one.early for one in list(every.values())[1:]]
    if rest:
        told = f", and the repeats do not tell in {rest.count(MAYBE)}" if MAYBE in rest else ""
        text += (
            f" In {rest.count('yes')} of {len(rest)} other settings of batch and threads early exit is part of the "
            f"best{told}."
        )
    return text


def _deployment(row: LatencyRow) -> str:
    """A deployment in a sentence, with its time and score."""
    score = f"score {number(points(row.score))}"
    return (
        f"{row.point.criterion or 'all layers'} of {row.backbone}, {row.method} in {engine_of(row)} "
        f"({number(row.ms_per_example, 2)} ms a row, {score})"
    )


def shipping_tables(timed: Timed, trials: Mapping[str, TrialRecord]) -> Sequence[Table]:
    """What to ship in each setting, for tasks on which several engines were timed."""
    columns = ("Task", "Mode", "Threads", "Deployment", "Engine", "ms per example", "p99, ms", "Score", "Early exit",
               "Not told apart from")  # fmt: skip
    rows = []
    for task, measured in timed:
        for (mode, threads), one in shipped(measured).items():
            row, several = one.best, len(one.tied)
            cells = (
                Cell(task.name),
                Cell(mode.replace(" ", "\xa0")),
                Cell(str(threads)),
                Cell(row_name(row.method, row.point.criterion, multi_exit=True), row.backbone),
                Cell(engine_of(row)),
                Cell(number(row.ms_per_example, 2)),
                Cell(number(row.p99_ms, 2)),
                Cell(number(points(row.score))),
                Cell(one.early),
                Cell(f"{several} other{'s' * (several != 1)}" if several else "none"),
            )
            rows.append(TableRow(cells, runs_of([row.key], trials)))
    notes = (
        f"For each number of rows per call and of threads: the fastest of all that score within "
        f"{number(points(BEARABLE))} points of the best. For a budget of milliseconds per call, take the best score of "
        "the rows of the table above whose p50 or p99 is below it.",
        "Not told apart: was not slower in every repeat.",
    )
    return [Table("shipping", "What to ship", columns, tuple(rows), notes, names=3)] if rows else []


def roof_tables(timed: Timed) -> Sequence[Table]:
    """The machine's matrix rate beside what full passes reach of it, and the memory of each engine."""
    return [*_rates(timed), *_memory(timed)]


def _rates(timed: Timed) -> Iterable[Table]:
    precisions = dict.fromkeys(name for _, m in timed for roof in m.roofs for name in roof.rates)
    engines = dict.fromkeys(engine_of(one) for _, m in timed for roof in m.roofs for one in roof.reached)
    columns = ("Task", "Model", "Mode", "Threads", "Rows of the products", *(f"{name}, 1e9/s" for name in precisions),
               *(f"Reached: {name}" for name in engines))  # fmt: skip
    rows = []
    for task, measured in timed:
        for roof in measured.roofs:
            reached = {engine_of(one): one.share for one in roof.reached}
            heights = {shape[0] for shape in roof.shapes}
            cells = (
                Cell(task.name),
                Cell(model_name(roof.backbone, roof.method)),
                Cell(roof.mode.replace(" ", "\xa0")),
                Cell(str(roof.threads)),
                Cell(" to ".join(dict.fromkeys(f"{height:,}" for height in (min(heights), max(heights))))),
                *(Cell(number(roof.rates.get(name), 0)) for name in precisions),
                *(Cell(f"{reached[name]:.0%}" if name in reached else "—") for name in engines),
            )
            rows.append(TableRow(cells, origin=f"latency@{task.name}"))
    notes = (
        "The roof: operations a second (a multiply-add is two) of the model's matrix products alone, at the shapes of "
        "the call with the median number of rows, measured in the same repeats; the fastest of PyTorch's and ONNX "
        "Runtime's. Convolutions count as the products that they come to.",
        "Reached: the time of the products at that rate, as a share of the time of a full pass. The rest are "
        "attention, norms, activations, calls and, in int8, the rounding of activations.",
    )
    if rows:
        yield Table("matrix-rate", "The machine's matrix rate", columns, tuple(rows), notes, names=4)


def _memory(timed: Timed) -> Iterable[Table]:
    columns = ("Task", "Model", "Engine", "Rows", "Most resident, MiB", "Libraries alone, MiB")
    rows = tuple(
        TableRow(
            (
                Cell(task.name),
                Cell(model_name(one.backbone, one.method)),
                Cell(engine_of(one)),
                Cell(str(one.batch)),
                Cell(number(one.peak_mib, 0)),
                Cell(number(one.libraries_mib, 0)),
            ),
            origin=f"latency@{task.name}",
        )
        for task, measured in timed
        for one in measured.memory
    )
    notes = (
        "Resident memory of a fresh process that loads the engine, reads the model and answers one batch through all "
        "layers (VmHWM; on a GPU what PyTorch allocated there).",
    )
    if rows:
        yield Table("memory", "Memory", columns, rows, notes, names=3)
