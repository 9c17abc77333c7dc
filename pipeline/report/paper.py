"""What the paper printed, number for number (Zhou et al. 2020, Tables 1 to 6), and beside which rows of ours.

A row of ours is named by backbone, method and criterion; `beside` finds its counterpart for a task, or says in a word
why there is none. Task names are ours; "matched" and "mismatched" are splits of mnli. The paper's Tables 1, 2 and 4
have one MNLI column and do not say which half it is, so it stands beside both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

NONE = "—"
"""Nothing in the paper to stand beside."""
NOT_COMPARABLE = "not comparable"
"""The paper has this task, but not on this model."""

Key = tuple[str, str | None]
"""Method and criterion of ours."""

FULL: Key = ("single_exit", None)
PATIENCE: Key = ("joint", "patience")
CONFIDENCE: Key = ("joint", "confidence")
ENTROPY: Key = ("joint", "entropy")
DEEBERT: Key = ("two_stage", "entropy")
HALF: Key = ("first_half", None)
MOST: Key = ("first_three_quarters", None)
LAYER_DROP: Key = ("layer_drop", None)
HEAD_PRUNE: Key = ("head_prune", None)
PKD: Key = ("patient_distillation", None)
THESEUS: Key = ("theseus", None)


@dataclass(frozen=True)
class PaperRow:
    """A row of Tables 1, 2 or 4.

    Attributes:
        key: method and criterion of ours that it stands beside.
        scores: task to score in points; None where the paper has "-".
        split: "dev", or "test" for the GLUE server's hidden labels.
        own: our backbone that it stands beside, where that is another: DistilBERT is one of its own.
    """

    table: int
    backbone: str
    label: str
    key: Key
    parameters: str
    speedup: float
    scores: Mapping[str, float | None]
    macro: float | None = None
    split: str = "dev"
    own: str = ""

    @property
    def ours(self) -> str:
        """Our backbone that the row stands beside."""
        return self.own or self.backbone


LAYERS = {"albert-base": 12, "albert-large": 24, "bert-base": 12, "distilbert": 12, "resnet56": 27}
"""Layers of the paper's models (for ResNet-56, blocks of two convolutions); of DistilBERT, those of its teacher."""

_GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
_THREE = ("mnli", "sst2", "stsb")


def _row1(label: str, key: Key, speedup: float, *values: float | None, split: str = "dev") -> PaperRow:
    scores = dict(zip(_GLUE, values[:8], strict=True))
    return PaperRow(1, "albert-base", label, key, "12M", speedup, scores, values[8], split)


def _row(
    table: int, backbone: str, label: str, key: Key, size: str, speedup: float, *v: float | None, own: str = ""
) -> PaperRow:
    return PaperRow(table, backbone, label, key, size, speedup, dict(zip(_THREE, v, strict=True)), own=own)


ROWS: tuple[PaperRow, ...] = (
    _row1("ALBERT-base", FULL, 1.00, 58.9, 84.6, 89.5, 91.7, 89.6, 78.6, 92.8, 89.5, 84.4),
    _row1("ALBERT-6L", HALF, 1.96, 53.4, 80.2, 85.8, 87.2, 86.8, 73.6, 89.8, 83.4, 80.0),
    _row1("ALBERT-9L", MOST, 1.30, 55.2, 81.2, 87.1, 88.7, 88.3, 75.9, 91.3, 87.1, 81.9),
    _row1("LayerDrop", LAYER_DROP, 1.96, 53.6, 79.8, 85.9, 87.0, 87.3, 74.3, 90.7, 86.5, 80.6),
    _row1("HeadPrune", HEAD_PRUNE, 1.22, 54.1, 80.3, 86.2, 86.8, 88.0, 75.1, 90.5, 87.4, 81.1),
    _row1("BranchyNet", ENTROPY, 1.88, 55.2, 81.7, 87.2, 88.9, 87.4, 75.4, 91.6, None, None),
    _row1("Shallow-Deep", CONFIDENCE, 1.95, 55.5, 81.5, 87.1, 89.2, 87.8, 75.2, 91.7, None, None),
    _row1("PABEE", PATIENCE, 1.57, 61.2, 85.1, 90.0, 91.8, 89.6, 80.1, 93.0, 90.1, 85.1),
    _row1("ALBERT-base", FULL, 1.00, 54.1, 84.3, 87.0, 90.8, 71.1, 76.4, 94.1, 85.5, 80.4, split="test"),
    _row1("PABEE", PATIENCE, 1.57, 55.7, 84.8, 87.4, 91.0, 71.2, 77.3, 94.1, 85.7, 80.9, split="test"),
    _row(2, "bert-base", "BERT-base", FULL, "108M", 1.00, 84.5, 92.1, 88.9),
    _row(2, "bert-base", "BERT-6L", HALF, "66M", 1.96, 80.1, 89.6, 81.2),
    _row(2, "bert-base", "BERT-9L", MOST, "87M", 1.30, 81.4, 90.5, 85.0),
    _row(2, "bert-base", "DistilBERT", FULL, "66M", 1.96, 79.0, 90.7, 81.2, own="distilbert"),
    _row(2, "bert-base", "BERT-PKD", PKD, "66M", 1.96, 81.3, 91.3, 86.2),
    _row(2, "bert-base", "BERT-of-Theseus", THESEUS, "66M", 1.96, 82.3, 91.5, 88.7),
    _row(2, "bert-base", "BranchyNet", ENTROPY, "108M", 1.87, 80.3, 90.4, None),
    _row(2, "bert-base", "DeeBERT", DEEBERT, "108M", 1.59, 80.7, 90.0, None),
    _row(2, "bert-base", "Shallow-Deep", CONFIDENCE, "108M", 1.91, 80.5, 90.6, None),
    _row(2, "bert-base", "PABEE", PATIENCE, "108M", 1.62, 83.6, 92.0, 88.7),
    # Table 4's ALBERT-base rows repeat Table 1's.
    _row(4, "albert-large", "ALBERT-large", FULL, "18M", 1.00, 86.4, 94.9, 90.4),
    _row(4, "albert-large", "+ PABEE", PATIENCE, "18M", 2.42, 86.8, 95.2, 90.6),
)


@dataclass(frozen=True)
class Beside:
    """The paper's score in points for a row of ours; where there is none, `text` says so and the rest is empty."""

    text: str
    value: float | None = None
    label: str = ""
    speedup: float | None = None


def dev_rows(backbone: str) -> list[PaperRow]:
    """The paper's development-set rows of a backbone, in its order."""
    return [row for row in ROWS if row.backbone == backbone and row.split == "dev"]


def counterpart(backbone: str, layers: int, key: Key) -> PaperRow | None:
    """The paper's row beside ours; none for a backbone that was cut to fewer layers."""
    if LAYERS.get(backbone) != layers:
        return None
    return next((row for row in _beside(backbone) if row.key == key), None)


def _beside(backbone: str) -> list[PaperRow]:
    """The paper's development-set rows that a backbone of ours stands beside."""
    return [row for row in ROWS if row.ours == backbone and row.split == "dev"]


def has_task(task: str) -> bool:
    """Whether the paper reports this task."""
    return task in _GLUE or any(task == name for name, _ in IMAGES)


def beside(task: str, backbone: str, layers: int, key: Key) -> Beside:
    """The paper's score beside ours, of Tables 1, 2, 4 and 6.

    >>> beside("sst2", "albert-base", 12, ("joint", "patience")).text
    '93.0'
    >>> beside("cifar10", "resnet56", 27, ("joint", "patience")).text
    '92.0'
    >>> beside("sst2", "minilm", 6, ("joint", "patience")).text
    'not comparable'
    >>> beside("demo-pairs", "demo-albert", 12, ("joint", "patience")).text
    '—'
    """
    if not has_task(task):
        return Beside(NONE)
    if LAYERS.get(backbone) != layers:
        return Beside(NOT_COMPARABLE)
    if task not in _GLUE:
        return _beside_image(task, backbone, key)
    if not any(task in row.scores for row in _beside(backbone)):
        return Beside(NOT_COMPARABLE)
    row = counterpart(backbone, layers, key)
    if row is None:
        return Beside(NONE)
    value = row.scores.get(task)
    return Beside("“-”" if value is None else f"{value:.1f}", value, row.label, row.speedup)


def _beside_image(task: str, backbone: str, key: Key) -> Beside:
    criterion = key[1]
    if backbone != "resnet56":
        return Beside(NOT_COMPARABLE)
    # A criterion has one cell, whichever way its exits were trained; "no criterion" means the plain network.
    figure = IMAGES.get((task, criterion)) if criterion or key == FULL else None
    return Beside(f"{figure.accuracy:.1f}", figure.accuracy, figure.label, figure.speedup) if figure else Beside(NONE)


@dataclass(frozen=True)
class TrainingCost:
    """A cell pair of Table 3: parameters (as printed; "+" is on top of the plain model) and minutes on a V100."""

    parameters: str
    minutes: int


COST: dict[tuple[str, str, str], TrainingCost] = {
    ("albert-base", "single_exit", "mnli"): TrainingCost("12M", 234),
    ("albert-base", "single_exit", "sst2"): TrainingCost("12M", 113),
    ("albert-base", "joint", "mnli"): TrainingCost("+36K", 227),
    ("albert-base", "joint", "sst2"): TrainingCost("+24K", 108),
    ("bert-base", "single_exit", "mnli"): TrainingCost("108M", 247),
    ("bert-base", "single_exit", "sst2"): TrainingCost("108M", 121),
    ("bert-base", "joint", "mnli"): TrainingCost("+36K", 242),
    ("bert-base", "joint", "sst2"): TrainingCost("+24K", 120),
}
"""Table 3 by backbone, method, task."""


@dataclass(frozen=True)
class Attacked:
    """A column of Table 5 (ALBERT-base): accuracies in points, and queries."""

    original: float
    after: float
    queries: int


ROBUSTNESS: dict[tuple[str, str | None], Attacked] = {
    ("snli", None): Attacked(89.6, 5.5, 58),
    ("mnli matched", None): Attacked(84.1, 9.8, 80),
    ("mnli mismatched", None): Attacked(83.2, 7.9, 86),
    ("yelp", None): Attacked(97.2, 7.3, 841),
    ("snli", "confidence"): Attacked(89.4, 9.2, 64),
    ("mnli matched", "confidence"): Attacked(82.2, 15.4, 82),
    ("mnli mismatched", "confidence"): Attacked(80.5, 13.8, 86),
    ("yelp", "confidence"): Attacked(97.2, 11.4, 870),
    ("snli", "patience"): Attacked(89.9, 19.3, 75),
    ("mnli matched", "patience"): Attacked(85.0, 30.2, 88),
    ("mnli mismatched", "patience"): Attacked(84.8, 25.6, 93),
    ("yelp", "patience"): Attacked(97.4, 18.1, 897),
}
"""Table 5 by task and criterion (None: plain ALBERT)."""


@dataclass(frozen=True)
class ImageFigure:
    """A cell pair of Table 6: ResNet-56's speed-up and accuracy in points."""

    label: str
    speedup: float
    accuracy: float


IMAGES: dict[tuple[str, str | None], ImageFigure] = {
    ("cifar10", None): ImageFigure("ResNet-56", 1.00, 91.8),
    ("cifar10", "entropy"): ImageFigure("BranchyNet", 1.33, 91.4),
    ("cifar10", "confidence"): ImageFigure("Shallow-Deep", 1.35, 91.6),
    ("cifar10", "patience"): ImageFigure("PABEE", 1.26, 92.0),
    ("cifar100", None): ImageFigure("ResNet-56", 1.00, 68.6),
    ("cifar100", "entropy"): ImageFigure("BranchyNet", 1.29, 68.2),
    ("cifar100", "confidence"): ImageFigure("Shallow-Deep", 1.32, 68.8),
    ("cifar100", "patience"): ImageFigure("PABEE", 1.22, 69.1),
}
"""Table 6 by task and criterion (None: the plain network)."""
