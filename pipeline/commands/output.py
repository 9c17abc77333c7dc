"""What a command prints as JSON, and the file that it writes where the user said, or params.yaml."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, ParamsError
from pipeline.layout import HERE
from pipeline.storage import content_key


def print_json(payload: Any) -> None:
    """Print JSON; NaN, which JSON has not, is null."""
    import json

    import click

    click.echo(json.dumps(_defined(payload), indent=2, ensure_ascii=False, allow_nan=False))


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _defined(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def refuse_output(out: Path, suffixes: Sequence[str], option: str = "--out") -> None:
    """Raise ParamsError, before any work, where `out` is a folder or has another suffix than one of these."""
    if suffixes and out.suffix not in suffixes:
        raise ParamsError(f"{option} {out}: does not end in {' or '.join(suffixes)}; give a name that does")
    if out.is_dir():
        raise ParamsError(f"{option} {out}: is a folder; name a file in it, such as {out / f'out{out.suffix}'}")


def refuse_edits(what: str, instead: str = "") -> None:
    """Raise ParamsError where params.yaml holds what neither a profile nor `init` wrote, which `what` would overwrite.

    Args:
        instead: a further remedy, for the message.
    """
    texts = {path.read_bytes() for path in HERE.profiles.glob("*.yaml")}
    if HERE.params.is_file() and (text := HERE.params.read_bytes()) not in texts and not _signed(text):
        raise ParamsError(
            f"{HERE.params}: holds edits of yours that {what} would overwrite; save them as profiles/<name>.yaml, "
            f"or undo them with `git checkout params.yaml`{instead}"
        )


MARK = "# as init wrote it: "


def signed(text: str) -> str:
    """A text with a last line by which it is seen that nobody edited it."""
    return f"{text}{MARK}{content_key({'text': text})}\n"


def _signed(text: bytes) -> bool:
    before, _, _ = text.decode(errors="replace").rpartition(MARK)
    return signed(before).encode() == text


@contextmanager
def writing(out: Path, option: str = "--out") -> Iterator[None]:
    """Turn a place that cannot be written into one line."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{option} {out}: cannot be written ({error.strerror or error}); name another file"
        ) from None
