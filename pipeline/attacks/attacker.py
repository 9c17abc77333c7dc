"""Attack examples with a recipe, by our attacker or by TextAttack's."""

from collections.abc import Iterator, Sequence

from pipeline.attacks.candidates import Shared
from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack
from pipeline.attacks.own import attack_many
from pipeline.attacks.recipes import build_attack
from pipeline.attacks.reference import attack_one
from pipeline.attacks.resources import Resources
from pipeline.attacks.setting import Setting
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
    """Attack examples; the records in their order.

    Args:
        shared: what other defences of the same examples found out already.
        width: examples in lockstep; None: as many as the device wants. Recipes that draw at random go one by one,
            and each example has generators of its own, so that none depends on which came before.
    """
    attack = build_attack(victim, resources, setting)
    if width is None:
        width = LOCKSTEP if victim.device != "cpu" else 1
    encode = next((c.encode for c in attack.constraints if hasattr(c, "encode")), None)
    shared = shared or Shared()
    random = not attack.use_transformation_cache  # how TextAttack says that a transformation draws
    for group in [[example] for example in examples] if random else [examples]:
        if random:
            import_textattack().shared.utils.set_seed(setting.seed + group[0].row_id)
        if setting.attacker == "own":
            yield from attack_many(attack, victim, group, shared, encode, width)
        else:
            yield from (attack_one(attack, victim, example) for example in group)
