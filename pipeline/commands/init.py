"""params.yaml for a table of a user's own."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.commands.output import signed
from pipeline.errors import DataError, listed, shown
from pipeline.layout import HERE
from pipeline.models.at_hand import place_of_model
from pipeline.models.names import BACKBONES, DEMO_POSITIONS
from pipeline.params import Params
from pipeline.storage import parse_yaml, write_text
from pipeline.tasks.files import read_file
from pipeline.tasks.guess import Columns, Guess, guess
from pipeline.tasks.names import TASKS

PRETRAINED, FROM_SCRATCH = "minilm", "demo-albert"
FEW = 30
"""Rows below which no split would have enough."""


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


def init(file: Path, name: str | None, text: Sequence[str], label: str | None, quoted: bool | None) -> list[str]:
    """Write params.yaml for a table.

    Args:
        name: the task's; None: made of the file's.
        text, label: columns; guessed where they are not given.
        quoted: as `FileSource.quoted`.

    Returns:
        Lines that say what was assumed.

    Raises:
        DataError: an unreadable table, or one in which no text or label is found.
        ParamsError: a name that params.yaml cannot take.
    """
    columns = read_columns(file, quoted)
    found = guess(columns, str(file), text, label)
    rows = len(columns[found.label]) - found.unlabelled
    if rows < FEW:
        raise DataError(f"{file}: {rows} rows with a label; give {FEW} or more")
    task = name or _name_of(file)
    backbone, reason = _backbone(Path(os.environ["HUB_MIRROR"]) if os.environ.get("HUB_MIRROR") else None)
    content = _content(task, _relative(file), found, columns, rows, quoted, backbone)
    Params.model_validate(parse_yaml(content))
    write_text(HERE.params, signed(content))
    return [*_assumed(task, found, rows), f"model     {backbone}: {reason}"]


def read_columns(file: Path, quoted: bool | None) -> Columns:
    """Every column of a table as texts.

    Raises:
        DataError: as `read_file`; or two columns of one name.
    """
    import pyarrow as pa

    with redirect_stdout(StringIO()):  # how quotes are read is said below
        names = read_file(file, (), quoted).column_names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: two columns are called {shown(twice[0])}; rename one")
    table = read_file(file, names, quoted)
    columns = {}
    for name in names:
        try:
            columns[name] = table[name].cast(pa.string()).to_pylist()
        except pa.ArrowException:  # images, lists: neither text nor label
            continue
    return columns


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
    lines = [
        f"# Written by `python -m pipeline init {Path(path).name}`; every line may be changed.",
        "# pipeline/params.py names the blocks and every other setting; each has a default.",
        "tasks:",
        f"  {task}:",
        f"    source: {{train: {_yaml(path)}{'' if quoted is None else f', quoted: {str(quoted).lower()}'}}}",
        f"    text: {_yaml(list(found.text))}",
        f"    label: {_yaml(found.label)}",
        *([f"    label_names: {_yaml(list(found.label_names))}"] if found.label_names else ["    kind: regression"]),
        *(['    drop_label: "" # rows without a label'] if found.unlabelled else []),
        "    # A fifth of the rows is held out for the report. Thresholds are chosen on `selection`; the rest trains.",
        f"    rows: {{selection: {selection or 'null'}}}",
        f"    max_length: {_length(found, columns, recipe)} # tokens; longer texts are cut",
        f"backbones: {{{backbone}: {{}}}}",
        "methods: [single_exit, joint] # without early exits, for comparison, and with one after each layer",
        f"grid: {{batch_size: [{batch}], learning_rate: [{', '.join(recipe.learning_rates)}]}}",
        "seeds: [1, 2]",
        f"training: {{epochs: {epochs}, stop_after: 3}}",
        f"latency: {{tasks: [{task}]}}",
        "simulate: {patiences: []} # the paper's own calculations, which need no data",
    ]
    return "\n".join(lines) + "\n"


def _length(found: Guess, columns: Columns, recipe: Recipe) -> int:
    """Tokens for nineteen texts of twenty, at one and a half tokens a word, in steps of 16."""
    parts = [columns[name] for name in found.text]
    words = sorted(sum(len((part or "").split()) for part in row) for row in zip(*parts, strict=True))
    tokens = words[len(words) * 19 // 20] * 3 // 2 + 4
    return min(max(-(-tokens // 16) * 16, 32), recipe.longest)


def _yaml(value: Any) -> str:
    """JSON, which is YAML too: no text is taken for something else."""
    return json.dumps(value, ensure_ascii=False)


def _assumed(task: str, found: Guess, rows: int) -> list[str]:
    classes = f"{len(found.label_names)} classes ({listed(found.label_names)})" if found.label_names else "a number"
    lines = [
        f"task      {task}: {found.kind} of {rows} rows",
        f"text      {' and '.join(found.text)}",
        f"label     {found.label}: {classes}",
    ]
    if found.other:
        lines.append(f"left out  {listed(found.other)}: text too; for two texts give --text twice")
    if found.unlabelled:
        lines.append(f"left out  {found.unlabelled} rows without a label")
    if found.repeated:
        lines.append(f"beware    {found.repeated} rows repeat a text: the same text may train and be reported")
    if found.rare:
        lines.append(f"beware    {listed(found.rare)}: fewer than 10 rows each, too few to learn or to measure")
    return lines
