"""Tasks: source, columns, labels and metrics.

An entry of params.yaml's `tasks` is a name of `pipeline/tasks/names.py` with some settings changed, or the user's own
data with source, text (or image), label and label names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationInfo,
    field_validator,
)

from pipeline.settings import Block, Distinct, PositiveInt, Seed, Size

Kind = Literal["classification", "regression"]
Modality = Literal["text", "image"]
"""Kind of a task's rows: a backbone serves one modality, a method one or both."""


_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
_HUB_NAME = re.compile(rf"{_PART}(/{_PART})?")


def _check_hub_name(name: str) -> str:
    """The name, if it is one on the hub, and so a path below the hub mirror; else a ValueError."""
    if not _HUB_NAME.fullmatch(name):
        raise ValueError("no name on the hub; give owner/name, or files with train and report")
    return name


HubName = Annotated[str, AfterValidator(_check_hub_name)]


class HubSource(Block):
    """Data of the hub by name, read from the hub or from the hub mirror where one is set."""

    hub: HubName
    config: HubName | None = None
    train: str = "train"
    report: dict[str, str] = Field(default={"validation": "validation"}, min_length=1)
    """Report splits: this project's name to the hub's. MNLI has two, reported separately."""
    test: dict[str, str] = {}
    """Splits without labels: this project's name to the hub's; a label column in them is not read."""

    def __str__(self) -> str:
        return f"{self.hub} ({self.config})" if self.config else self.hub


class FileSource(Block):
    """Files: .csv, .tsv, .jsonl or .parquet with named columns; for images also a folder with one folder per class."""

    train: Path
    report: dict[str, Path] = {}
    """Report splits. Without one, rows of `train` are held out, as `held_out`: `rows.report` of them, or a fifth."""
    test: dict[str, Path] = {}
    """Files without labels; a label column in them is not read."""
    quoted: StrictBool | None = None
    """.csv and .tsv: whether quotes enclose fields, which may then hold delimiters and line breaks (true), or are plain
    characters, as in GLUE's files (false). None: they enclose fields in a .csv; a .tsv is read in the way that its
    quotes allow, which prepare prints. A file that may well be either, by its labels too, is refused
    (`pipeline/tasks/delimited.py`)."""

    @field_validator("quoted")
    @classmethod
    def _has_quotes(cls, quoted: bool | None, info: ValidationInfo) -> bool | None:
        paths = [info.data.get("train"), *info.data.get("report", {}).values(), *info.data.get("test", {}).values()]
        if quoted is not None and not any(path and path.suffix.lower() in (".csv", ".tsv") for path in paths):
            raise ValueError("no file of the source is .csv or .tsv; take it out")
        return quoted


class DemoSource(Block):
    """Generated data."""

    demo: Literal["sentences", "pairs", "similarity", "images"]

    def __str__(self) -> str:
        return f"generated {self.demo}"


def _kind_of_source(value: Any) -> str:
    """The kind that an entry means by its keys, so that a slip in another key is named as one."""
    if isinstance(value, BaseModel):
        return type(value).__name__
    keys = value if isinstance(value, dict) else ()
    return "DemoSource" if "demo" in keys else "HubSource" if "hub" in keys or "config" in keys else "FileSource"


Source = Annotated[
    Annotated[HubSource, Tag("HubSource")]
    | Annotated[FileSource, Tag("FileSource")]
    | Annotated[DemoSource, Tag("DemoSource")],
    Discriminator(_kind_of_source),
]


def _class_name(value: Any) -> Any:
    """The text of a class name that YAML reads as a number or a truth value."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, (int, float)) else value


ClassName = Annotated[str, BeforeValidator(_class_name), Field(min_length=1)]


class Rows(Block):
    """Number of rows of each split; None takes all. Sub-samples are drawn once, with `seed`."""

    train: PositiveInt | None = None
    selection: PositiveInt | None = None
    """Selection rows, taken from the training split; None takes a tenth, at most 2,000."""
    report: PositiveInt | None = None
    """Rows of each report split. Where the source has none, None takes a fifth of the rows, at most 10,000."""
    seed: Seed = 0


class TaskSettings(Block):
    """One entry of params.yaml's `tasks`."""

    source: Source | None = None
    kind: Kind | None = None
    text: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=2)
    """Columns of the text, one or two."""
    image: str | None = None
    """Column of the images, in place of text: bytes, or paths relative to the table's folder. For a folder per class
    give any name."""
    label: str | None = None
    label_names: tuple[ClassName, ...] | None = None
    """Class names in the order of the classes. A label whose text is one of them (1 and 1.0 are "1", true is "true") is
    that class; any other label is a class index from 0. Where names are numbers, all labels of all splits are read as
    names, or all as indices."""
    drop_label: StrictInt | StrictStr | None = None
    """Rows with this label are left out, such as -1 in SNLI (no gold label)."""
    metrics: Annotated[tuple[str, ...], Distinct] | None = Field(default=None, min_length=1)
    """Metrics, whose mean is the score: accuracy, f1 (of two classes), macro_f1 (the mean over the classes, for uneven
    ones), matthews; for a regression pearson and spearman. None: accuracy, or both correlations."""
    test: bool | None = None
    """Whether to predict the splits without labels, for GLUE in its server's format. None: only for a source of your
    own that names such splits."""
    rows: Rows = Rows()
    max_length: Size = 128
    """Texts: longest input in tokens; longer inputs are cut."""


_ALL_ROWS = Rows()


@dataclass(frozen=True)
class ServerFiles:
    """Format of a task's predictions for the GLUE server.

    Attributes:
        names: split to the file's name.
        words: whether classes are written by name; else by number.
        span: lowest and highest value of a regression.
    """

    names: Mapping[str, str]
    words: bool = False
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Colours:
    """Mean and standard deviation of each colour over the training pixels, on the scale 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """A task with all its settings. The mean of its `metrics` is its score, as in GLUE.

    Attributes:
        text: columns of the text; none where rows are images.
        test: whether the source's splits without labels are prepared and predicted.
        drop_label: rows with this label are left out.
        server: format of predictions for GLUE's server; None for other tasks.
        image: column of the images; None where rows are texts.
        colours: published figures of an image task; None: prepare computes them.
        torchvision: class of torchvision.datasets and its folder, which a mirror may hold.
        source_names: classes in the order of `label_names` as the source calls them, where it calls them otherwise.
    """

    name: str
    source: Source
    kind: Kind
    text: tuple[str, ...]
    label: str
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: Rows = _ALL_ROWS
    max_length: int = 128
    test: bool = False
    drop_label: int | str | None = None
    server: ServerFiles | None = None
    image: str | None = None
    colours: Colours | None = None
    torchvision: tuple[str, str] | None = None
    source_names: tuple[str, ...] = ()

    @property
    def modality(self) -> Modality:
        """Kind of the rows."""
        return "text" if self.image is None else "image"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the inputs."""
        return self.text if self.image is None else (self.image,)

    @property
    def stored_text(self) -> tuple[str, ...]:
        """Columns of the text in prepared tables, beside `label` and `row_id`: names that meet these end in _.

        >>> from dataclasses import replace
        >>> from pipeline.tasks.names import TASKS
        >>> replace(TASKS["mrpc"], text=("sentence", "label")).stored_text
        ('sentence', 'label_')
        """
        return tuple(f"{name}_" if re.fullmatch("(label|row_id)_*", name) else name for name in self.text)

    @property
    def unlabelled(self) -> Mapping[str, str | Path]:
        """Splits to predict: this project's name to the source's; empty unless `test` is set."""
        return {} if isinstance(self.source, DemoSource) or not self.test else dict(self.source.test)

    @property
    def outputs(self) -> int:
        """Outputs of a classifier for this task: classes, or 1 for regression."""
        return len(self.label_names) if self.kind == "classification" else 1
