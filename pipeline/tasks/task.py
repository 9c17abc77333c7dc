"""Tasks: what is asked of which rows, where their columns and labels are, and how answers are scored.

A task of params.yaml is a name of `pipeline/tasks/names.py` with a few settings changed, or own data that gives source,
text (or image), label and label names itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.settings import Block, Count, PositiveInt

Kind = Literal["classification", "regression"]
Modality = Literal["text", "image"]
"""What a task's rows are: a backbone serves one of them, a method one or both."""


class HubSource(Block):
    """A data set by its hub name; read from the hub, or below the hub mirror where one is named."""

    hub: str
    config: str | None = None
    train: str = "train"
    report: dict[str, str] = {"validation": "validation"}
    """Report splits, our name to the hub's: MNLI has two, kept apart."""
    test: dict[str, str] = {}
    """Splits without labels, our name to the hub's; a label column that they have is not read."""


class FileSource(Block):
    """Own files: .csv, .tsv, .jsonl or .parquet with named columns; for images also folders that hold one folder per
    class."""

    train: Path
    report: dict[str, Path] = Field(min_length=1)
    test: dict[str, Path] = {}
    """Files without labels; a label column that they have is not read."""


class DemoSource(Block):
    """Generated data."""

    demo: Literal["sentences", "pairs", "similarity", "images"]


Source = HubSource | FileSource | DemoSource


class Rows(Block):
    """How many rows to take; None takes all. Sub-samples are drawn with `seed`, once."""

    train: PositiveInt | None = None
    selection: PositiveInt | None = None
    """Rows carved from the training split to select on; None takes a tenth, at most 2,000."""
    report: PositiveInt | None = None
    seed: Count = 0


class TaskSettings(Block):
    """One entry of params.yaml's `tasks`."""

    source: HubSource | FileSource | DemoSource | None = None
    kind: Kind | None = None
    text: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=2)
    """Columns of the text, one or two."""
    image: str | None = None
    """Column of the images, in place of text: their bytes, or paths of files beside the table. A folder per class needs
    no column: give any name."""
    label: str | None = None
    label_names: tuple[str, ...] | None = None
    """Class names in the order of the classes. A label of the data that is, as text, one of them (1 and 1.0 are "1",
    true is "true") is that class; only else it is a class index from 0. Where names are numbers, all labels of all
    splits are read as names, or all as indices."""
    drop_label: int | str | None = None
    """Rows with this label have no gold label and are left out, -1 in SNLI."""
    metrics: tuple[str, ...] | None = Field(default=None, min_length=1)
    test: bool | None = None
    """Predict the splits without labels and write them to files, for GLUE in its server's format. None: own data that
    names such splits, and no task that is known here."""
    rows: Rows = Rows()
    max_length: PositiveInt = 128
    """Texts: longest input in tokens; longer ones are cut."""


_ALL_ROWS = Rows()


@dataclass(frozen=True)
class ServerFiles:
    """How the GLUE server wants a task's predictions.

    Attributes:
        names: split to the file's name.
        words: classes by name rather than by number.
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
    """A task, complete. `metrics` are averaged into its score, as GLUE does.

    Attributes:
        text: columns of the text; none where rows are images.
        test: whether the source's splits without labels are prepared and predicted.
        drop_label: rows with this label are left out.
        server: how GLUE wants predictions; None for a task that is not GLUE's.
        image: column of the images; None where rows are texts.
        colours: of an image task whose figures are published; None: prepare computes them.
        torchvision: class of torchvision.datasets and the folder that it unpacks to, where a mirror may hold that.
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

    @property
    def modality(self) -> Modality:
        """What the rows are."""
        return "text" if self.image is None else "image"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the inputs."""
        return self.text if self.image is None else (self.image,)

    @property
    def unlabelled(self) -> Mapping[str, str | Path]:
        """Splits to predict, our name to the source's; none unless `test` asks for them."""
        return {} if isinstance(self.source, DemoSource) or not self.test else dict(self.source.test)

    @property
    def outputs(self) -> int:
        """Outputs of a classifier for this task: classes, or 1 for regression."""
        return len(self.label_names) if self.kind == "classification" else 1
