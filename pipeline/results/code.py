"""Which code trained a trial, and which changes of the code were declared to change no result."""

from typing import ClassVar

from pipeline.results.base import Part, Result


class TrialCode(Result):
    """`runs/trials/<key>/code.json`: the code that trained a trial, written before it trains."""

    made_by: ClassVar[str] = "finetune"
    names: dict[str, str | None]
    """What its settings identify by content, by name: the task, the backbone, the hub's name."""
    code: str
    """Hash of the code."""
    definitions: dict[str, dict[str, str]]
    """Module to the hash of each of its definitions that the trial reaches."""


class CodePair(Part):
    """The code of one kind of trial before a change and after it."""

    before: str
    """Hash of the code before."""
    after: str
    """Hash of the code after."""


class Declaration(Part):
    """One change of the code that changes no result."""

    reason: str
    """Why, in the words of who declared it."""
    date: str
    """Of the declaration, ISO 8601."""
    since: str
    """The commit that the code was compared with."""
    changed: tuple[str, ...]
    """The modules that differ, with their definitions that do."""
    equal: dict[str, CodePair]
    """modality/method to its code before and after, wherever it differs."""


class CodeEquivalence(Result):
    """`pipeline/code-equivalence.json`, in git with the code: what `python -m pipeline harmless` declared."""

    made_by: ClassVar[str] = "harmless"
    declarations: tuple[Declaration, ...] = ()
    """In the order in which they were made."""
