"""The code that trained a trial, and the changes of code that were declared to change no result."""

from typing import ClassVar

from pipeline.results.base import Part, Result


class TrialCode(Result):
    """`runs/trials/<key>/code.json`: the code that trained a trial, written before it trains."""

    made_by: ClassVar[str] = "finetune"
    names: dict[str, str | None]
    """Names of the inputs that the trial's settings identify by content: task, backbone, hub name."""
    code: str
    """Hash of the code."""
    definitions: dict[str, dict[str, str]]
    """Module to its definitions that the trial uses, each with its hash."""


class CodePair(Part):
    """The code of one kind of trial before a change and after it."""

    before: str
    """Hash of the code before."""
    after: str
    """Hash of the code after."""


class Declaration(Part):
    """One change of the code that changes no result."""

    reason: str
    """The reason why no result changes."""
    date: str
    """Date of the declaration, ISO 8601."""
    since: str
    """The commit that the code was compared with."""
    changed: tuple[str, ...]
    """Modules and definitions that differ."""
    equal: dict[str, CodePair]
    """modality/method to its code before and after, where it differs."""


class CodeEquivalence(Result):
    """`pipeline/code-equivalence.json`, in git with the code: what `python -m pipeline harmless` declared."""

    made_by: ClassVar[str] = "harmless"
    declarations: tuple[Declaration, ...] = ()
    """Declarations in their order."""
