"""Whether a defence defends, or only leads the search astray: each model is asked about the texts that broke another.

An attack lowers the right class's probability at the exit that answered. Where an unsure early exit hands over to a
deeper one, that probability jumps back up, and a greedy search stops there although texts that fool the model are near
(obfuscated gradients: Athalye et al. 2018). Texts found against the other defences do not need its probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.attacks.defences import Defence
from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.results import PoolAnswers, Record
from pipeline.storage import content_key

if TYPE_CHECKING:
    from pipeline.attacks.victim import Victim

CHUNK = 512
"""Texts asked about at once."""

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

    @property
    def rows(self) -> int:
        """How many texts the defence is asked about."""
        return sum(len(texts) for _, texts in self.texts)


def pools(
    task: str,
    attacked: Sequence[tuple[Defence, Sequence[Record]]],
    models: Sequence[Any],
    device: str,
    threads: int,
) -> list[Pool]:
    """A pool for each defence; the key of its answer holds the model and the texts.

    Args:
        attacked: each defence's records of the same examples, in the same order.
        models: what identifies each defence's model; JSON.
    """
    texts = tuple(map(_texts, zip(*(records for _, records in attacked), strict=True)))
    every = []
    for (defence, _), model in zip(attacked, models, strict=True):
        path = HERE.pooled(task, content_key({"pooled": texts, "model": model}))
        every.append(Pool(task, defence, texts, path, device, threads))
    return every


def _texts(records: Sequence[Record]) -> Pooled:
    """One example's, over the defences."""
    changed = (r.changed for r in records if r.outcome == "successful" and r.changed is not None)
    return records[0].label, tuple(dict.fromkeys((records[0].original, *changed)))


def ask(victim: "Victim", pool: Pool) -> None:
    """Ask the model about all texts and store, for each example, whether it is right on all of them."""
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
    """Whether the model is right on all texts of each example; None if it was not asked yet."""
    try:
        right = PoolAnswers.read(pool.path, "").right_on_all
    except ArtifactError:
        return None
    return right if len(right) == len(pool.texts) else None
