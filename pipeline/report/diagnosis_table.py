"""Why early exit helps or hurts: one row per trained method, task and split."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from pipeline.report.cells import Cell, Row, Table, model_name, runs_of
from pipeline.report.diagnosed import Diagnosed
from pipeline.report.numbers import number, points, signed, times
from pipeline.report.stored import Evaluated, Stored, Trained


def diagnosis_table(stored: Stored, names: Mapping[tuple[str, str], str]) -> Table:
    """Overthinking, the oracle, agreement, calibration, and rows that each exit rule loses and wins.

    Args:
        names: task and split to the name shown.
    """
    results = (*stored.tasks, stored.cifar)
    criteria = list(dict.fromkeys(name for result in results for found in result.diagnoses for name in found.lost))
    rows = [
        row for result in results for row in _rows(result, criteria, names, {**stored.trained, **stored.cifar_trained})
    ]
    columns = ("Task", "Model", "Overthinking", "Oracle: score", "Oracle: layer ratio", "Exits 1 and last agree",
               "ECE, first exit", "ECE, last exit", *(f"Lost, won by {name}" for name in criteria))  # fmt: skip
    notes: tuple[str, ...] = (
        "Medians over seeds, in points. Overthinking: rows that some exit has right and the last wrong. "
        "Oracle: leave at the first exit that is right (a regression: at the first as near as the last).",
        "ECE: expected calibration error, accuracy against confidence in 15 bins. Lost: wrong under the "
        "exit rule at its operating point and right at the last exit; won: the reverse.",
    )
    if not rows:
        notes = ("Not run: no model with several exits was evaluated.",)
    return Table("diagnosis", "Diagnosis", columns, tuple(rows), notes, names=2)


def _rows(
    result: Evaluated, criteria: Sequence[str], names: Mapping[tuple[str, str], str], trained: Mapping[str, Trained]
) -> list[Row]:
    rows = []
    for key, group in groupby(sorted(result.diagnoses, key=_model), key=_model):
        found = list(group)
        task, split, backbone, method = key
        cells = (
            Cell(names[task, split]),
            Cell(model_name(backbone, method)),
            _points(found, lambda d: d.overthinking),
            _points(found, lambda d: d.oracle_score),
            Cell(times(_median(found, lambda d: d.oracle_speedup))),
            _points(found, lambda d: d.agreement[0][-1] if d.agreement else None),
            _points(found, lambda d: d.calibration[0] if d.calibration else None),
            _points(found, lambda d: d.calibration[-1] if d.calibration else None),
            *(_lost_and_won(found, name) for name in criteria),
        )
        rows.append(Row(cells, runs_of([d.key for d in found], trained, [d.seed for d in found])))
    return rows


def _model(found: Diagnosed) -> tuple[str, str, str, str]:
    return found.task, found.split, found.backbone, found.method


def _median(found: Sequence[Diagnosed], part: Callable[[Diagnosed], float | None]) -> float | None:
    """The median over seeds; not defined as soon as one seed's is not."""
    values = [value for value in map(part, found) if value is not None]
    return statistics.median(values) if len(values) == len(found) else None


def _points(found: Sequence[Diagnosed], part: Callable[[Diagnosed], float | None]) -> Cell:
    return Cell(number(points(_median(found, part))))


def _lost_and_won(found: Sequence[Diagnosed], name: str) -> Cell:
    lost, won = _median(found, lambda d: d.lost.get(name)), _median(found, lambda d: d.won.get(name))
    if lost is None or won is None:
        return Cell(number(None))
    return Cell(f"{signed(-100 * lost)}, {signed(100 * won)}")
