"""Tables as values, written once and rendered as HTML and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.diagnosis import Learned
from pipeline.report.choices import missed
from pipeline.report.numbers import bounds, listed, number, points, setting, times
from pipeline.report.stored import TaskResults
from pipeline.results import Interval, Row, TrialRecord

NOT_RUN = "not run"


@dataclass(frozen=True)
class Run:
    """One trained model that a row rests on; run_id None: MLflow finds it by its tag."""

    key: str
    run_id: str | None
    seed: int | None = None


@dataclass(frozen=True)
class Cell:
    """A cell: the number, its interval or a remark in smaller type, and the paper's figure.

    Attributes:
        detail: may have several lines.
        flags: what a reader must see with the number, such as "outside window".
        link: id of the row with the details.
        tone: "ahead" or "behind" colours a verdict.
    """

    text: str
    detail: str = ""
    paper: str = ""
    flags: tuple[str, ...] = ()
    link: str = ""
    tone: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table; the first cell names it.

    Attributes:
        runs: where it can be traced back to; `origin` says it for a row without trained models.
        run: False for a row of the paper's that was not run here.
    """

    cells: tuple[Cell, ...]
    runs: tuple[Run, ...] = ()
    origin: str = ""
    anchor: str = ""
    run: bool = True


@dataclass(frozen=True)
class Table:
    """A table with its caption; `names` is how many leading columns hold words rather than numbers."""

    slug: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    names: int = 1


def slug(*parts: str) -> str:
    """An id for HTML from names: letters, digits and hyphens.

    >>> slug("table", "demo-pairs", "<b>")
    'table-demo-pairs--b-'
    """
    return "-".join("".join(c if c.isascii() and c.isalnum() else "-" for c in part) for part in parts)


def in_points(interval: Interval, paper: str = "", flags: tuple[str, ...] = (), link: str = "") -> Cell:
    """A score or share with its interval, in points."""
    return Cell(number(points(interval.centre)), bounds(interval, 1, 100), paper, flags, link)


def ratio(interval: Interval) -> Cell:
    """A speed-up with its interval, where it has any width."""
    return Cell(times(interval.centre), "" if interval.low == interval.high else bounds(interval, 2))


def flags_of(task: TaskResults, row: Row) -> tuple[str, ...]:
    """What must be seen with a row's numbers."""
    flags = [] if row.in_window else [missed(row)]
    if row.selected_on != "selection":
        same = ", the rows reported" if row.selected_on == row.split else ""
        flags.append(f"chosen on {row.selected_on}{same}")
    return (*flags, *filter(None, (unlearned(task.learned(row)), same_exit(task.one_exit(row)))))


def unlearned(learned: Learned) -> str:
    """On how many seeds a model has learned nothing; nothing where it has on all.

    >>> unlearned(Learned({1: False, 2: True})), unlearned(Learned({1: False})), unlearned(Learned({1: True}))
    ('1 of 2 seeds has learned nothing', 'learned nothing', '')
    """
    ignorant, seeds = learned.ignorant, len(learned.by_seed)
    if not ignorant:
        return ""
    return "learned nothing" if ignorant == seeds else f"{some_seeds(ignorant, seeds, 'has', 'have')} learned nothing"


def same_exit(layers: Sequence[float | None]) -> str:
    """That every row leaves at one exit, and on which seeds; nothing where they do not.

    Args:
        layers: of each seed, as `TaskResults.one_exit` has them.

    >>> same_exit([8.0, 7.0]), same_exit([None, 7.0])
    ('every row leaves at the same exit (after layer 8 and 7)', 'on 1 of 2 seeds every row leaves at the same exit \
(after layer 7)')
    """
    used = [layer for layer in layers if layer is not None]
    if not used:
        return ""
    where = "" if len(used) == len(layers) else f"on {len(used)} of {len(layers)} seeds "
    after = listed(f"{layer:g}" for layer in dict.fromkeys(used))
    return f"{where}every row leaves at the same exit (after layer {after})"


def some_seeds(some: int, every: int, one: str, several: str) -> str:
    """Some of the seeds with their verb.

    >>> some_seeds(1, 3, "is", "are"), some_seeds(2, 3, "is", "are")
    ('1 of 3 seeds is', '2 of 3 seeds are')
    """
    return f"{some} of {every} seeds {one if some == 1 else several}"


def runs_of(keys: Iterable[str], trials: Mapping[str, TrialRecord], seeds: Iterable[int] = ()) -> tuple[Run, ...]:
    """Keys with their MLflow runs; seeds: of each key, or none."""
    keys = [*keys]
    of_key: list[int | None] = [*seeds] or [None] * len(keys)
    return tuple(
        Run(key, trials[key].mlflow_run_id if key in trials else None, seed)
        for key, seed in zip(keys, of_key, strict=True)
    )


def row_id(task: TaskResults, row: Row) -> str:
    """The anchor of a row of the full tables."""
    return slug("row", task.name, row.split, row.backbone, row.method, row.criterion or "all")


def spoken(task: TaskResults, row: Row) -> str:
    """A row in words, for a figure that answers a pointer: setting, score, speed-up and interval."""
    at = setting(row.points, regression=task.regression) if row.criterion else "all layers"
    return (
        f"{model_name(row.backbone, row.method)}, {row.criterion or ''} {at}: {number(points(row.score.centre))} "
        f"{bounds(row.score, 1, 100)} at {times(row.layer_speedup.centre)} {bounds(row.layer_speedup, 2)}"
    ).strip()


def model_name(backbone: str, method: str) -> str:
    """How a trained model is called.

    >>> model_name("albert-base", "two_stage")
    'albert-base, two stage'
    """
    return f"{backbone}, {method.replace('_', ' ')}"


def row_name(method: str, criterion: str | None, *, multi_exit: bool) -> str:
    """How a row is called: the training method and the criterion.

    >>> row_name("single_exit", None, multi_exit=False), row_name("two_stage", "entropy", multi_exit=True)
    ('single exit', 'two stage, entropy (DeeBERT)')
    """
    trained = method.replace("_", " ")
    if criterion is None:
        return f"{trained}, all layers" if multi_exit else trained
    # DeeBERT is entropy on a model of its own training, the one title that a criterion does not have by itself.
    deebert = (method, criterion) == ("two_stage", "entropy")
    return f"{trained}, {'entropy (DeeBERT)' if deebert else CRITERIA[criterion].title}"


def seeds_note(rows: Iterable[Row]) -> str:
    """How many seeds stand behind the medians, and what their range is worth."""
    rows = [*rows]
    fewest, most = min(len(row.seeds) for row in rows), max(len(row.seeds) for row in rows)
    worth = min((row.score.coverage for row in rows if row.score.coverage is not None), default=None)
    if worth is None:
        return "One seed: no interval."
    seeds = str(most) if fewest == most else f"{fewest} to {most}"
    return (
        f"The median over {seeds} seeds, with their range in brackets; the range holds the median of all seeds with a "
        f"probability of {worth:.0%}."
    )
