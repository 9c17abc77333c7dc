"""Tables as values, written once and rendered as HTML and as Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.report.choices import missed
from pipeline.report.numbers import bounds, number, points, times
from pipeline.report.stored import Interval, Result, Trained

NOT_RUN = "not run"


@dataclass(frozen=True)
class Run:
    """One trained model that a row rests on; run_id None: found in MLflow by its tag."""

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
class Row:
    """A row; the first cell names it.

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
    rows: tuple[Row, ...]
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


def flags_of(row: Result) -> tuple[str, ...]:
    """What must be seen with a row's numbers."""
    found = [] if row.in_window else [missed(row)]
    if row.selected_on != "selection":
        same = ", the rows reported" if row.selected_on == row.split else ""
        found.append(f"chosen on {row.selected_on}{same}")
    return tuple(found)


def runs_of(keys: Iterable[str], trained: Mapping[str, Trained], seeds: Iterable[int] = ()) -> tuple[Run, ...]:
    """Keys with their MLflow runs."""
    numbers = [*seeds]
    keys = [*keys]
    padded: list[int | None] = [*numbers, *[None] * (len(keys) - len(numbers))]
    return tuple(
        Run(key, trained[key].run_id if key in trained else None, seed) for key, seed in zip(keys, padded, strict=True)
    )


RULES = {
    "patience": "patience (PABEE)",
    "confidence": "confidence (Shallow-Deep)",
    "temperature": "calibrated confidence (RightTool)",
    "entropy": "entropy (BranchyNet)",
    "normalised_entropy": "normalised entropy (FastBERT)",
    "patient_confidence": "patient confidence (PCEE-BERT)",
    "divergence": "divergence (F-PABEE)",
    "voting": "voting (Sun 2021)",
    "learned": "learned (BERxiT)",
    "ensemble": "ensemble (Zero Time Waste)",
    "fixed": "fixed layer",
    "oracle": "oracle (bound)",
    "random": "random (bound)",
}
"""Exit rules with the papers that they come from."""


def model_name(backbone: str, method: str) -> str:
    """How a trained model is called.

    >>> model_name("albert-base", "two_stage")
    'albert-base, two stage'
    """
    return f"{backbone}, {method.replace('_', ' ')}"


def rule_name(method: str, criterion: str | None, multi_exit: bool) -> str:
    """How a row is called: the training method and the exit rule.

    >>> rule_name("single_exit", None, False), rule_name("two_stage", "entropy", True)
    ('single exit', 'two stage, entropy (DeeBERT)')
    """
    trained = method.replace("_", " ")
    if criterion is None:
        return f"{trained}, all layers" if multi_exit else trained
    known = "entropy (DeeBERT)" if (method, criterion) == ("two_stage", "entropy") else RULES.get(criterion, criterion)
    return f"{trained}, {known}"
