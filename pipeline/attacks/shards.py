"""The work of a worker: attack a shard of examples, or ask one model about a pool of texts, and store the result."""

import gc
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.attacks.defences import Defence
from pipeline.attacks.examples import Example
from pipeline.attacks.needs import ResourceChoice, as_sent, local_files
from pipeline.attacks.pooled import Pool, answer, ask, files_of_victim
from pipeline.attacks.setting import Engine, Setting
from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.models.device import device_of
from pipeline.results import Record, ShardRecords
from pipeline.storage import claimed

if TYPE_CHECKING:
    from pipeline.attacks.resources import Resources
    from pipeline.attacks.victim import Live, Recorded, Victim

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

    @property
    def engine(self) -> Engine:
        """What its models run in."""
        return self.setting.engine

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
    device = device_for(shard.engine, shard.device)
    resources = _resources(as_sent(shard.resources), device, shard.setting, shard.threads)
    shared, recorded = Shared(), defaultdict[str, "Recorded"](dict)
    for key, defence in todo:
        with claimed(HERE.claims, key):
            if read_records(shard.task, key, shard.examples) is not None:
                continue  # another experiment attacked it meanwhile
            victim = _victim(shard, defence, device, recorded[defence.key])
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
            plain = replace(pool.defence, scores="answered")  # no search follows the deepest exit here
            ask(_victim(pool, plain, device_for(pool.engine, pool.device)), pool)


def read_records(task: str, key: str, examples: Sequence[Example]) -> tuple[Record, ...] | None:
    """The stored records of one defence in a shard; None where they are missing, unreadable or of other examples."""
    try:
        records = ShardRecords.read(HERE.shard(task, key), "").records
    except ArtifactError:
        return None
    same = [(record.row_id, record.label) for record in records] == [(one.row_id, one.label) for one in examples]
    return records if same else None


def device_for(engine: Engine, device: str) -> str:
    """The device of runtime's setting, for an engine.

    Raises:
        DataError, UnsupportedError: as `device_of` and `refuse_engines`.
    """
    chosen = device_of(device)
    if engine != "pytorch":
        from pipeline.models.deployments import refuse_engines  # imports Torch

        refuse_engines([engine], chosen, "attack.engine")
    return chosen


@cache
def _resources(choice: ResourceChoice, device: str, setting: Setting, threads: int) -> "Resources":
    """The resources, loaded once per process."""
    from pipeline.attacks.resources import resolve

    return resolve(choice, device, setting.recipe, setting.engine, threads)


def _victim(job: Shard | Pool, defence: Defence, device: str, recorded: "Recorded | None" = None) -> "Victim":
    from pipeline.attacks.victim import Victim
    from pipeline.models.encoders.encoder import encoder_from_description
    from pipeline.models.live import LiveEngine
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.models.packed import ready
    from pipeline.tasks.text.tokens import load_tokenizer

    folder = HERE.model(job.task, defence.key)
    load = partial(load_checkpoint, folder, encoder_from_description)
    engine: Live
    if job.engine == "pytorch":
        engine = LiveEngine.at(ready(load(), device), defence.point)
    else:
        from pipeline.attacks.graphs import segments_of
        from pipeline.evaluation.point import criterion_of
        from pipeline.models.deploy.engine import GraphEngine

        files = (folder / "model.json", folder / "model.safetensors")
        engine = GraphEngine(segments_of(load, files, job.threads), criterion_of(defence.point), defence.point.limit)
    tokenizer = load_tokenizer(HERE.tokenizer(job.task, defence.backbone))
    return Victim(engine, tokenizer, device, scores=defence.scores, recorded=recorded)
