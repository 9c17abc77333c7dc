"""What becomes of single classes: those that a model never answers, and those that an exit rule loses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.evaluation.intervals import sign_test
from pipeline.report.cells import Cell, Table, TableRow, model_name, runs_of
from pipeline.report.numbers import listed, number, points, signed
from pipeline.report.paying import SURE, Deal
from pipeline.results import Diagnosis, OfClass, TrialRecord

MOST = 10
"""Classes of a task up to which each has its row and its sentence."""
NAMED = 5
"""Most classes that a sentence names."""
NOTES = (
    "Recall: of the rows of a class, those answered right; medians over seeds. The models and exit rules are those of "
    f"the first screen, of tasks of up to {MOST} classes.",
    f"Behind: of the class's rows, over all seeds, more are lost than won (sign test, p below {SURE:g}).",
)


def remarks(deal: Deal) -> Iterator[str]:
    """Sentences on classes that are never answered with all layers, and on those that the exit rule loses."""
    if silent := _never_answered(deal):
        yield silent
    fallen = [one for one in _recalls(deal) if one.behind] if _few(deal) else []
    if fallen:
        falls = listed(f"of “{one.name}” from {_points(one.full)} to {_points(one.early)}" for one in fallen[:NAMED])
        more = f" (and of {len(fallen) - NAMED} others)" if len(fallen) > NAMED else ""
        yield f"Under {deal.row.criterion} recall falls: {falls}{more}."


def recall_table(deals: Sequence[Deal], trials: Mapping[str, TrialRecord]) -> Table:
    """The recall of each class through all layers and under the exit rule; without a row for regressions."""
    columns = ("Task", "Model", "Class", "Rows", "All layers", "Exit rule", "Difference")
    rows = tuple(row for deal in deals if _few(deal) for row in _rows(deal, trials))
    return Table("recall", "Recall by class", columns, rows, NOTES, names=3)


@dataclass(frozen=True)
class _Recall:
    """The recall of one class of a deal's models.

    Attributes:
        full, early: through all layers and under the exit rule, medians over seeds; None for a class without rows.
        behind: whether the rows tell that it falls.
    """

    name: str
    rows: int
    full: float | None
    early: float | None
    behind: bool

    @classmethod
    def of(cls, found: Sequence[tuple[OfClass, int, int]]) -> "_Recall":
        """A class as each seed has it, with the rows of it that the exit rule loses and wins."""
        name, rows = found[0][0].name, found[0][0].rows
        lost, won = sum(less for _, less, _ in found), sum(more for _, _, more in found)
        if not rows:
            return cls(name, rows, None, None, behind=False)
        full = median(one.right / rows for one, _, _ in found)
        early = median((one.right - less + more) / rows for one, less, more in found)
        return cls(name, rows, full, early, behind=lost > won and sign_test(lost, won) < SURE)


def _few(deal: Deal) -> bool:
    return deal.models[0].classes is not None and len(deal.models[0].classes) <= MOST


def _recalls(deal: Deal) -> list[_Recall]:
    assert deal.row.criterion is not None  # a deal is of an exit rule
    by_seed = [list(_of_seed(model, deal.row.criterion)) for model in deal.models]
    return [_Recall.of(found) for found in zip(*by_seed, strict=True)]


def _of_seed(model: Diagnosis, criterion: str) -> Iterator[tuple[OfClass, int, int]]:
    outcome = model.outcome(criterion)
    return zip(model.classes or (), outcome.lost_by_class or (), outcome.won_by_class or (), strict=True)


def _never_answered(deal: Deal) -> str:
    """The classes with rows that some seed never answers with all layers."""
    of_classes = zip(*(model.classes or () for model in deal.models), strict=True)
    silent = [(one[0], sum(not of_seed.answered for of_seed in one)) for one in of_classes if one[0].rows]
    silent = [(one, seeds) for one, seeds in silent if seeds]
    if not silent:
        return ""
    every = len(deal.models)
    names = [
        f"“{one.name}” ({one.rows:,} of {deal.models[0].rows:,} rows"
        + (f"; {seeds} of {every} seeds)" if seeds < every else ")")
        for one, seeds in silent
    ]
    more = [f"{len(names) - NAMED} others"] if len(names) > NAMED else []
    subject = "a class is" if len(names) == 1 else f"{len(names)} classes are"
    return f"With all layers {subject} never the answer: {listed([*names[:NAMED], *more])}."


def _rows(deal: Deal, trials: Mapping[str, TrialRecord]) -> Iterator[TableRow]:
    row, runs = deal.row, runs_of(deal.row.keys, trials, deal.row.seeds)
    for one in _recalls(deal):
        gap = None if one.full is None or one.early is None else 100 * (one.early - one.full)
        cells = (
            Cell(deal.task.heading(row.split)),
            Cell(model_name(row.backbone, row.method), row.criterion or ""),
            Cell(one.name),
            Cell(f"{one.rows:,}"),
            Cell(_points(one.full)),
            Cell(_points(one.early)),
            Cell(signed(gap), flags=("behind",) if one.behind else ()),
        )
        yield TableRow(cells, runs)


def _points(share: float | None) -> str:
    return number(points(share))
