"""Examples that no attack can be run on: each is recorded with its reason, and the others go on."""

from pipeline.attacks.examples import Example, Text
from pipeline.attacks.library import import_textattack
from pipeline.attacks.victim import Memo, Victim
from pipeline.errors import PipelineError, one_line
from pipeline.results import Record


def unfit(example: Example) -> str | None:
    """Why TextAttack would lose a part of the example's text, in one line; None where it would not."""
    separator = import_textattack().shared.AttackedText.SPLIT_TOKEN
    if any(separator in text for text in example.texts):
        return f"the text holds {separator}, which TextAttack puts between the texts of a pair"
    return None


def fault(error: Exception) -> str:
    """The reason of an example whose attack raised an exception.

    Raises:
        PipelineError: `error` is one, which concerns the attack as a whole.
    """
    if isinstance(error, PipelineError):
        raise error
    return f"the attack failed with {one_line(error)}"


def unattacked(victim: Victim, example: Example, reason: str) -> Record:
    """The record of an example that no attack could be run on, with the model's answer to it.

    Args:
        reason: one line.
    """
    memo = Memo()
    text: Text = example.texts[0] if len(example.texts) == 1 else example.texts
    (logits,) = victim.ask([(memo, [text])])
    return Record(
        row_id=example.row_id,
        label=example.label,
        outcome="skipped",
        reason=reason,
        answer_before=int(logits[0].argmax()),
        answer_after=None,
        original=example.texts,
        changed=None,
        queries=1,
        words=sum(len(part.split()) for part in example.texts),
        words_changed=None,
        layers_before=memo.layers[text],
        layers_under_attack=None,
        layers_after=None,
    )
