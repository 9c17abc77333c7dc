"""The transfer attack: each model is asked about the texts that broke any defence.

It tells a defence that withstands attacks from one that misleads the search. An attack lowers the probability of the
right class at the exit that answered. When an early exit becomes uncertain, a deeper one answers, and that probability
jumps back up. A greedy search then stops, although texts that fool the model are near (obfuscated gradients: Athalye et
al. 2018). Texts that broke other defences do not depend on the model's probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.attacks.defences import Defence
from pipeline.attacks.setting import Engine
from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.results import PoolAnswers, Record
from pipeline.storage import content_key

if TYPE_CHECKING:
    from pipeline.attacks.victim import Victim

CHUNK = 512
"""Texts per call of the model."""

Pooled = tuple[int, tuple[tuple[str, ...], ...]]
"""An example's label; its original and every text with which an attack on some defence reached its goal."""


@dataclass(frozen=True)
class Pool:
    """One defence and all examples' texts.

    Attributes:
        path: where the answer is stored.
    """

    task: str
    defence: Defence
    texts: tuple[Pooled, ...]
    path: Path
    device: str
    threads: int
    engine: Engine = "pytorch"

    @property
    def rows(self) -> int:
        """Number of texts of all examples."""
        return sum(len(texts) for _, texts in self.texts)

    def reads(self) -> dict[Path, Path]:
        """What its worker reads: where it lies there, and where it lies here."""
        return {path: path for path in files_of_victim(self.task, self.defence)}

    def writes(self) -> list[Path]:
        """What its worker stores."""
        return [self.path]


def pools(
    task: str,
    attacked: Sequence[tuple[Defence, Sequence[Record]]],
    models: Sequence[Any],
    device: str,
    threads: int,
    version: int,
    engine: Engine = "pytorch",
) -> list[Pool]:
    """A pool for each defence; its answer is stored under a key of the model and the texts.

    Args:
        attacked: each defence's records of the same examples, in the same order.
        models: identity of each defence's model; JSON.
        version: of what is done with them.
    """
    texts = tuple(map(_texts, zip(*(records for _, records in attacked), strict=True)))
    every = []
    for (defence, _), model in zip(attacked, models, strict=True):
        ran = {} if engine == "pytorch" else {"engine": engine}
        path = HERE.pooled(task, content_key({"version": version, "pooled": texts, "model": model, **ran}))
        every.append(Pool(task, defence, texts, path, device, threads, engine))
    return every


def _texts(records: Sequence[Record]) -> Pooled:
    """The texts of one example, over the defences."""
    changed = (r.changed for r in records if r.outcome == "successful" and r.changed is not None)
    return records[0].label, tuple(dict.fromkeys((records[0].original, *changed)))


def files_of_victim(task: str, defence: Defence) -> list[Path]:
    """The files that a defence's live model is loaded from."""
    model = HERE.model(task, defence.key)
    return [model / "model.json", model / "model.safetensors", HERE.tokenizer(task, defence.backbone)]


def ask(victim: "Victim", pool: Pool) -> None:
    """Ask the model about all texts; store for each example whether it is right on all of them."""
    flat = [text if len(text) > 1 else text[0] for _, texts in pool.texts for text in texts]
    answers: list[int] = []
    for start in range(0, len(flat), CHUNK):
        victim.forget()
        answers += victim(flat[start : start + CHUNK]).argmax(dim=1).tolist()
    right, at = [], 0
    for label, texts in pool.texts:
        right.append(set(answers[at : at + len(texts)]) == {label})
        at += len(texts)
    defence = pool.defence
    PoolAnswers(defence=defence.name, trial=defence.key, point=defence.point, right_on_all=tuple(right)).write(
        pool.path
    )


def answer(pool: Pool) -> tuple[bool, ...] | None:
    """Whether the model is right on all texts of each example; None where no answer is stored."""
    try:
        right = PoolAnswers.read(pool.path, "").right_on_all
    except ArtifactError:
        return None
    return right if len(right) == len(pool.texts) else None
