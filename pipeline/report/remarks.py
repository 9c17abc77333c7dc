"""What must be said beside an answer to "does early exit pay?": what it rests on, and what stands against it."""

from collections.abc import Iterator

from pipeline.report import classes
from pipeline.report.cells import same_exit, some_seeds
from pipeline.report.numbers import listed, number, points
from pipeline.report.paying import BEARABLE, Change, Deal


def remarks(deal: Deal) -> Iterator[str]:
    """Sentences, the most important first; of a model that has learned nothing no more than that."""
    yield from _learned(deal)
    if deal.learned.nothing:
        return
    if deal.answer == "not settled by the clock":
        yield "The clock does not settle it: raise latency.repeats in params.yaml, on a machine that does nothing else."
    if deal.answer == "too few rows to tell":
        yield _too_few(deal)
    if same := same_exit(deal.task.one_exit(deal.row)):
        yield f"{same[0].upper()}{same[1:]}: a smaller model does the same."
    yield from classes.remarks(deal)


def _learned(deal: Deal) -> Iterator[str]:
    """That the model has learned nothing, or some seeds have not, and whether it was the training with exits."""
    seeds, ignorant, failed = len(deal.learned.by_seed), deal.learned.ignorant, _failed(deal)
    if not ignorant:
        return
    if ignorant < seeds:
        plain = "; the plainly trained model of such a seed is better: training with exits failed there"
        some = some_seeds(ignorant, seeds, "is", "are")
        text = f"With all layers, {some} no better than one answer for every row"
        yield text + (plain if failed else "") + "."
        return
    same = "has no correlation" if deal.constant is None else f"scores {number(points(deal.constant))}"
    text = f"The model has learned nothing (one answer for every row {same})"
    if failed and deal.plain is not None:
        score = number(points(deal.plain.score.centre))
        yield f"{text}, and the plainly trained model has ({score}): training with exits failed."
        yield "More epochs, another learning rate or another method come before early exit."
    else:
        yield f"{text}: more rows, more epochs, another learning rate or a pretrained backbone come before early exit."


def _failed(deal: Deal) -> bool:
    """Whether the plain model has learned, on a seed on which the one with exits has not."""
    if deal.plain is None:
        return False
    plain = deal.task.learned(deal.plain).by_seed
    return any(plain.get(seed, False) for seed, knows in deal.learned.by_seed.items() if not knows)


def _too_few(deal: Deal) -> str:
    rows = deal.changes[0].rows
    counts = listed(map(_counted, deal.changes))
    limit = f"{number(100 * BEARABLE)} points are {number(BEARABLE * rows)} rows"
    return f"Too few rows to tell: of {rows:,} rows {counts}; {limit}."


def _counted(change: Change) -> str:
    """The rows of one seed: "seed 1 loses 2 and wins none"."""
    lost, won = (str(count) if count else "none" for count in (change.lost, change.won))
    return f"seed {change.seed} loses {lost} and wins {won}"
