"""Attacking examples with a recipe, by this project's attacker or by TextAttack's."""

from collections.abc import Iterator, Sequence

from pipeline.attacks.candidates import Shared
from pipeline.attacks.examples import Example
from pipeline.attacks.greedy import attack_many
from pipeline.attacks.library import import_textattack
from pipeline.attacks.recipes import build_attack
from pipeline.attacks.reference import attack_one
from pipeline.attacks.resources import Resources
from pipeline.attacks.setting import Setting
from pipeline.attacks.unfit import unattacked, unfit
from pipeline.attacks.victim import Victim
from pipeline.results import Record

LOCKSTEP = 32
"""Examples that share batches on a GPU; on a CPU they run one by one."""


def attack_examples(
    victim: Victim,
    resources: Resources,
    examples: Sequence[Example],
    setting: Setting = Setting(),  # noqa: B008  frozen
    *,
    shared: Shared | None = None,
    width: int | None = None,
) -> Iterator[Record]:
    """Attack examples and yield their records in order; one that cannot be attacked is recorded as skipped, with why.

    Args:
        shared: results that attacks on other defences of the same examples left; they are reused and extended.
        width: examples in lockstep; None: 32 on a GPU, 1 on a CPU. A recipe that draws at random attacks one example
            at a time, with the generators seeded for each, so that no example depends on those before it.
    """
    attack = build_attack(victim, resources, setting)
    if width is None:
        width = LOCKSTEP if victim.device != "cpu" else 1
    encode = next((c.encode for c in attack.constraints if hasattr(c, "encode")), None)
    shared = shared or Shared()
    draws = not attack.use_transformation_cache  # TextAttack's mark of a transformation that draws
    for group in [[example] for example in examples] if draws else [examples]:
        if draws:
            import_textattack().shared.utils.set_seed(setting.seed + group[0].row_id)
        reasons = {example: unfit(example) for example in group}
        fit = [example for example in group if reasons[example] is None]
        if setting.attacker == "own":
            records = attack_many(attack, victim, fit, shared, encode, width)
        else:
            records = (attack_one(attack, victim, example) for example in fit)
        for example in group:
            reason = reasons[example]
            yield next(records) if reason is None else unattacked(victim, example, reason)
