"""The command import-trace: what others publish of their exits, as a trace file. Without Torch and params.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.output import refuse_output, writing
from pipeline.errors import DataError, ParamsError, listed, shown, unknown

if TYPE_CHECKING:
    import numpy as np

    from pipeline.evaluation.trace import Trace

TABLES, ARRAYS = (".csv", ".tsv"), ".npz"


@click.command("import-trace")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="TRACE", help="A name ending in .safetensors."
)
@click.option("--label", default="label", show_default=True, metavar="NAME", help="Column, or array, of the labels.")
@click.option(
    "--exits", metavar="NAME,...", help="Tables: the columns of the exits, first to last. Default: all others."
)
@click.option("--logits", default="logits", show_default=True, metavar="NAME", help=".npz: the array of the exits.")
@click.option("--holds", type=click.Choice(["logits", "probabilities", "classes", "values"]), default="logits",
              show_default=True, help=".npz: what the array holds; `values` are a regression's.")  # fmt: skip
@click.option(
    "--exits-first", is_flag=True, help=".npz: its axes are (exits, rows, classes), not (rows, exits, classes)."
)
@click.option("--names", metavar="NAME,...", help="Names of the classes, in the order of their numbers.")
@click.option("--layers", metavar="N,...", help="Layer of each exit, from 1. Default: 1, 2, 3, ...")
@click.option("--plain-layers", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="Layers of the model that speed-ups are relative to. Default: the last exit's.")  # fmt: skip
@click.option("--costs", metavar="N,...", help="Cost of leaving at each exit, in any unit. Default: the layers.")
def import_trace(
    file: Path,
    out: Path,
    label: str,
    exits: str | None,
    logits: str,
    holds: str,
    exits_first: bool,
    names: str | None,
    layers: str | None,
    plain_layers: float | None,
    costs: str | None,
) -> None:
    """Write the exits' answers in FILE as a trace for replay, diagnose and the like.

    FILE is a table (.csv, .tsv) with a row per example, a column of labels and one of classes for each exit; or arrays
    (.npz). A trace of classes serves the criteria that need no probabilities.
    """
    from pipeline.evaluation.trace import save_trace

    refuse_output(out, [".safetensors"])
    kinds = tuple(names.split(",")) if names else ()
    if file.suffix in TABLES:
        answers, labels, kinds = of_table(file, label, exits.split(",") if exits else None, kinds)
        hard = True
    elif file.suffix == ARRAYS:
        if exits is not None:
            raise ParamsError("--exits: is of tables, and an .npz holds all exits in one array; take it out")
        answers, labels, kinds = of_arrays(file, label, logits, holds, kinds, exits_first=exits_first)
        hard = holds == "classes"
    else:
        raise ParamsError(f"{file}: is no {', '.join((*TABLES, ARRAYS))}; write one of them")
    trace = _trace(file, answers, labels, kinds, layers, plain_layers, costs, hard=hard)
    with writing(out):
        save_trace(trace, out)
    holding = "classes alone: criteria that need probabilities do not apply" if hard else holds
    click.echo(f"written   {out}: {trace.rows} rows, {trace.exits} exits, {trace.classes} classes; holds {holding}")


def of_table(
    file: Path, label: str, exits: Sequence[str] | None, names: tuple[str, ...]
) -> tuple["np.ndarray", "np.ndarray", tuple[str, ...]]:
    """One-hot logits, (n, exits, classes), labels, (n,) with NaN for an empty cell, and the classes' names.

    Cells are numbers of classes where all are whole numbers, else their names. Names that are not given are those of
    the file in their sorted order.

    Raises:
        DataError: a missing or ragged file, a column that is not there, or a cell that is no class.
    """
    import numpy as np

    from pipeline.tasks.delimited import read_delimited

    if not file.is_file():
        raise DataError(f"{file}: no such file; name a table")
    header = read_delimited(file, [], quoted=None).names
    for name in (label, *(exits or ())):
        if name not in header:
            raise unknown("column", name, header, key=f"{file}")
    columns = list(exits) if exits else [name for name in header if name != label]
    if not columns or label in columns or len({*columns}) < len(columns):
        raise ParamsError(f"--exits: {listed(columns) or 'none'}; name each exit's column once, beside the label's")
    reading = read_delimited(file, [label, *columns], quoted=None)
    texts = {name: [cell.strip() for cell in reading.columns[header.index(name)]] for name in (label, *columns)}
    if not reading.rows:
        raise DataError(f"{file}: holds no rows; write some")
    said = {cell for cells in texts.values() for cell in cells if cell}
    numbered = all(cell.isdecimal() for cell in said)
    if not numbered:
        names = names or tuple(sorted(said))
        _refuse_cells(file, texts, names)
    index = {name: at for at, name in enumerate(names)}
    place = {cell: int(cell) if numbered else index[cell] for cell in said}
    classes = len(names) or max(*place.values(), 1) + 1
    if max(place.values()) >= classes:
        raise ParamsError(f"--names: {len(names)} names, and {file} has class {max(place.values())}; name them all")
    answers = np.stack([_places(file, name, texts[name], place) for name in columns], axis=1)
    labels = np.array([np.nan if not cell else place[cell] for cell in texts[label]])
    return one_hot(answers, classes), labels, names


def _refuse_cells(file: Path, texts: dict[str, list[str]], names: Sequence[str]) -> None:
    for column, cells in texts.items():
        for row, cell in enumerate(cells, start=1):
            if cell and cell not in names:
                raise DataError(f"{file}: column {column!r} of row {row}: {shown(cell)} is none of {listed(names)}")
            if _is_number(cell) and not cell.isdecimal():
                raise DataError(
                    f"{file}: column {column!r} of row {row}: {shown(cell)} is no class; tables hold classes, so write "
                    "probabilities or values as .npz"
                )


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _places(file: Path, column: str, cells: Sequence[str], place: dict[str, int]) -> Any:
    if "" in cells:
        raise DataError(f"{file}: column {column!r} of row {cells.index('') + 1} is empty; every exit names a class")
    return [place[cell] for cell in cells]


def one_hot(answers: "np.ndarray", classes: int) -> "np.ndarray":
    """Logits that name a class and nothing more: 0 for it, -inf for the others; (n, exits) to (n, exits, classes)."""
    import numpy as np

    return np.where(answers[:, :, None] == np.arange(classes), 0.0, -np.inf).astype(np.float32)


def of_arrays(
    file: Path, label: str, logits: str, holds: str, names: tuple[str, ...], *, exits_first: bool
) -> tuple["np.ndarray", "np.ndarray", tuple[str, ...]]:
    """Logits, (n, exits, classes), labels, (n,), and the classes' names, of an .npz without pickles.

    Raises:
        DataError: a missing or damaged file, an array that is not there, or of another shape or content.
    """
    import zipfile

    import numpy as np

    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            for name in (logits, label):
                if name not in arrays:
                    raise unknown("array", name, arrays.files, key=f"{file}")
            answers, labels = arrays[logits], arrays[label]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: no .npz of plain arrays ({' '.join(str(error).split())}); write one") from None
    for name, array in ((logits, answers), (label, labels)):
        if array.dtype.kind not in "iufb":
            raise DataError(f"{file}: array {name!r} holds {array.dtype}, not numbers; write numbers")
    flat = holds in ("classes", "values") and answers.ndim == 2
    if not flat and answers.ndim != 3:
        raise DataError(f"{file}: array {logits!r} has shape {answers.shape}; write (rows, exits, classes)")
    if exits_first:
        answers = answers.swapaxes(0, 1)
    return _read_as(file, logits, answers, holds, names), labels.astype(np.float64), names


def _read_as(file: Path, name: str, answers: "np.ndarray", holds: str, names: tuple[str, ...]) -> "np.ndarray":
    """The array as logits."""
    import numpy as np

    if holds == "classes":
        whole = answers.ndim == 2 and bool(np.all((answers >= 0) & (answers == np.floor(answers)) & (answers < 65_536)))
        if not whole:
            raise DataError(f"{file}: array {name!r} is not (rows, exits) of class numbers from 0; write it so")
        return one_hot(answers, max(len(names), int(answers.max(initial=1)) + 1))
    if holds == "values":
        return np.asarray(answers if answers.ndim == 3 else answers[:, :, None], dtype=np.float32)
    if holds == "probabilities":
        if not (np.all(answers >= 0) and np.allclose(answers.sum(axis=2), 1, atol=1e-3)):
            raise DataError(f"{file}: array {name!r} does not sum to 1 over classes; give --holds logits")
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(answers.astype(np.float64)), dtype=np.float32)
    return np.asarray(answers, dtype=np.float32)


def _trace(
    file: Path,
    answers: "np.ndarray",
    labels: "np.ndarray",
    names: tuple[str, ...],
    layers: str | None,
    plain_layers: float | None,
    costs: str | None,
    *,
    hard: bool,
) -> "Trace":
    import numpy as np

    from pipeline.commands.trace_input import named
    from pipeline.evaluation.trace import Trace
    from pipeline.storage import file_hash

    n, exits, classes = answers.shape
    at = np.arange(1.0, exits + 1) if layers is None else _numbers("--layers", layers, exits)
    cost = at if costs is None else _numbers("--costs", costs, exits)
    whole = (plain_layers or at[-1]) * cost[-1] / at[-1]
    with named(file):
        return Trace(
            kind="regression" if classes == 1 else "classification",
            logits=answers,
            labels=labels,
            row_ids=np.arange(n, dtype=np.int64),
            layers=at,
            flops=np.tile(cost, (n, 1)),
            full_flops=np.full(n, whole),
            label_names=names,
            provenance={"imported from": file.name, "sha256": file_hash(file)},
            full_layers=plain_layers,
            hard=hard,
        )


def _numbers(option: str, text: str, exits: int) -> "np.ndarray":
    import numpy as np

    parts = text.split(",")
    if not all(_is_number(part) for part in parts):
        raise ParamsError(f"{option} {text}: are not numbers; give one for each exit, such as 2,4,6")
    if len(parts) != exits:
        raise ParamsError(f"{option} {text}: {len(parts)} for {exits} exits; give one for each")
    return np.array([float(part) for part in parts])
