"""params.yaml for a table of a user's own."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.commands.output import signed
from pipeline.errors import DataError, ParamsError, listed, shown
from pipeline.layout import HERE
from pipeline.models.at_hand import place_of_model
from pipeline.models.names import BACKBONES, DEMO_POSITIONS
from pipeline.params import validated
from pipeline.settings import check_name
from pipeline.storage import parse_yaml, write_text
from pipeline.tasks.columns import as_number, class_names
from pipeline.tasks.delimited import DELIMITERS
from pipeline.tasks.files import read_file
from pipeline.tasks.guess import CLASSES_AS_NUMBERS, MOST_CLASSES, Columns, Guess, guess, rows_said, words_in
from pipeline.tasks.names import TASKS
from pipeline.tasks.task import Kind

PRETRAINED, FROM_SCRATCH = "minilm", "demo-albert"
FEW = 30
"""Rows below which no split would have enough."""
CHECK = "check the path"
SHOWN = 10
"""Classes whose shares are printed."""
IMBALANCED = 0.7
"""Share of the largest class above which accuracy alone says little."""
WIDE = 5.0
"""Standard deviation of a regression's labels above which a model's answers stay near their mean: for STS-B's labels
times 20 (29) they spread by 3 after 80 steps, and every exit agreed with the next (docs/design/own-data.md)."""
SAME = 1 / 3
"""Difference of two answers that patience takes as none, in standard deviations of a regression's labels."""


@dataclass(frozen=True)
class Recipe:
    """How a backbone is trained on a small table of a user's own.

    Attributes:
        learning_rates: as params.yaml writes them.
        steps: optimisation steps that a small table should give, in whole epochs.
        epochs: fewest and most epochs.
        longest: longest input in tokens.
    """

    learning_rates: tuple[str, ...]
    steps: int
    epochs: tuple[int, int]
    longest: int


RECIPES = {
    PRETRAINED: Recipe(("5e-5", "1e-4"), steps=150, epochs=(3, 10), longest=256),
    FROM_SCRATCH: Recipe(("1e-3", "2e-3"), steps=400, epochs=(5, 30), longest=DEMO_POSITIONS),
}


def init(
    file: Path, name: str | None, text: Sequence[str], label: str | None, quoted: bool | None, kind: Kind | None = None
) -> list[str]:
    """Write params.yaml for a table.

    Args:
        name: the task's; None: made of the file's.
        text, label, kind: columns, and what the labels are; guessed where they are not given.
        quoted: as `FileSource.quoted`.

    Returns:
        Lines that say what was assumed.

    Raises:
        DataError: an unreadable table, or one in which no text or label is found.
        ParamsError: an option that params.yaml cannot take.
    """
    _refuse_options(file, name, text, quoted)
    columns = read_columns(file, quoted, kind)
    found = guess(columns, str(file), text, label, kind)
    rows = len(columns[found.label]) - found.unlabelled
    if rows < FEW:
        raise DataError(f"{file}: {rows_said(rows)} with a label; give {FEW} or more")
    task = name or _name_of(file)
    backbone, reason = _backbone(Path(os.environ["HUB_MIRROR"]) if os.environ.get("HUB_MIRROR") else None)
    content = _content(task, _relative(file), found, columns, rows, quoted, backbone)
    validated(parse_yaml(content), f"init {file}")
    write_text(HERE.params, signed(content))
    tau = _said_of_amounts(columns[found.label]) if found.kind == "regression" else []
    said = [*_assumed(task, found, rows, kind), *tau]
    return [*said, f"model     {backbone}: {reason}"]


def _refuse_options(file: Path, name: str | None, text: Sequence[str], quoted: bool | None) -> None:
    """Refuse what params.yaml would refuse, by the option's name."""
    if name is not None:
        try:
            check_name(name)
        except ValueError as error:
            raise ParamsError(f"--name {error}") from None
        if name in TASKS:
            raise ParamsError(f"--name {name}: a task of this project has that name; give another")
    if len(text) > 2:
        raise ParamsError(f"--text {listed(text)}: {len(text)} columns; a row has one text or two")
    if quoted is not None and file.suffix.lower() not in DELIMITERS:
        raise ParamsError(f"--{'quoted' if quoted else 'plain'}: {file} is no .csv or .tsv; take it out")


def read_columns(file: Path, quoted: bool | None, kind: Kind | None = None) -> Columns:
    """Every column of a table as texts; classes that the file numbers and names come by name, unless for a regression.

    Raises:
        DataError: as `read_file`; or two columns of one name.
    """
    import pyarrow as pa

    with redirect_stdout(StringIO()):  # how quotes are read is said below
        names = read_file(file, (), quoted, check=CHECK).column_names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: two columns are called {shown(twice[0])}; rename one")
    table = read_file(file, names, quoted, check=CHECK, every=True)
    columns = {}
    for name in names:
        if file.suffix.lower() == ".jsonl" and pa.types.is_null(table[name].type):
            continue  # lists, objects
        try:
            columns[name] = _texts(table[name], [] if kind == "regression" else class_names(table, name))
        except pa.ArrowException:  # images, lists: neither text nor label
            continue
    return columns


def _texts(values: Any, classes: Sequence[str]) -> list[str | None]:
    """A column as texts: a number that is none as a null, and a class's number as its name where it has one.

    Raises:
        pa.ArrowException: it holds no text.
    """
    import pyarrow as pa

    if classes and pa.types.is_integer(values.type):
        return [classes[i] if i is not None and 0 <= i < len(classes) else None for i in values.to_pylist()]
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    return [None if text == "nan" else text for text in texts] if pa.types.is_floating(values.type) else texts


def _name_of(file: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_")[:50] or "own"
    return f"own-{name}" if name in TASKS or not name[0].isalnum() else name


def _relative(file: Path) -> str:
    """The path for params.yaml: relative where it is below the project, which may then be moved."""
    path = Path(os.path.normpath(file.absolute()))  # links stay as they are
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _backbone(mirror: Path | None) -> tuple[str, str]:
    hub = BACKBONES[PRETRAINED].hub or ""
    place = place_of_model(hub, mirror)
    if place is not None:
        return PRETRAINED, f"{hub}, pretrained, from {place}"
    return FROM_SCRATCH, (
        f"starts from random weights, since {hub} cannot be had here: expect low scores. Where a hub or a mirror "
        f"(HUB_MIRROR) is, run init again, or set `backbones: {{{PRETRAINED}: {{}}}}`"
    )


def _content(
    task: str, path: str, found: Guess, columns: Columns, rows: int, quoted: bool | None, backbone: str
) -> str:
    recipe = RECIPES[backbone]
    selection = rows // 5 if rows < 5000 else None
    train = rows - rows // 5 - (selection or min(rows // 10, 2000))
    batch = 16 if train < 1000 else 32
    epochs = min(max(-(-recipe.steps * batch // train), recipe.epochs[0]), recipe.epochs[1])
    name, largest = next(iter(_shares(found)), ("", 0.0))
    lines = [
        f"# Written by `python -m pipeline init {Path(path).name}`; every line may be changed.",
        "# pipeline/params.py names the blocks and every other setting; each has a default.",
        "tasks:",
        f"  {task}:",
        f"    source: {{train: {_yaml(path)}{'' if quoted is None else f', quoted: {str(quoted).lower()}'}}}",
        f"    text: {_yaml(list(found.text))}",
        f"    label: {_yaml(found.label)}",
        *([f"    label_names: {_yaml(list(found.label_names))}"] if found.label_names else ["    kind: regression"]),
        *(
            [f"    metrics: [accuracy, macro_f1] # always {_yaml(name)} has {largest:.0%} right"]
            if largest > IMBALANCED
            else []
        ),
        *(['    drop_label: "" # rows without a label'] if found.unlabelled else []),
        "    # A fifth of the rows is held out for the report. Thresholds are chosen on `selection`; the rest trains.",
        f"    rows: {{selection: {selection or 'null'}}}",
        f"    max_length: {_length(found, columns, recipe)} # tokens; longer texts are cut",
        f"backbones: {{{backbone}: {{}}}}",
        "methods: [single_exit, joint] # without early exits, for comparison, and with one after each layer",
        f"grid: {{batch_size: [{batch}], learning_rate: [{', '.join(recipe.learning_rates)}]}}",
        "seeds: [1, 2]",
        f"training: {{epochs: {epochs}, stop_after: 3}}",
        *(_patience(columns[found.label]) if found.kind == "regression" else []),
        f"latency: {{tasks: [{task}]}}",
        "simulate: {patiences: []} # the paper's own calculations, which need no data",
    ]
    return "\n".join(lines) + "\n"


def _spread(labels: Sequence[str | None]) -> float:
    """Standard deviation of a regression's labels."""
    return float(np.std([as_number(label) for label in labels if label]))


def _tau(labels: Sequence[str | None]) -> float:
    """Patience's tolerance for a regression, in the unit of its labels, to two digits."""
    return float(f"{SAME * _spread(labels):.2g}")


def _said_of_amounts(labels: Sequence[str | None]) -> list[str]:
    """Lines about a regression's labels."""
    spread = _spread(labels)
    lines = [f"tau       {_tau(labels):g}: exits that differ by less agree, for patience"]
    if spread > WIDE:
        lines.append(
            f"beware    the labels' standard deviation is {spread:.3g}, and training moves answers by a few units: all "
            f"exits would answer about the mean. Divide the labels in the file, such as by {10 ** round(log10(spread))}"
        )
    return lines


def _patience(labels: Sequence[str | None]) -> list[str]:
    return [
        "# Exits agree whose answers differ by less than tau: a third of the standard deviation of the labels.",
        f"evaluate: {{criteria: {{patience: {{tau: {_tau(labels)}}}}}}}",
    ]


def _shares(found: Guess) -> list[tuple[str, float]]:
    """Each class with its share of the rows, the largest first; none for a regression."""
    total = sum(found.counts)
    order = sorted(zip(found.label_names, found.counts, strict=True), key=lambda pair: -pair[1])
    return [(name, count / total) for name, count in order]


def _length(found: Guess, columns: Columns, recipe: Recipe) -> int:
    """Tokens for nineteen texts of twenty, at one and a half tokens a word, in steps of 16."""
    parts = [columns[name] for name in found.text]
    words = sorted(sum(words_in(part or "") for part in row) for row in zip(*parts, strict=True))
    tokens = words[len(words) * 19 // 20] * 3 // 2 + 4
    return min(max(-(-tokens // 16) * 16, 32), recipe.longest)


def _yaml(value: Any) -> str:
    """JSON, which is YAML too: no text is taken for something else."""
    return json.dumps(value, ensure_ascii=False)


def _assumed(task: str, found: Guess, rows: int, kind: Kind | None) -> list[str]:
    classes = f"{len(found.label_names)} classes ({listed(found.label_names)})" if found.label_names else "a number"
    lines = [
        f"task      {task}: {found.kind} of {rows} rows",
        f"text      {' and '.join(found.text)}",
        f"label     {found.label}: {classes}",
        *([] if kind else _other_kind(found)),
        *(_classes(found) if found.label_names else []),
    ]
    if found.other:
        lines.append(f"left out  {listed(found.other)}: text too; for two texts give --text twice")
    if found.unlabelled:
        lines.append(f"left out  {rows_said(found.unlabelled)} without a label")
    if found.repeated:
        repeat = "row repeats" if found.repeated == 1 else "rows repeat"
        lines.append(f"note      {found.repeated} {repeat} a text: rows of one text come into one split")
    for names in found.alike:
        words = " and ".join(shown(name) for name in names)
        lines.append(f"beware    {words} are different classes; where they mean one, write one in the file")
    if found.rare:
        each = " each" if len(found.rare) > 1 else ""
        lines.append(f"beware    {listed(found.rare)}: fewer than 10 rows{each}, too few to learn or to measure")
    return lines


def _other_kind(found: Guess) -> list[str]:
    """How to have whole numbers taken for what they were not taken for."""
    if not found.whole or len(found.label_names) == 2:
        return []
    if found.label_names:
        return [f"          whole numbers, {CLASSES_AS_NUMBERS} different ones at most: --kind regression for amounts"]
    return [
        f"          whole numbers, more than {CLASSES_AS_NUMBERS} different ones: --kind classification for classes, "
        f"{MOST_CLASSES} at most"
    ]


def _classes(found: Guess) -> list[str]:
    """The classes by their number of rows, and what an answer that never changes would score."""
    shares = _shares(found)
    said = [f"{listed([name])}: {'under 1%' if share < 0.01 else f'{share:.0%}'}" for name, share in shares]
    more = f" and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    name, largest = shares[0]
    lines = [f"classes   {', '.join(said[:SHOWN])}{more}; always {listed([name])}: {largest:.0%} right"]
    if largest > IMBALANCED:
        lines.append("metrics   accuracy and macro_f1, the mean of the F1 of each class, since the classes are uneven")
    return lines
