"""A request to an exported model, and what is said to it: one form for HTTP, Ray Serve and MLflow.

    asked = read_request(body, Limits())
    ready = prepare(model, asked)
    leaving = model.segments.answer(ready.inputs, ready.rule)
    said = reply(model, asked, leaving, seconds)

or `answer`, where no other request's rows run beside it. It needs what `Deployed` needs, and pydantic.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import PipelineError, nearest, shown
from pipeline.evaluation.asked import Decision
from pipeline.evaluation.leaving import Leaving, Rule
from pipeline.models.deploy.runtime import Answer, Deployed
from pipeline.models.deploy.segments import Arrays
from pipeline.settings import Size

SIDE = 32
"""Pixels on a side of an image."""
BATCH = 64
"""Rows of a request that run together, where it runs alone."""


class RequestError(PipelineError):
    """A request that cannot be answered; the text names the key, its value and the remedy."""

    status: ClassVar[int] = 400
    """Of HTTP."""


class TooLargeError(RequestError):
    """A request beyond a limit of its size."""

    status: ClassVar[int] = 413


class Limits(BaseModel):
    """What a request may hold at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: Size = 64
    """Rows of a request."""
    characters: Size = 10_000
    """Characters of a text, each of a pair."""
    body_bytes: Annotated[int, Field(ge=1, le=2**30, strict=True)] = 4 * 2**20
    """Bytes of a request's body."""


class Asked(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    rows: list[Any]
    """Texts; pairs of texts as lists of two; or images, each 32 rows of 32 pixels of 3 numbers from 0 to 255."""
    criterion: str | None = None
    """A criterion's name, or "full" for all layers; None: the one that selection rows prefer, if any."""
    threshold: float | None = Field(None, allow_inf_nan=False)
    """None: the one that was chosen for this precision."""
    settings: dict[str, float] | None = None
    """Of the criterion; None: those of its exported point. Others need a threshold."""
    id: str | None = Field(None, min_length=1, max_length=128)
    """The client's name for the request, said again in the answer: a request is answered the same way however often it
    is sent."""


class RowAnswer(BaseModel):
    """The answer to a row."""

    label: str | float
    """Name of the class; the value of a regression."""
    probabilities: dict[str, float] | None
    """By class; None for a regression."""
    exit: int
    """The exit that answered, counted from 1."""
    layer: int
    """Layers that were run."""


class Identity(BaseModel):
    """Which model answered."""

    task: str
    backbone: str
    method: str
    seed: int
    key: str
    """Of its trial."""
    weights_sha256: str


class Said(BaseModel):
    """What is said to a request."""

    id: str | None
    """The client's name for the request."""
    answers: list[RowAnswer]
    """In the order of the rows."""
    criterion: str
    """The criterion that decided; "full": all layers."""
    threshold: float | None
    """Its threshold; None: no row leaves early."""
    precision: str
    """float32 or int8."""
    capped: bool = False
    """Whether the rows had to leave before the last exit, since the cap on extra cost held."""
    model: Identity
    seconds: float
    """From the request's arrival to its answer, on the server."""


@dataclass(frozen=True)
class Ready:
    """A request as the graphs take it.

    Attributes:
        criterion: name of the criterion, or "full".
    """

    inputs: Arrays
    rule: Rule
    criterion: str


def read_request(body: bytes, limits: Limits) -> Asked:
    """Read a request's JSON.

    Raises:
        RequestError: no JSON, an unknown key, a value of another type, or no row.
        TooLargeError: beyond a limit.
    """
    if len(body) > limits.body_bytes:
        raise TooLargeError(f"body: more than {limits.body_bytes:,} bytes; send the rows in several requests")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError: also of bytes that are no text
        reason = " ".join(str(error).split())[:120]
        raise RequestError(f'body: no JSON ({reason}); send {{"rows": [...]}}') from None
    return check_request(given, limits)


def check_request(given: Any, limits: Limits) -> Asked:
    """A request from its mapping; raises as `read_request`."""
    if not isinstance(given, dict):
        raise RequestError(f'body: {shown(given)} is no object; send {{"rows": [...]}}')
    for key in given:
        if key not in Asked.model_fields:
            raise RequestError(f"{shown(key)}: no such key{nearest(str(key), Asked.model_fields)}")
    try:
        asked = Asked.model_validate(given)
    except ValidationError as error:
        raise RequestError(_line(error)) from None
    if not asked.rows:
        raise RequestError("rows: [] holds no row; give one or more")
    if len(asked.rows) > limits.rows:
        raise TooLargeError(f"rows: {len(asked.rows)} are more than {limits.rows}; send them in several requests")
    for i, row in enumerate(asked.rows):
        for text in row if isinstance(row, (list, tuple)) else [row]:
            if isinstance(text, str):
                _check_text(f"rows.{i}", text, limits)
    return asked


REMEDIES = {
    "missing": "is missing; give it",
    "list_type": "is no list; give a list of rows",
    "string_type": "is no text; give a name in quotes",
    "float_type": "is no number; give one",
    "finite_number": 'is not finite; give a number, or the criterion "full" for all layers',
    "dict_type": "is no object; give numbers by name",
    "string_too_short": "is empty; leave the key out, or give 1 to 128 characters",
    "string_too_long": "is too long; give 1 to 128 characters",
}
"""What to say of a value, by the type of pydantic's error."""


def _line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    key, kind = ".".join(map(str, first["loc"])), first["type"]
    said = REMEDIES.get(kind, f"is refused ({first['msg']}); give another")
    return f"{key}: {said}" if kind == "missing" else f"{key}: {shown(first['input'])} {said}"


def _check_text(key: str, text: str, limits: Limits) -> None:
    if len(text) > limits.characters:
        raise TooLargeError(f"{key}: {len(text):,} characters are more than {limits.characters:,}; shorten the text")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(f"{key}: {shown(text)} holds half of a character (a lone surrogate); remove it")


def prepare(model: Deployed, asked: Asked) -> Ready:
    """A request's rows as a batch, with the rule that decides.

    Raises:
        RequestError: rows of another kind than the model's.
        ParamsError, UnsupportedError: as `pipeline.evaluation.asked.asked`, or a criterion that the model cannot run.
    """
    decision, rule = _rule(model, asked)
    return Ready(model.inputs(_rows(model, asked)), rule, decision.name)


def answer(model: Deployed, asked: Asked, started: float) -> Said:
    """Answer a request that came at `started` (`time.perf_counter`), `BATCH` rows at a time.

    Raises:
        RequestError, ParamsError, UnsupportedError: as `prepare`.
        InvalidLogitsError: an exit answered NaN.
    """
    (_, rule), rows = _rule(model, asked), _rows(model, asked)
    together = Leaving(rule, len(rows))
    for part in (slice(first, first + BATCH) for first in range(0, len(rows), BATCH)):
        leaving = model.segments.answer(model.inputs(rows[part]), rule)
        together.logits[part], together.exit_index[part] = leaving.logits, leaving.exit_index
    return reply(model, asked, together, time.perf_counter() - started)


def _rule(model: Deployed, asked: Asked) -> tuple[Decision, Rule]:
    decision = model.criterion(asked.criterion, asked.threshold, asked.settings)
    return decision, model.segments.rule(*decision)


def _rows(model: Deployed, asked: Asked) -> Any:
    return images_of(asked.rows) if model.tokenizer is None else texts_of(asked.rows, len(model.description["columns"]))


def texts_of(rows: list[Any], columns: int) -> list[Any]:
    """A request's rows as texts, or as tuples of them where a row has several; raises RequestError."""
    for i, row in enumerate(rows):
        parts = row if isinstance(row, (list, tuple)) and columns > 1 else [row]
        if len(parts) != columns or not all(isinstance(part, str) for part in parts):
            wanted = "a text" if columns == 1 else f"a list of {columns} texts"
            raise RequestError(f"rows.{i}: {shown(row)} is not {wanted}; give {wanted} per row")
    return rows if columns == 1 else [tuple(row) for row in rows]


def images_of(rows: list[Any]) -> np.ndarray:
    """A request's rows as images, (n, 32, 32, 3) uint8; raises RequestError."""
    remedy = f"give {SIDE} rows of {SIDE} pixels of 3 whole numbers from 0 to 255"
    for i, row in enumerate(rows):
        try:
            image = np.asarray(row)
        except ValueError:  # of several lengths
            raise RequestError(f"rows.{i}: {shown(row)} is no image; {remedy}") from None
        if image.shape != (SIDE, SIDE, 3) or image.dtype.kind not in "iu" or image.min() < 0 or image.max() > 255:
            raise RequestError(f"rows.{i}: {shown(row)} is no image; {remedy}")
    return np.asarray(rows).astype(np.uint8)


def reply(model: Deployed, asked: Asked, leaving: Leaving, seconds: float) -> Said:
    """What is said to a request whose rows have left."""
    decision = Decision(leaving.rule.criterion, leaving.rule.threshold)
    answers, capped = model.answers(leaving), leaving.rule.capped
    return said_of(asked, decision, answers, model.precision, identity(model), seconds, capped)


def said_of(
    asked: Asked,
    decision: Decision,
    answers: Sequence[Answer],
    precision: str,
    model: Identity,
    seconds: float,
    capped: bool = False,
) -> Said:
    """What is said to a request, whichever engine answered it."""
    return Said(
        id=asked.id,
        answers=[RowAnswer(**vars(answer)) for answer in answers],
        criterion=decision.name,
        threshold=decision.stored_threshold,
        precision=precision,
        capped=capped,
        model=model,
        seconds=seconds,
    )


def identity(model: Deployed) -> Identity:
    """Which model this is."""
    return Identity(**{name: model.description[name] for name in Identity.model_fields})
