"""Attacks on the live models: what each defence keeps (Table 5)."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.report import paper
from pipeline.report.cells import Cell, Table, TableRow, in_points, row_name, runs_of
from pipeline.report.examples import Examples, examples_of
from pipeline.report.numbers import EQUALS, bounds, listed, number, points, setting
from pipeline.report.sections.base import Finding, Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Attacked, DefenceRow, Interval, Paired, TrialRecord

COLUMNS = ("Task", "Model and exit rule", "Setting", "Original acc.", "After-attack acc.", "Kept, lost",
           "On all texts found", "Attacks that succeed", "Queries", "Words changed", "Layers, before",
           "Layers, under attack", "Layers, after")  # fmt: skip
NOTES = (
    "Means and shares over examples with 95% intervals; one seed each. Higher is better but for the success rate. "
    "Layers under attack: of all texts that the attack asked about; after: of the text that it ended with.",
    "Kept, lost: examples that are right after the attack here and not in the task's first row, and the other way "
    "round, with the p-value of McNemar's exact test; intervals may overlap where these tell two rows apart.",
    "On all texts found: right on the original and on every text with which an attack on any of the task's rows "
    "succeeded. A model that is far better after its own attack led the search astray; it is not more robust.",
)
ADAPTIVE = (
    "Adaptive attack: the search follows the probabilities of the deepest exit, as an attacker can who has the "
    "weights; the exit that answers still decides what succeeds. Each of its queries runs all layers on the attacker's "
    "side; the layers here are those that the defence takes for the same texts."
)


class Robustness(Section):
    """TextFooler, or another recipe, against each defence."""

    slug = "robustness"
    title = "Robustness (Table 5)"

    def not_run(self, stored: Stored) -> Sequence[str]:
        if any(_attacked(stored)):
            return []
        return ["no task under attack.tasks in params.yaml; add a text task with classes"]

    def ran(self, stored: Stored) -> Sequence[str]:
        return [
            f"{attack.recipe}{' against the speed' if attack.goal == 'slow_down' else ''} on {_name(task, attack)}"
            for task, attack in _attacked(stored)
        ]

    def findings(self, stored: Stored) -> Sequence[Finding]:
        return [
            Finding(
                f"Robustness, {_name(task, attack)}", _slower(attack) if attack.goal == "slow_down" else _misled(attack)
            )
            for task, attack in _attacked(stored)
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        attacks = list(_attacked(stored))
        rows = tuple(_row(task, attack, row, stored.trials) for task, attack in attacks for row in attack.rows)
        adaptive = any(row.scores == "deepest" for _, attack in attacks for row in attack.rows)
        notes = (*NOTES, *([ADAPTIVE] if adaptive else []), *(_note(*attack) for attack in attacks))
        return [Table(self.slug, self.title, COLUMNS, rows, notes, names=3)]

    def examples(self, stored: Stored) -> Sequence[Examples]:
        return [
            examples_of(_name(task, attack), attack, [_defence(row) for row in attack.rows])
            for task, attack in _attacked(stored)
        ]


def _attacked(stored: Stored) -> Iterator[tuple[TaskResults, Attacked]]:
    for task in stored.tasks:
        for attack in task.attacks:
            yield task, attack


def _name(task: TaskResults, attack: Attacked) -> str:
    """The name of the task, with the split where several are attacked."""
    return task.name if len(task.attacks) == 1 else f"{task.name} {attack.split}"


def _note(task: TaskResults, attack: Attacked) -> str:
    resources = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in attack.resources.items())
    comparable = "comparable with the paper" if attack.comparable_with_paper else "not comparable with the paper"
    aim = ", to slow the model down without changing its answer," if attack.goal == "slow_down" else ""
    if attack.max_queries is not None:
        aim += f" with at most {attack.max_queries} queries each"
    if attack.engine != "pytorch":
        aim += f" in {attack.engine}"
    where = f"on {attack.examples} examples of {attack.source}"
    return f"{_name(task, attack)}: {attack.recipe}{aim} {where}, {comparable} ({resources})."


def _row(task: TaskResults, attack: Attacked, row: DefenceRow, trials: Mapping[str, TrialRecord]) -> TableRow:
    printed = _in_paper(task.name, attack, row)
    original, after, queries = (
        (number(printed.original), number(printed.after), str(printed.queries)) if printed else ("", "", "")
    )
    criterion = row.point.criterion
    means = (row.perturbed_words, row.layers_before, row.layers_under_attack, row.layers_after)
    cells = (
        Cell(_name(task, attack)),
        Cell(row_name(row.method, criterion, multi_exit=task.group(row).multi_exit) + _view(row), row.backbone),
        Cell(setting([row.point], regression=task.regression)),
        in_points(row.original_accuracy, original),
        in_points(row.after_attack_accuracy, after),
        _paired(row.against_first),
        in_points(row.pooled_accuracy),
        in_points(row.attack_success_rate),
        Cell(number(row.queries.centre), bounds(row.queries), queries),
        *(Cell(number(mean.centre), bounds(mean)) for mean in means),
    )
    return TableRow(cells, runs_of([row.key], trials, [row.seed]))


def _paired(against: Paired | None) -> Cell:
    return Cell("—") if against is None else Cell(f"{against.kept}, {against.lost}", f"p{EQUALS}{against.p_value:.2g}")


def _in_paper(task: str, attack: Attacked, row: DefenceRow) -> paper.Attacked | None:
    if not attack.comparable_with_paper or row.backbone != "albert-base" or row.scores != "answered":
        return None
    half = "mismatched" if "mismatched" in f"{attack.split} {attack.source}" else "matched"
    return paper.ROBUSTNESS.get((f"mnli {half}" if task == "mnli" else task, row.point.criterion))


def _misled(attack: Attacked) -> str:
    parts, astray = [], []
    for row in attack.rows:
        before, after, pooled = row.original_accuracy, row.after_attack_accuracy, row.pooled_accuracy
        parts.append(
            f"{_defence(row)} falls from {number(points(before.centre))} to {number(points(after.centre))} "
            f"({number(points(pooled.centre))} on all texts found)"
        )
        if _above(after, pooled):
            astray.append(_defence(row))
    close = _told_apart(attack)
    if astray:
        close += f" What {listed(astray)} gained by misleading the search goes on texts found against others."
    return f"Under {attack.recipe} ({attack.examples} examples) {listed(parts)}.{close}"


def _slower(attack: Attacked) -> str:
    """A row of which no example was attacked had no layers left to lose."""
    parts = [
        f"{_defence(row)} goes from {number(row.layers_before.centre)} layers to {number(row.layers_after.centre)} "
        f"({number(points(row.attack_success_rate.centre))}% of the attacks reach the last)"
        for row in attack.rows
        if row.attack_success_rate.centre is not None
    ]
    return f"Under {attack.recipe} against the speed, answers unchanged ({attack.examples} examples), {listed(parts)}."


def _above(one: Interval, other: Interval) -> bool:
    return one.low is not None and other.high is not None and one.low > other.high


def _told_apart(attack: Attacked) -> str:
    """Which rows differ from the first on the same examples; 5% for all comparisons together (Bonferroni)."""
    tested = {_defence(row): row.against_first.p_value for row in attack.rows if row.against_first is not None}
    if not tested:
        return ""
    apart = [name for name, p in tested.items() if p * len(tested) < 0.05]
    verdict = f"{listed(apart)} {'is' if len(apart) == 1 else 'are'}" if apart else "none is"
    return f" On the same examples {verdict} told apart from {_defence(attack.rows[0])} (McNemar's exact test)."


def _defence(row: DefenceRow) -> str:
    return (row.point.criterion or row.method.replace("_", " ")) + _view(row)


def _view(row: DefenceRow) -> str:
    return " (adaptive attack)" if row.scores == "deepest" else ""
