"""The commands predict and explain."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.commands.output import print_json

if TYPE_CHECKING:
    from pipeline.commands.ask import Explanation, Opened
    from pipeline.models.deploy.runtime import Answer

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
            click.option("--criterion", metavar="NAME", help="Without: the preferred one; `full`: all layers."),
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
    answers = answer(opened, texts_of(texts, len(opened.manifest.columns)))
    if as_json:
        print_json([_as_json(one) | {"layers": one.layer} for one in answers])
        return
    click.echo(_about(opened), err=True)
    for one in answers:
        click.echo(f"{_said(one)}  exit {one.exit} of {len(opened.model.exits)}")


@click.command()
@asked_of_a_model
def explain(texts: tuple[str, ...], as_json: bool, **names: str | None) -> None:
    """Why TEXT left at its exit: what each exit says, and the criterion's score; a pair is two TEXTs."""
    from pipeline.commands.ask import explain as answer
    from pipeline.commands.ask import texts_of

    opened = _open(names)
    explanations = [answer(opened, text) for text in texts_of(texts, len(opened.manifest.columns))]
    if as_json:
        print_json([explanation_as_json(one) for one in explanations])
        return
    for one in explanations:
        for line in lines_of(opened, one):
            click.echo(line)


def _as_json(answer: "Answer") -> dict[str, Any]:
    """An answer as JSON, without its layer."""
    shares = {} if answer.probabilities is None else {"probabilities": answer.probabilities}
    return {"answer": answer.label, "probability": answer.probability, "exit": answer.exit, **shares}


def explanation_as_json(explanation: "Explanation") -> dict[str, Any]:
    """An explanation as JSON."""
    answer = explanation.answer
    exits = [
        _as_json(at) | {"layer": at.layer, "score": score} | ({} if at.probabilities else {"value": at.label})
        for at, score in zip(explanation.exits, explanation.scores, strict=True)
    ]
    left = {"layers": answer.layer, "threshold": explanation.threshold, "exits": exits}
    return {name: value for name, value in _as_json(answer).items() if name != "probabilities"} | left


def lines_of(opened: "Opened", explanation: "Explanation") -> list[str]:
    """An explanation as lines to print."""
    criterion = opened.decision.criterion
    classes = opened.manifest.label_names[:SHOWN_CLASSES] or ("value",)
    widths = [max(len(column), 8) for column in classes]
    score = "" if criterion is None else "  score"
    heads = "  ".join(f"{column:>{width}}" for column, width in zip(classes, widths, strict=True))
    lines = [f"{opened.group.backbone}, {opened.group.method}, {_rule(opened)}", f"exit  layer  {heads}{score}"]
    left = explanation.answer.exit
    for at, score_there in zip(explanation.exits, explanation.scores, strict=True):
        shares = at.probabilities or {"value": float(at.label)}
        cells = "  ".join(f"{shares[column]:>{width}.4f}" for column, width in zip(classes, widths, strict=True))
        value = f"  {score_there:.4g}" if score_there is not None and at.exit <= left else ""
        note = "  <- leaves here" if at.exit == left else "  (not run)" if at.exit > left else ""
        lines.append(f"{at.exit:>4}  {at.layer:>5}  {cells}{value}{note}")
    return [*lines, _why(opened, explanation)]


def _why(opened: "Opened", explanation: "Explanation") -> str:
    criterion, answer, last = opened.decision.criterion, explanation.answer, explanation.exits[-1]
    score = explanation.scores[answer.exit - 1]
    if criterion is None:
        reason = "all layers ran, since no criterion was asked"
    elif score is not None:
        limit = f"{criterion.symbol} = {explanation.threshold:.4g}"
        reason = f"its score there, {score:.4g}, is the first to reach {limit}"
    elif explanation.threshold is None:
        reason = "evaluate chose to let no row leave early"
    else:
        reason = f"no score before the last exit reached {criterion.symbol} = {explanation.threshold:.4g}"
    with_all = f"; all layers would say {_said(last)}" if answer.exit < last.exit else ""
    return f"{_said(answer)} at exit {answer.exit}: {reason}{with_all}"


def _said(answer: "Answer") -> str:
    if answer.probability is None:
        return f"{float(answer.label):.4f}"
    return f"{answer.label} ({answer.probability:.3f})"


def _open(names: dict[str, str | None]) -> "Opened":
    from pipeline.commands.ask import open_model
    from pipeline.evaluation.diagnosis import NOTHING
    from pipeline.params import load_params

    opened = open_model(load_params(), names["task"], names["backbone"], names["method"], names["criterion"])
    if not opened.learned:
        click.echo(f"beware: {NOTHING}", err=True)
    return opened


def _about(opened: "Opened") -> str:
    """The model that answers, and by which rule."""
    criterion, threshold = opened.decision.criterion, opened.decision.stored_threshold
    at = "" if criterion is None or threshold is None else f" {criterion.symbol} = {threshold:.4g}"
    return f"{opened.group.backbone}, {opened.group.method}, {_rule(opened)}{at}"


def _rule(opened: "Opened") -> str:
    return "all layers" if opened.decision.criterion is None else opened.decision.criterion.title
