"""One task's examples against its defences, in shards: each runs once and is stored under a key of its inputs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.attacks.defences import Defence
from pipeline.attacks.examples import Example
from pipeline.attacks.needs import ResourceChoice, identity
from pipeline.attacks.pooled import CHUNK, answer, pools
from pipeline.attacks.setting import Setting
from pipeline.attacks.shards import POOL_RUNNER, RUNNER, Shard, read_records, run_pool
from pipeline.errors import ArtifactError
from pipeline.evaluation.point import criterion_of
from pipeline.layout import HERE
from pipeline.results import Record
from pipeline.storage import content_key, file_hash

SIZE = 20
"""Examples in a shard: half a minute to a few minutes of work."""
RECIPE_VERSION = 1
"""Raised when the attacker's results change, so that stored shards are computed again."""


@dataclass(frozen=True)
class Workers:
    """How shards are run.

    Attributes:
        fan_out: runs jobs side by side, as `pipeline.running.ray.jobs.fan_out` does (jobs, runner, root, done, label).
        device, threads: of each worker.
        recover: brings what a storage has of some files below a folder.
        progress: whether to print a line for each finished shard.
    """

    fan_out: Callable[..., None]
    device: str
    threads: int
    recover: Callable[[Path, Iterable[Path]], None] = lambda folder, paths: None
    progress: bool = False


@dataclass(frozen=True)
class Comparison:
    """One task's examples against its defences."""

    task: str
    examples: Sequence[Example]
    defences: Sequence[Defence]
    setting: Setting
    resources: ResourceChoice

    @cached_property
    def models(self) -> list[dict[str, Any]]:
        """The identity of each defence's model; its weights are hashed once."""
        return [_model_identity(self.task, defence) for defence in self.defences]

    @cached_property
    def keys(self) -> list[tuple[tuple[Example, ...], list[str]]]:
        """Each shard's examples, and the keys of its records, one per defence.

        A key does not depend on the folders of resources, the number of workers or the other shards.
        """
        parts = [tuple(self.examples[i : i + SIZE]) for i in range(0, len(self.examples), SIZE)]
        common = {
            "version": RECIPE_VERSION,
            "textattack": version("textattack"),
            "setting": self.setting.identity(),
            "resources": identity(self.resources, self.setting.recipe),
        }
        # Only an adaptive attack says what it follows, so that keys of before stay.
        targets = [
            {"model": model} | ({} if defence.scores == "answered" else {"scores": defence.scores})
            for model, defence in zip(self.models, self.defences, strict=True)
        ]
        shards = [{**common, "examples": [asdict(example) for example in part]} for part in parts]
        return [
            (part, [content_key({**shard, **target}) for target in targets])
            for part, shard in zip(parts, shards, strict=True)
        ]

    def unfinished(self, device: str, threads: int) -> Iterator[Shard]:
        """Shards with at least one defence that has no records yet."""
        for part, keys in self.keys:
            todo = [
                (k, d) for k, d in zip(keys, self.defences, strict=True) if read_records(self.task, k, part) is None
            ]
            if todo:
                yield Shard(self.task, part, tuple(todo), self.setting, self.resources, device, threads)

    def attack(self, workers: Workers) -> list[tuple[Defence, list[Record]]]:
        """Attack the unfinished shards; return the records of all shards, by defence."""
        folder = HERE.attacked / self.task
        workers.recover(folder, [HERE.shard(self.task, key) for _, keys in self.keys for key in keys])
        todo = list(self.unfinished(workers.device, workers.threads))
        total = len(self.keys)
        print(f"{len(todo)} shards to attack, {total - len(todo)} done before", flush=True)
        left = len(todo)

        def done(shard: Shard, defences: int) -> None:
            nonlocal left
            left -= 1
            if workers.progress:
                print(f"[{total - left}/{total}] {len(shard.examples)} examples x {defences} defences", flush=True)

        workers.fan_out(todo, runner=RUNNER, root=folder, done=done, label="shards")
        attacked = self.records()
        for defence, records in attacked:
            unfit = [record for record in records if record.reason is not None]
            if unfit:
                first = f"row {unfit[0].row_id}: {unfit[0].reason}"
                print(f"{defence.name}: {len(unfit)} of {len(records)} examples could not be attacked ({first})")
        return attacked

    def records(self) -> list[tuple[Defence, list[Record]]]:
        """The records of each defence, in the set's order.

        Raises:
            ArtifactError: a shard is not done.
        """
        by_defence: list[list[Record]] = [[] for _ in self.defences]
        for part, keys in self.keys:
            for records, key in zip(by_defence, keys, strict=True):
                stored = read_records(self.task, key, part)
                if stored is None:
                    raise ArtifactError(f"{HERE.shard(self.task, key)}: gone; run `dvc repro attack@{self.task}`")
                records += stored
        ordered = [sorted(records, key=lambda record: record.row_id) for records in by_defence]
        return list(zip(self.defences, ordered, strict=True))

    def ask_pools(
        self, attacked: Sequence[tuple[Defence, Sequence[Record]]], workers: Workers
    ) -> list[tuple[bool, ...]]:
        """Transfer attack: whether each defence's model is right on the texts that broke any defence, by example.

        Args:
            attacked: the result of `records`.
        """
        all_pools = pools(
            self.task, attacked, self.models, workers.device, workers.threads, RECIPE_VERSION, self.setting.engine
        )
        workers.recover(HERE.attacked / self.task, [pool.path for pool in all_pools])
        distinct = {pool.path: pool for pool in reversed(all_pools)}  # a model under two attacks has one
        todo = [pool for pool in distinct.values() if answer(pool) is None]
        if sum(pool.rows for pool in todo) <= CHUNK:
            for pool in todo:  # faster than starting workers
                run_pool(pool)
        else:
            root = HERE.attacked / self.task
            workers.fan_out(todo, runner=POOL_RUNNER, root=root, done=lambda pool, nothing: None, label="transfer")
        right = []
        for pool in all_pools:
            answers = answer(pool)
            if answers is None:
                raise ArtifactError(f"{pool.path}: gone; run `dvc repro attack@{self.task}`")
            right.append(answers)
        return right


def _model_identity(task: str, defence: Defence) -> dict[str, Any]:
    """All that a model's answers depend on: weights, tokenizer, criterion with its settings, threshold."""
    folder, criterion = HERE.model(task, defence.key), criterion_of(defence.point)
    tokenizer = HERE.tokenizer(task, defence.backbone)
    try:
        weights = file_hash(folder / "model.json", folder / "model.safetensors", tokenizer)
        trained = file_hash(folder / "model.safetensors")
    except OSError as error:
        raise ArtifactError(f"{error.filename}: no such file; run `dvc repro finetune`") from None
    if trained != defence.weights_sha256:
        raise ArtifactError(f"{folder}: its weights are not the selected ones; run `dvc repro -f finetune`")
    rule = None if criterion is None else {"name": criterion.name, **asdict(criterion)}
    return {"weights": weights, "criterion": rule, "threshold": repr(defence.point.limit)}
