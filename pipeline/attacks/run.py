"""The attack on one task's models, from the settings to the result."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.attacks.comparison import Comparison, Workers
from pipeline.attacks.defences import Defence, find_defences
from pipeline.attacks.examples import describe_source, load_examples
from pipeline.attacks.needs import check, describe
from pipeline.attacks.records import examples_to_show, paired, summarise
from pipeline.attacks.setting import ADAPTIVE_RULE, QUERY_RULE, Setting
from pipeline.attacks.settings import Attack
from pipeline.attacks.shards import device_for
from pipeline.results import Attacked, DefenceRow, Evaluated, Record, Selected
from pipeline.tasks.task import Task

Attacks = Sequence[tuple[Defence, Sequence[Record]]]
"""Each defence's records of the same examples, in the same order; the single exit first."""


def attack_task(
    task: Task,
    settings: Attack,
    selected: Selected,
    evaluated: Evaluated,
    split: str,
    points: str,
    workers: Workers,
    mirror: Path | None,
) -> tuple[Attacked, Attacks]:
    """Attack a task's defences with one recipe on one split.

    Args:
        split: one of `attacked_splits`.
        points: the task's report split whose rows hold the operating points.
        mirror: hub mirror on disk, from which an attack set is read.

    Raises:
        PipelineError: a resource, an attack set, a model or an operating point is missing or wrong.
    """
    chosen = settings.tasks[task.name]
    defences = find_defences(settings, selected, evaluated, points)
    if settings.engine != "pytorch":
        device_for(settings.engine, workers.device)  # refuses what cannot run before anything is started
    check(settings.resources, settings.recipe)
    examples = load_examples(task, chosen, split, settings.seed, mirror)
    setting = Setting(
        settings.recipe, settings.goal, settings.attacker, settings.seed, settings.max_queries, settings.engine
    )
    comparison = Comparison(task.name, examples, defences, setting, settings.resources)
    attacks = comparison.attack(workers)
    whole = (setting.recipe, setting.goal, setting.max_queries) == ("textfooler", "misclassify", None)
    attacked = Attacked(
        split=split,
        recipe=settings.recipe,
        goal=settings.goal,
        attacker=settings.attacker,
        engine=settings.engine,
        max_queries=setting.max_queries,
        resources=describe(settings.resources, settings.recipe),
        comparable_with_paper=settings.resources == "stock" and whole,
        source=describe_source(task, chosen, split),
        examples=len(examples),
        query_rule=QUERY_RULE + (ADAPTIVE_RULE if "deepest" in settings.scores else ""),
        label_names=task.label_names,
        rows=tuple(_with_examples(_rows(comparison, attacks, workers), attacks)),
    )
    return attacked, attacks


def _with_examples(rows: Sequence[DefenceRow], attacks: Attacks) -> Iterator[DefenceRow]:
    """The rows with the examples that a report shows."""
    places = examples_to_show([records for _, records in attacks])
    for row, (_, records) in zip(rows, attacks, strict=True):
        yield row.model_copy(update={"shown": tuple(records[place] for place in places)})


def _rows(comparison: Comparison, attacks: Attacks, workers: Workers) -> tuple[DefenceRow, ...]:
    """A row per defence; transfer attack and paired test only where the goal is another answer."""
    if comparison.setting.goal != "misclassify":
        return tuple(summarise(defence, records, (), None) for defence, records in attacks)
    right = comparison.ask_pools(attacks, workers)
    (_, first), *others = attacks
    pairs = [None, *(paired(records, first) for _, records in others)]
    return tuple(summarise(*attack, pool, pair) for attack, pool, pair in zip(attacks, right, pairs, strict=True))
