"""The comparison in pieces: some examples against the defences, done once and kept under a key of all that matters."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.attacks.defences import Defence
from pipeline.attacks.examples import Example
from pipeline.attacks.needs import Named, identity
from pipeline.attacks.pooled import Pool, ask, pools
from pipeline.attacks.records import Record
from pipeline.attacks.setting import Setting
from pipeline.errors import ArtifactError
from pipeline.models.device import device_of
from pipeline.storage import DATA, RUNS, content_key, file_hash, read_json, write_json

if TYPE_CHECKING:
    from pipeline.attacks.resources import Resources
    from pipeline.attacks.victim import Victim

RUNNER = "pipeline.attacks.shards:run_shard"
POOL_RUNNER = "pipeline.attacks.shards:run_pool"
FOLDER = Path("runs/attack")
SIZE = 20
"""Examples in a shard: half a minute to some minutes of work each."""
RECIPE_VERSION = 1
"""Raised when the attacker's results change, so that stored shards are made anew."""


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


@dataclass(frozen=True)
class Comparison:
    """One task's examples against its defences."""

    task: str
    examples: Sequence[Example]
    defences: Sequence[Defence]
    setting: Setting
    resources: Named

    @cached_property
    def models(self) -> list[dict[str, Any]]:
        """What identifies each defence's model. Hashes its weights, once."""
        return [_model_identity(self.task, defence) for defence in self.defences]

    @cached_property
    def keys(self) -> list[tuple[tuple[Example, ...], list[str]]]:
        """Each shard's examples, and the keys of its records, one per defence.

        Where resources lie, how many workers there are and what the other shards hold is not in a key.
        """
        parts = [tuple(self.examples[i : i + SIZE]) for i in range(0, len(self.examples), SIZE)]
        common = {
            "version": RECIPE_VERSION,
            "textattack": version("textattack"),
            "setting": asdict(self.setting),
            "resources": identity(self.resources, self.setting.recipe),
        }
        shards = [{**common, "examples": [asdict(example) for example in part]} for part in parts]
        return [
            (part, [content_key({**shard, "model": model}) for model in self.models])
            for part, shard in zip(parts, shards, strict=True)
        ]

    def unfinished(self, device: str, threads: int) -> Iterator[Shard]:
        """Shards of which a defence is not done."""
        for part, keys in self.keys:
            todo = [(k, d) for k, d in zip(keys, self.defences, strict=True) if read_records(self.task, k) is None]
            if todo:
                yield Shard(self.task, part, tuple(todo), self.setting, self.resources, device, threads)

    def pools(self, attacked: Sequence[tuple[Defence, Sequence[Record]]], device: str, threads: int) -> list[Pool]:
        """Each defence, to be asked about the texts that were found against all: `attacked` is what `records` gave."""
        return pools(self.task, attacked, self.models, FOLDER, device, threads)

    def records(self) -> list[tuple[Defence, list[Record]]]:
        """The records of each defence, in the set's order.

        Raises:
            ArtifactError: a shard is not done.
        """
        found: list[list[Record]] = [[] for _ in self.defences]
        for _, keys in self.keys:
            for records, key in zip(found, keys, strict=True):
                stored = read_records(self.task, key)
                if stored is None:
                    raise ArtifactError(f"{FOLDER / self.task / key}.json: gone; run `dvc repro attack@{self.task}`")
                records += stored
        ordered = [sorted(records, key=lambda record: record.row_id) for records in found]
        return list(zip(self.defences, ordered, strict=True))


def run_shard(shard: Shard) -> int:
    """Attack a shard, in a worker; each defence's records are stored as soon as they are whole.

    Returns:
        How many defences were attacked.
    """
    import torch

    from pipeline.attacks.attacker import attack_examples
    from pipeline.attacks.candidates import Shared

    torch.set_num_threads(shard.threads)
    device = device_of(shard.device)
    resources = _resources(shard.resources, device, shard.setting.recipe)
    shared = Shared()
    for key, defence in shard.defences:
        victim = _victim(shard.task, defence, device)
        found = attack_examples(victim, resources, shard.examples, shard.setting, shared=shared)
        payload = {"schema": 1, "defence": defence.labels(), "records": [asdict(record) for record in found]}
        write_json(FOLDER / shard.task / f"{key}.json", payload)
        del victim, found
        gc.collect()  # an attack of TextAttack's is a cycle that holds the model; by themselves hundreds of MB pile up
    return len(shard.defences)


def run_pool(pool: Pool) -> None:
    """Ask one model about the texts that were found against all, in a worker."""
    import torch

    torch.set_num_threads(pool.threads)
    ask(_victim(pool.task, pool.defence, device_of(pool.device)), pool)


def read_records(task: str, key: str) -> list[Record] | None:
    """What a shard left of one defence; None if it is not done, or what it left cannot be read."""
    try:
        stored = read_json(FOLDER / task / f"{key}.json", 1, "")
        return [Record.of(fields) for fields in stored["records"]]
    except (ArtifactError, KeyError, TypeError):
        return None


def _model_identity(task: str, defence: Defence) -> dict[str, Any]:
    folder, criterion = RUNS / defence.key, defence.criterion
    tokenizer = DATA / task / defence.backbone / "tokenizer.json"
    try:
        weights = file_hash(folder / "model.json", folder / "model.safetensors", tokenizer)
    except OSError as error:
        raise ArtifactError(f"{error.filename}: no such file; run `dvc repro finetune`") from None
    rule = None if criterion is None else {"name": criterion.name, **asdict(criterion)}
    return {"weights": weights, "criterion": rule, "threshold": repr(float(defence.threshold))}


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

    model = load_checkpoint(RUNS / defence.key, encoder_from_description).to(device)
    tokenizer = load_tokenizer(DATA / task / defence.backbone / "tokenizer.json")
    return Victim(LiveEngine(model, defence.criterion, defence.threshold), tokenizer, device)
