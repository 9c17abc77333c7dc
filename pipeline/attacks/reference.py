"""TextAttack's own attacker, the reference: this project's attacker gives the same results."""

from collections import OrderedDict
from typing import Any

from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack
from pipeline.attacks.records import Outcome, record_of
from pipeline.attacks.unfit import fault, unattacked
from pipeline.attacks.victim import Victim
from pipeline.results import Record


def attack_one(attack: Any, victim: Victim, example: Example) -> Record:
    """Attack one example and record the result.

    TextAttack's outermost loop (`Attacker`) is not used: it prints, and moves the victim to any GPU.
    """
    attack.clear_cache()  # so that the victim answers the original again and counts its layers
    victim.forget()
    try:
        result = attack.attack(as_input(example.texts), example.label)
    except Exception as error:  # TextAttack trips over some texts
        return unattacked(victim, example, fault(error))
    before, after = result.original_result, result.perturbed_result
    return record_of(
        example,
        _outcome(result),
        (before.attacked_text, int(before.output)),
        (after.attacked_text, int(after.output)),
        queries=int(attack.goal_function.num_queries),
        layers=victim.memo.layers,
    )


def as_input(texts: tuple[str, ...]) -> str | OrderedDict[str, str]:
    """An example's texts as TextAttack takes them: a pair under the names that recipes expect."""
    return texts[0] if len(texts) == 1 else OrderedDict(zip(("premise", "hypothesis"), texts, strict=True))


def _outcome(result: Any) -> Outcome:
    results = import_textattack().attack_results
    if isinstance(result, results.SkippedAttackResult):
        return "skipped"
    return "successful" if isinstance(result, results.SuccessfulAttackResult) else "failed"
