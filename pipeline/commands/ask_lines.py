"""The commands predict and explain."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.commands.output import print_json

if TYPE_CHECKING:
    from pipeline.commands.ask import Opened

Command = TypeVar("Command", bound=Callable[..., None])
SHOWN_CLASSES = 6
"""Classes whose probabilities a line has room for."""


def asked_of_a_model(command: Command) -> Command:
    """The options that name a model."""
    for option in reversed(
        (
            click.argument("texts", nargs=-1, required=True, metavar="TEXT..."),
            click.option("--task", metavar="NAME", help="May be left out where there is one."),
            click.option("--backbone", metavar="NAME", help="May be left out where there is one."),
            click.option("--method", metavar="NAME", help="Without: the first with early exits."),
            click.option("--criterion", metavar="NAME", help="Without: patience; `full`: all layers."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        command = option(command)
    return command


@click.command()
@asked_of_a_model
def predict(texts: tuple[str, ...], as_json: bool, **names: str | None) -> None:
    """Answer TEXTs with a selected model, and say at which exit each left; a pair is two TEXTs."""
    from pipeline.commands.ask import predict as answer
    from pipeline.commands.ask import texts_of

    opened = _open(names)
    rows = answer(opened, texts_of(texts, len(opened.manifest.columns)))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{_said(row)}  exit {row['exit']} of {len(opened.model.exits)}")


@click.command()
@asked_of_a_model
def explain(texts: tuple[str, ...], as_json: bool, **names: str | None) -> None:
    """Why TEXT left at its exit: what each exit says, and the criterion's score; a pair is two TEXTs."""
    from pipeline.commands.ask import explain as answer
    from pipeline.commands.ask import texts_of

    opened = _open(names)
    rows = [answer(opened, text) for text in texts_of(texts, len(opened.manifest.columns))]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        for line in lines_of(opened, row):
            click.echo(line)


def lines_of(opened: "Opened", row: dict[str, Any]) -> list[str]:
    """An explanation as lines to print."""
    criterion = opened.criterion
    name = "all layers" if criterion is None else criterion.title
    classes = opened.manifest.label_names[:SHOWN_CLASSES] or ("value",)
    widths = [max(len(column), 8) for column in classes]
    score = "" if criterion is None else "  score"
    heads = "  ".join(f"{column:>{width}}" for column, width in zip(classes, widths, strict=True))
    lines = [f"{opened.group.backbone}, {opened.group.method}, {name}", f"exit  layer  {heads}{score}"]
    for at in row["exits"]:
        shares = at.get("probabilities") or {"value": at["value"]}
        cells = "  ".join(f"{shares[column]:>{width}.4f}" for column, width in zip(classes, widths, strict=True))
        asked = at["score"] is not None and at["exit"] <= row["exit"]
        value = f"  {at['score']:.4g}" if asked else ""
        left = "  <- leaves here" if at["exit"] == row["exit"] else "  (not run)" if at["exit"] > row["exit"] else ""
        lines.append(f"{at['exit']:>4}  {at['layer']:>5}  {cells}{value}{left}")
    return [*lines, _why(opened, row)]


def _why(opened: "Opened", row: dict[str, Any]) -> str:
    criterion, last = opened.criterion, row["exits"][-1]
    early = row["exit"] < len(row["exits"])
    if criterion is None:
        reason = "all layers ran, since no criterion was asked"
    elif early:
        score = row["exits"][row["exit"] - 1]["score"]
        reason = f"its score there, {score:.4g}, is the first to reach {criterion.symbol} = {row['threshold']:.4g}"
    elif row["threshold"] is None:
        reason = "evaluate chose to let no row leave early"
    else:
        reason = f"no score before the last exit reached {criterion.symbol} = {row['threshold']:.4g}"
    with_all = f"; all layers would say {_said(last)}" if early else ""
    return f"{_said(row)} at exit {row['exit']}: {reason}{with_all}"


def _said(row: dict[str, Any]) -> str:
    return str(row["answer"]) if row["probability"] is None else f"{row['answer']} ({row['probability']:.3f})"


def _open(names: dict[str, str | None]) -> "Opened":
    from pipeline.commands.ask import open_model
    from pipeline.params import load_params

    return open_model(load_params(), names["task"], names["backbone"], names["method"], names["criterion"])
