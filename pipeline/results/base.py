"""Base classes of stored results: schema version, writing and reading."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ArtifactError
from pipeline.storage import read_json, write_text


class Part(BaseModel):
    """A part of a stored result: immutable, with typed and documented fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Result(Part):
    """A stored JSON file.

    A file has every field of its class, also those with a default: a missing threshold must not mean "never". A
    subclass raises its `schema_version` when a field is added, removed or changes its meaning. A file of another
    version is refused with the command that makes it again.
    """

    schema_version: ClassVar[int] = 2
    """Version 1 were dictionaries without classes."""
    made_by: ClassVar[str]
    """The stage, or the command, that writes the file."""

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
        payload = read_json(path, cls.schema_version, remedy)
        del payload["schema"]
        try:
            # From JSON, since strict validation then takes arrays for tuples.
            result = cls.model_validate_json(json.dumps(payload))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            reason = first["msg"][0].lower() + first["msg"][1:]
            raise ArtifactError(f"{path}: {field}: {reason}; {remedy}") from None
        for field in _absent(result):
            raise ArtifactError(f"{path}: {field}: field required; {remedy}")
        return result


def _absent(value: object, place: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted names of fields that the file lacks, so that they have their default."""
    if isinstance(value, Part):
        fields = type(value).model_fields
        yield from (".".join((*place, name)) for name in fields if name not in value.model_fields_set)
        parts: Iterable[tuple[object, object]] = ((name, getattr(value, name)) for name in fields)
    elif isinstance(value, (tuple, list)):
        parts = enumerate(value)
    elif isinstance(value, dict):
        parts = value.items()
    else:
        return
    for name, part in parts:
        yield from _absent(part, (*place, str(name)))
