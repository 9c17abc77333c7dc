"""What a worker does: attack some examples, or ask one model about a pool of texts, and store the answer by its key."""

import gc
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pipeline.attacks.defences import Defence
from pipeline.attacks.examples import Example
from pipeline.attacks.needs import Named
from pipeline.attacks.pooled import Pool, ask
from pipeline.attacks.setting import Setting
from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.models.device import device_of
from pipeline.results import Record, ShardRecords

if TYPE_CHECKING:
    from pipeline.attacks.resources import Resources
    from pipeline.attacks.victim import Victim

RUNNER = "pipeline.attacks.shards:run_shard"
POOL_RUNNER = "pipeline.attacks.shards:run_pool"


@dataclass(frozen=True)
class Shard:
    """Some examples, attacked by one worker so that the defences share what was found of each.

    Attributes:
        defences: those not done yet, each with the key that its records are stored under.
    """

    task: str
    examples: tuple[Example, ...]
    defences: tuple[tuple[str, Defence], ...]
    setting: Setting
    resources: Named
    device: str
    threads: int


def run_shard(shard: Shard) -> int:
    """Attack a shard, in a worker; each defence's records are stored as soon as they are whole.

    Returns:
        How many defences were attacked.
    """
    import torch

    from pipeline.attacks.attacker import attack_examples
    from pipeline.attacks.candidates import Shared
    from pipeline.attacks.library import import_textattack

    import_textattack()  # before there is a model, which would stay with all that is there then
    torch.set_num_threads(shard.threads)
    device = device_of(shard.device)
    resources = _resources(shard.resources, device, shard.setting.recipe)
    shared = Shared()
    for key, defence in shard.defences:
        victim = _victim(shard.task, defence, device)
        records = tuple(attack_examples(victim, resources, shard.examples, shard.setting, shared=shared))
        stored = ShardRecords(defence=defence.name, trial=defence.key, point=defence.point, records=records)
        stored.write(HERE.shard(shard.task, key))
        del victim
        gc.collect()  # an attack of TextAttack's is a cycle that holds the model; by themselves hundreds of MB pile up
    return len(shard.defences)


def run_pool(pool: Pool) -> None:
    """Ask one model about the texts that were found against all, in a worker."""
    import torch

    torch.set_num_threads(pool.threads)
    ask(_victim(pool.task, pool.defence, device_of(pool.device)), pool)


def read_records(task: str, key: str) -> tuple[Record, ...] | None:
    """What a shard left of one defence; None if it is not done, or what it left cannot be read."""
    try:
        return ShardRecords.read(HERE.shard(task, key), "").records
    except ArtifactError:
        return None


@cache
def _resources(named: Named, device: str, recipe: str) -> "Resources":
    """Loaded once per process, which attacks many shards."""
    from pipeline.attacks.resources import resolve

    return resolve(named, device, recipe)


def _victim(task: str, defence: Defence, device: str) -> "Victim":
    from pipeline.attacks.victim import Victim
    from pipeline.models.encoders.encoder import encoder_from_description
    from pipeline.models.live import LiveEngine
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.tasks.text.tokens import load_tokenizer

    model = load_checkpoint(HERE.model(task, defence.key), encoder_from_description).to(device)
    tokenizer = load_tokenizer(HERE.tokenizer(task, defence.backbone))
    return Victim(LiveEngine.at(model, defence.point), tokenizer, device)
