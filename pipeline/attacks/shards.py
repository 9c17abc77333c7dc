"""The work of a worker: attack a shard of examples, or ask one model about a pool of texts, and store the result."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.attacks.defences import Defence
from pipeline.attacks.examples import Example
from pipeline.attacks.needs import ResourceChoice, as_sent, local_files
from pipeline.attacks.pooled import Pool, answer, ask, files_of_victim
from pipeline.attacks.setting import Setting
from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.models.device import device_of
from pipeline.results import Record, ShardRecords
from pipeline.storage import claimed

if TYPE_CHECKING:
    from pipeline.attacks.resources import Resources
    from pipeline.attacks.victim import Victim

RUNNER = "pipeline.attacks.shards:run_shard"
POOL_RUNNER = "pipeline.attacks.shards:run_pool"


@dataclass(frozen=True)
class Shard:
    """Some examples, attacked by one worker, so that the defences share results about each example.

    Attributes:
        defences: the unfinished ones, each with the key of its records.
    """

    task: str
    examples: tuple[Example, ...]
    defences: tuple[tuple[str, Defence], ...]
    setting: Setting
    resources: ResourceChoice
    device: str
    threads: int

    def reads(self) -> dict[Path, Path]:
        """What its worker reads: where it lies there, and where it lies here."""
        own = [path for _, defence in self.defences for path in files_of_victim(self.task, defence)]
        return {path: path for path in own} | {HERE.sent(path): path for path in local_files(self.resources)}

    def writes(self) -> list[Path]:
        """What its worker stores."""
        return [HERE.shard(self.task, key) for key, _ in self.defences]


def run_shard(shard: Shard) -> int:
    """Attack a shard in a worker; store each defence's records as soon as they are complete.

    Returns:
        How many defences were attacked; those whose records an earlier worker stored before it was lost are not.
    """
    todo = [entry for entry in shard.defences if read_records(shard.task, entry[0], shard.examples) is None]
    if not todo:
        return 0
    import torch

    from pipeline.attacks.attacker import attack_examples
    from pipeline.attacks.candidates import Shared
    from pipeline.attacks.library import import_textattack

    import_textattack()  # before there is a model, which would stay with all that is there then
    torch.set_num_threads(shard.threads)
    device = device_of(shard.device)
    resources = _resources(as_sent(shard.resources), device, shard.setting.recipe)
    shared = Shared()
    for key, defence in todo:
        with claimed(HERE.claims, key):
            if read_records(shard.task, key, shard.examples) is not None:
                continue  # another experiment attacked it meanwhile
            victim = _victim(shard.task, defence, device)
            records = tuple(attack_examples(victim, resources, shard.examples, shard.setting, shared=shared))
            stored = ShardRecords(defence=defence.name, trial=defence.key, point=defence.point, records=records)
            stored.write(HERE.shard(shard.task, key))
        del victim
        gc.collect()  # TextAttack's attack is a reference cycle that keeps hundreds of MB
    return len(todo)


def run_pool(pool: Pool) -> None:
    """Run the transfer attack on one model in a worker, unless an earlier one that was lost has stored its answers."""
    if answer(pool) is not None:
        return
    import torch

    torch.set_num_threads(pool.threads)
    with claimed(HERE.claims, f"pool-{pool.path.stem}"):
        if answer(pool) is None:
            ask(_victim(pool.task, pool.defence, device_of(pool.device)), pool)


def read_records(task: str, key: str, examples: Sequence[Example]) -> tuple[Record, ...] | None:
    """The stored records of one defence in a shard; None where they are missing, unreadable or of other examples."""
    try:
        records = ShardRecords.read(HERE.shard(task, key), "").records
    except ArtifactError:
        return None
    same = [(record.row_id, record.label) for record in records] == [(one.row_id, one.label) for one in examples]
    return records if same else None


@cache
def _resources(choice: ResourceChoice, device: str, recipe: str) -> "Resources":
    """The resources, loaded once per process."""
    from pipeline.attacks.resources import resolve

    return resolve(choice, device, recipe)


def _victim(task: str, defence: Defence, device: str) -> "Victim":
    from pipeline.attacks.victim import Victim
    from pipeline.models.encoders.encoder import encoder_from_description
    from pipeline.models.live import LiveEngine
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.tasks.text.tokens import load_tokenizer

    model = load_checkpoint(HERE.model(task, defence.key), encoder_from_description).to(device)
    tokenizer = load_tokenizer(HERE.tokenizer(task, defence.backbone))
    return Victim(LiveEngine.at(model, defence.point), tokenizer, device, scores=defence.scores)
