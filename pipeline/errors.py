"""Every error a user can cause, as one tree.

PipelineError                 one line: key or file, value, remedy; the process ends with exit code 1
├── ParamsError               params.yaml: unknown name, wrong type, impossible value
├── DataError                 a source, file, column, split or label
├── ArtifactError             a trace, checkpoint, token store or result: missing, cut short, other schema
├── UnsupportedError          a combination without a meaning (confidence on regression)
├── InvalidLogitsError        NaN where a criterion must decide
├── StorageError              a disk that is full, read-only, or not ours to write
├── TrialsFailedError         every trial of a grid failed, or the run was interrupted
├── ClusterError              Ray: unreachable address, storage that nodes do not share, a second driver
└── TrackingError             MLflow: unreachable server, unusable database
"""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PipelineError(Exception):
    """Base of all errors that a user can cause; the text is one line and names the remedy."""


class ParamsError(PipelineError):
    """params.yaml holds an unknown name, a wrong type or an impossible value."""


class DataError(PipelineError):
    """A data source, file, column, split or label is missing or wrong."""


class ArtifactError(PipelineError):
    """A stored artifact is missing, cut short, or of another schema version."""


class UnsupportedError(PipelineError):
    """A combination of settings without a meaning."""


class InvalidLogitsError(PipelineError):
    """A model answered with NaN, on which no criterion can decide."""


class StorageError(PipelineError):
    """A file or folder cannot be written or read as the disk is."""


class TrialsFailedError(PipelineError):
    """No trial of a group finished, or a run was interrupted."""


class ClusterError(PipelineError):
    """The Ray cluster cannot be used as asked."""


class TrackingError(PipelineError):
    """The MLflow store cannot be used as asked."""


def shown(value: object, limit: int = 80) -> str:
    """A user's value for a message: on one line and short; bytes as their number.

    >>> shown("so-so"), shown(b"PNG"), shown("a" * 100_000, limit=12)
    ("'so-so'", '3 bytes', "'aaaaaaaa...")
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    plain = value is None or isinstance(value, (str, int, float, list, tuple, dict))
    try:
        text = repr(value if plain else str(value))  # without the name of a Python class
    except ValueError:  # Python writes integers of up to 4,300 digits
        return "a number of more than 4,300 digits"
    except RecursionError:
        return "a value nested too deeply"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def listed(names: Iterable[object], limit: int = 10) -> str:
    """A user's names for a message, without quotes where they are plain words; the first ones of many.

    >>> listed(["bad", "good"]), listed(["two\\nlines"]), listed(range(100), limit=2)
    ('bad, good', "'two\\\\nlines'", '0, 1 and 98 more')
    """
    names = list(names)
    words = [
        text if 0 < len(text) <= 40 and text.isprintable() else shown(text, 40) for text in map(str, names[:limit])
    ]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(words) + more


REMEDIES = {
    errno.ENOSPC: "free some space, then run it again",
    errno.EDQUOT: "free some space, then run it again",
    errno.EROFS: "put the project on a disk that can be written",
    errno.EACCES: "give this user the right to read and write it",
    errno.EPERM: "give this user the right to read and write it",
    errno.EEXIST: "move it away",
    errno.ENOTDIR: "move what is in the way",
    errno.EISDIR: "move it away",
}
"""What a user can do about a disk, by what the system answers."""


def storage_error(error: OSError) -> StorageError | None:
    """The error of a disk that refuses, with its remedy; None for another fault.

    >>> storage_error(PermissionError(errno.EACCES, "Permission denied", "outputs/report"))
    StorageError('outputs/report: Permission denied; give this user the right to read and write it')
    """
    if error.errno not in REMEDIES:
        return None
    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    where = f"{' or '.join(places)}: " if places else ""
    return StorageError(f"{where}{error.strerror}; {REMEDIES[error.errno]}")


_SECRET = "[secret]"
_SECRETS = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"(?<=://)[^\s/@'\"]*:[^\s/@'\"]*@", ""),  # the user and password of an address
        (r"(?i)([?&][\w-]*(?:password|token|secret|signature|credential|key)[\w-]*=)[^\s&'\"]+", r"\1" + _SECRET),
        (r"(?i)\b((?:bearer|basic) )[\w.~+/=-]{8,}", r"\1" + _SECRET),
        (r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-)\w{16,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", _SECRET),
    )
)
_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|CREDENTIAL|(ACCESS|API|SECRET)_KEY)(_ID|S)?$")


def redacted(text: str) -> str:
    """The text without what logs, runs and reports must not show.

    That is the user and password of an address, tokens by their form, and the value of each environment variable whose
    name ends as those of secrets do.

    >>> redacted("no answer from http://ann:pass@host:5000/x?token=abc")
    'no answer from http://host:5000/x?token=[secret]'
    """
    for name, value in os.environ.items():
        if len(value) >= 8 and not value.startswith("/") and _SECRET_NAME.search(name):
            text = text.replace(value, _SECRET)
    for pattern, into in _SECRETS:
        text = pattern.sub(into, text)
    return text


def one_line(error: BaseException) -> str:
    """An error in one line without secrets: a PipelineError's own, or the type and the first line of any other.

    >>> one_line(ParamsError("seeds: give one")), one_line(KeyError("label")), one_line(ValueError())
    ('seeds: give one', "KeyError: 'label'", 'ValueError')
    """
    text = redacted(str(error))
    if isinstance(error, PipelineError):  # its paths and libraries may have put line breaks into it
        return " ".join(text.split("\n"))
    text = " ".join((text.strip().splitlines() or [""])[0].split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def exit_with_one_line(name: str = "error") -> Iterator[None]:
    """End the process on a PipelineError, or a disk that refuses, with its one line after `name` and exit code 1.

    Another error keeps its traceback, less the secrets that are in it.
    """
    try:
        yield
    except Exception as error:
        known = storage_error(error) if isinstance(error, OSError) else error
        if isinstance(known, PipelineError):
            said = f"{name}: {one_line(known)}"
        elif redacted(text := traceback.format_exc().rstrip()) != text:
            said = redacted(text)
        else:
            raise
        print(said, file=sys.stderr)
        raise SystemExit(1) from None


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of the known names as a question, and all of them, for the end of a message."""
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"{f'; did you mean {near[0]!r}?' if near else ';'} (known: {', '.join(names)})"


def unknown(kind: str, name: str, names: Iterable[str], *, key: str | None = None) -> ParamsError:
    """Build the error for an unknown name, with the most similar known name.

    >>> str(unknown("criterion", "patiense", ["patience", "entropy"], key="evaluate.criteria"))
    "evaluate.criteria: unknown criterion 'patiense'; did you mean 'patience'? (known: entropy, patience)"
    """
    return ParamsError(f"{f'{key}: ' if key else ''}unknown {kind} {shown(name)}{nearest(name, names)}")
