"""Base classes of stored results: schema version, writing and reading, and the checks that they share.

A class refuses what no stage writes: a number out of its range, parallel lists of other lengths, a name that is there
twice or names nothing. So readers need no checks of their own.
"""

import json
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from pipeline.errors import ArtifactError, one_line, shown
from pipeline.storage import read_json, write_text

Count = Annotated[int, Field(ge=0, le=2**53)]
Natural = Annotated[int, Field(ge=1, le=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=1e30)]
"""Seconds, milliseconds, layers, queries, words."""
Positive = Annotated[float, Field(gt=0)]
"""Settings that may be of any size."""
Ratio = Annotated[float, Field(gt=0, le=1e30)]
"""Speed-ups."""
Fraction = Annotated[float, Field(ge=0, le=1)]
"""Shares and probabilities."""
Score = Annotated[float, Field(ge=-1, le=1)]
"""Metrics: shares, and correlations, which may be below 0."""
Value = Annotated[float, Field(ge=-1e30, le=1e30)]
"""Numbers of either sign."""
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A name, on one line."""

Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]*$")]
"""A name that files and folders have: a task, split, backbone or trial's key. It cannot lead out of its folder."""


def refuse_repeats(name: str, values: Iterable[Hashable]) -> None:
    """Raise ValueError where a value is there twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name}: {shown(value)} is there twice")
        seen.add(value)


def refuse_lengths(expected: int, of: str, **lists: Collection[object] | None) -> None:
    """Raise ValueError where a list has another length than what it is parallel to."""
    for name, values in lists.items():
        if values is not None and len(values) != expected:
            raise ValueError(f"{name} has {len(values)} entries for {expected} {of}")


def refuse_descending(name: str, values: tuple[float, ...]) -> None:
    """Raise ValueError where values are none, or not each above the one before."""
    if not values or any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"{name}: {shown(values)} do not ascend")


def refuse_other_names(name: str, given: Iterable[Hashable], known: Iterable[Hashable]) -> None:
    """Raise ValueError where two sets of names differ."""
    given, known = set(given), set(known)
    for one in sorted(given - known, key=str):
        raise ValueError(f"{name}: {shown(one)} names nothing")
    for one in sorted(known - given, key=str):
        raise ValueError(f"{name}: {shown(one)} is missing")


FILE = object()
"""Context of the validation of a file."""


class Part(BaseModel):
    """A part of a stored result: immutable, with typed and documented fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def check(self) -> None:
        """Raise ValueError where fields do not go together; overridden by parts with such fields."""

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if info.context is not FILE:  # `Result.read` checks once it knows that no field is missing
            self.check()
        return self


class Result(Part):
    """A stored JSON file.

    A file has every field of its class, also those with a default: a missing threshold must not mean "never". A
    subclass raises its `schema_version` when a field is added, removed or changes its meaning. A file of another
    version is refused with the command that makes it again, unless `older` can migrate it.
    """

    schema_version: ClassVar[int] = 2
    """Version 1 were dictionaries without classes."""
    older: ClassVar[Mapping[int, Callable[[Any], None]]] = {}
    """By version that is still read: changes a file's content in place to that of the next version."""
    made_by: ClassVar[str]
    """The stage, or the command, that writes the file."""
    named_by_task: ClassVar[bool] = True
    """Whether the file of a task, or its folder, has the task's name."""

    def text(self) -> str:
        """Canonical JSON: sorted keys, two spaces, one line break at the end."""
        payload = {"schema": self.schema_version, **self.model_dump(mode="json")}
        return json.dumps(payload, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> Path:
        """Write the file atomically."""
        return write_text(path, self.text())

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """Read a file that `write` wrote.

        Args:
            remedy: the end of the message, such as "run `dvc repro finetune`".

        Raises:
            ArtifactError: missing, cut short, of another schema version, or with a missing or wrong field.
        """
        payload = read_json(path, (cls.schema_version, *cls.older), remedy)
        version = payload.pop("schema")
        try:
            for old in range(version, cls.schema_version):
                cls.older[old](payload)
            # From JSON, since strict validation then takes arrays for tuples.
            result = cls.model_validate_json(json.dumps(payload), context=FILE)
        except (LookupError, TypeError) as error:
            raise ArtifactError(f"{path}: no content of schema {version} ({one_line(error)}); {remedy}") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = " ".join(".".join(str(part) for part in first["loc"]).split())
            reason = first["msg"][0].lower() + first["msg"][1:]
            raise ArtifactError(f"{path}: {field}: {reason}; {remedy}") from None
        for field in _absent(result):
            raise ArtifactError(f"{path}: {field}: field required; {remedy}")
        for place, part in reversed([*parts_of(result)]):  # the inner ones first
            try:
                part.check()
            except ValueError as error:
                raise ArtifactError(f"{path}: {f'{place}: ' if place else ''}{error}; {remedy}") from None
        task = getattr(result, "task", None) if cls.named_by_task else None
        if task is not None and task not in (path.stem, path.parent.name):
            raise ArtifactError(f"{path}: task: {shown(task)} is not the task whose file this is; {remedy}")
        return result


def parts_of(value: object, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Part]]:
    """Every part within a value, itself included, with its dotted place."""
    parts: Iterable[tuple[object, object]]
    if isinstance(value, Part):
        yield ".".join(place), value
        parts = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, (tuple, list)):
        parts = enumerate(value)
    elif isinstance(value, dict):
        parts = value.items()
    else:
        return
    for name, part in parts:
        yield from parts_of(part, (*place, str(name)))


def _absent(result: Part) -> Iterator[str]:
    """Dotted names of fields that the file lacks, so that they have their default."""
    for place, part in parts_of(result):
        for name in type(part).model_fields:
            if name not in part.model_fields_set:
                yield f"{place}.{name}" if place else name
