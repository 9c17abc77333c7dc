"""The verdicts, robustness (Table 5), CIFAR (Table 6) and Theorem 1."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from pipeline.report import paper
from pipeline.report.cells import Cell, Row, Table, flags_of, in_points, model_name, ratio, rule_name, runs_of, slug
from pipeline.report.choices import aim
from pipeline.report.numbers import EQUALS, bounds, count, number, points, setting, signed, times
from pipeline.report.stored import Attack, Defence, Evaluated, Interval, Paired, Result, Stored, Trained
from pipeline.report.tables import seeds_note
from pipeline.report.verdicts import ALL_LAYERS, SINGLE, Verdict, place, word
from pipeline.theory import EXAMPLE, statement_bound


def verdict_table(
    found: Sequence[Verdict], names: Mapping[tuple[str, str], str], trained: Mapping[str, Trained]
) -> Table:
    """Patience against each rival: a row per trained method, a column per rival.

    Args:
        names: task and split to the name shown.
    """
    rivals = list(dict.fromkeys(v.rival for v in sorted(found, key=place)))
    rows = []
    for _, group in groupby(found, key=lambda v: id(v.champion)):
        mine = {v.rival: v for v in group}
        me = next(iter(mine.values())).champion
        cells = (
            Cell(names[me.task, me.split], model_name(me.backbone, me.method)),
            Cell(number(points(me.score.centre)), f"at {times(me.layer_speedup.centre)}", flags=flags_of(me)),
            *(_verdict_cell(mine[rival]) if rival in mine else Cell("—") for rival in rivals),
        )
        keys = dict.fromkeys(key for row in (me, *(v.theirs for v in mine.values())) for key in row.keys)
        rows.append(Row(cells, runs_of(keys, trained)))
    columns = ("Task", "Patience", *(f"Against {rival}" for rival in rivals))
    notes: tuple[str, ...] = (
        "Differences are patience minus rival in points, paired by seed, each rule at its own operating point: the "
        "median and the range over seeds. “Ahead” and “behind” mean on every seed; where the range holds 0 the two are "
        "not told apart.",
        "At equal speed: the rival's curve is read at patience's layer speed-up, seed by seed, on the reported rows.",
        "“All layers” is the same model without early exit; “single exit” is a model of its own, trained plainly; a "
        "training method's name is a model that it made smaller.",
    )
    if not rows:
        notes = ("Not run: no model was evaluated under patience.",)
    return Table("verdicts", "Does patience win?", columns, tuple(rows), notes)


def _verdict_cell(v: Verdict) -> Cell:
    said = word(v.own_points)
    lines = [_gap(v.own_points)]
    if v.rival not in (ALL_LAYERS, SINGLE):
        lines.append(f"{number(points(v.theirs.score.centre))} at {times(v.theirs.layer_speedup.centre)}")
    if v.same_speed is not None:
        lines.append(f"at equal speed: {_gap(v.same_speed)}")
    tone = said.split()[0] if said.split()[0] in ("ahead", "behind") else ""
    return Cell(said, "\n".join(lines), flags=flags_of(v.theirs), tone=tone)


def _gap(difference: Interval) -> str:
    if difference.centre is None:
        return "not reached"
    text = signed(100 * difference.centre)
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{signed(100 * difference.low)}, {signed(100 * difference.high)}]"


def robustness_table(attacks: Sequence[Attack], trained: Mapping[str, Trained]) -> Table:
    """Table 5: TextFooler against each defence."""
    rows = [_attack_row(attack, row, trained) for attack in attacks for row in attack.rows]
    columns = ("Task", "Model and exit rule", "Setting", "Original acc.", "After-attack acc.", "Kept, lost",
               "On all texts found", "Attacks that succeed", "Queries", "Words changed", "Layers, before",
               "Layers, under attack", "Layers, after")  # fmt: skip
    notes = [
        "Means and shares over examples with 95% intervals; one seed each. Higher is better but for the success rate. "
        "Layers under attack: of all texts that the attack asked about; after: of the text that it ended with.",
        "Kept, lost: examples that are right after the attack here and not in the task's first row, and the other way "
        "round, with the p-value of McNemar's exact test; intervals may overlap where these tell two rows apart.",
        "On all texts found: right on the original and on every text with which an attack on any of the task's rows "
        "succeeded. A model that is far better after its own attack led the search astray; it is not more robust.",
    ]
    for attack in attacks:
        about = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in attack.resources.items())
        stand = "comparable with the paper" if attack.comparable else "not comparable with the paper"
        aim = ", to slow the model down without changing its answer," if attack.goal == "slow_down" else ""
        if attack.max_queries is not None:
            aim += f" with at most {attack.max_queries} queries each"
        notes.append(
            f"{attack.task}: {attack.recipe}{aim} on {attack.examples} examples of {attack.source}, {stand} ({about})."
        )
    if not attacks:
        notes.append("Not run: attack.tasks names no task.")
    return Table("robustness", "Robustness (Table 5)", columns, tuple(rows), tuple(notes), names=3)


def _attack_row(attack: Attack, row: Defence, trained: Mapping[str, Trained]) -> Row:
    theirs = _paper_attack(attack, row)
    beside = (number(theirs.original), number(theirs.after), str(theirs.queries)) if theirs else ("", "", "")
    figures = row.figures
    means = ("perturbed_words", "layers_before", "layers_under_attack", "layers_after")
    cells = (
        Cell(attack.task),
        Cell(rule_name(row.method, row.criterion, row.method != "single_exit"), row.backbone),
        Cell(setting(row.criterion, [row.threshold], {})),
        in_points(figures["original_accuracy"], beside[0]),
        in_points(figures["after_attack_accuracy"], beside[1]),
        _paired(row.against_first),
        in_points(figures["pooled_accuracy"]),
        in_points(figures["attack_success_rate"]),
        Cell(number(figures["queries"].centre), bounds(figures["queries"]), beside[2]),
        *(Cell(number(figures[name].centre), bounds(figures[name])) for name in means),
    )
    return Row(cells, runs_of([row.key], trained, [row.seed]))


def _paired(against: Paired | None) -> Cell:
    return Cell("—") if against is None else Cell(f"{against.kept}, {against.lost}", f"p{EQUALS}{against.p_value:.2g}")


def _paper_attack(attack: Attack, row: Defence) -> paper.Attacked | None:
    if not attack.comparable or row.backbone != "albert-base":
        return None
    half = "mismatched" if "mismatched" in attack.source else "matched"
    return paper.ROBUSTNESS.get((f"mnli {half}" if attack.task == "mnli" else attack.task, row.criterion))


def cifar_table(stored: Stored) -> Table:
    """Table 6: residual networks."""
    result = stored.cifar
    rows = [_cifar_row(result, row, stored.cifar_trained) for row in result.rows]
    columns = ("Data set", "Network and exit rule", "Setting", "Parameters", "Layer ratio", "FLOP ratio",
               "Accuracy", "Seeds", "Paper: accuracy", "Paper: layer ratio")  # fmt: skip
    notes = [
        f"A layer is a residual block of two convolutions. Settings were chosen for {aim(result)}.",
        *([seeds_note(result.rows)] if rows else []),
        *(f"{name}: trained on {stored.cut[name]:,} images." for name in _datasets(result) if name in stored.cut),
    ]
    if not rows:
        notes.append("Not run: cifar.datasets names none.")
    return Table("cifar", "Image classification (Table 6)", columns, tuple(rows), tuple(notes), names=3)


def _datasets(result: Evaluated) -> list[str]:
    return list(dict.fromkeys(row.task for row in result.rows))


def _cifar_row(result: Evaluated, row: Result, trained: Mapping[str, Trained]) -> Row:
    group = result.group(row)
    theirs = paper.beside_image(row.task, row.backbone, row.method, row.criterion)
    shown = (theirs, theirs) if isinstance(theirs, str) else (number(theirs.accuracy), times(theirs.speedup))
    cells = (
        Cell(row.task),
        Cell(
            rule_name(row.method, row.criterion, group.multi_exit),
            row.backbone,
            "" if isinstance(theirs, str) else theirs.label,
        ),
        Cell(setting(row.criterion, row.thresholds, {})),
        Cell(count(group.parameters)),
        ratio(row.layer_speedup),
        ratio(row.flop_speedup),
        in_points(row.score, flags=flags_of(row)),
        Cell(str(len(row.seeds)), f"{len(group.failed)} failed" if group.failed else ""),
        *(Cell(text) for text in shown),
    )
    return Row(
        cells, runs_of(row.keys, trained, row.seeds), anchor=slug("cifar", row.task, row.method, row.criterion or "all")
    )


SIMULATED = "outputs/simulate/simulate.json"


def theorem_table(stored: Stored) -> Table:
    """Theorem 1: what its three statements promise, and what the exact probability says."""
    rows = []
    for row in stored.simulation.theorem:
        worst = row["counterexample"]
        example = "none" if worst is None else f"t = {worst['t']}, q = {worst['q']:g}, p = {worst['p']:g}"
        numbers = [Cell(f"{row[name]:,}") for name in ("cells", "claims", "true_claims", "false_claims", "missed")]
        rows.append(Row((Cell(row["name"]), *numbers, Cell(example)), origin=SIMULATED))
    columns = ("Bound as printed in", "Cases", "Gains promised", "of these true", "of these false", "Gains missed",
               "Worst counterexample")  # fmt: skip
    notes = (
        "The theorem's statement, its proof's header and equation 11 give three different bounds. Each is held against "
        f"the exact accuracy of {stored.simulation.n_layers} independent classifiers, over a grid of error rates q, p "
        "and patiences.",
    )
    return Table("theorem", "Theorem 1: three bounds against the exact probability", columns, tuple(rows), notes)


def example_table(stored: Stored) -> Table:
    """The paper's own example of Theorem 1: q = 0.2, p = 0.1."""
    n = stored.simulation.n_layers
    rows = []
    for row in stored.simulation.example:
        gain = 100 * (row["exact_accuracy"] - 0.9)
        cells = (
            Cell(str(row["t"])),
            Cell(number(100 * row["exact_accuracy"], 2)),
            Cell(number(100 * row["simulated_accuracy"], 2)),
            Cell(signed(gain, 2)),
            Cell(number(row["mean_layers"], 2)),
            Cell(times(n / row["mean_layers"])),
            Cell("promised" if statement_bound(n, row["t"], *EXAMPLE) else "not promised"),
        )
        rows.append(Row(cells, origin=SIMULATED))
    columns = ("Patience t", "Accuracy, exact", "Accuracy, simulated", "Gain", "Mean layers", "Layer ratio",
               "Statement's bound")  # fmt: skip
    notes = (
        f"{n} classifiers, every one with error rate q = 0.2 but the last with p = 0.1: without early exit 90 points. "
        f"Simulated with {stored.simulation.samples:,} rows. The paper says: promised from t = 4 on (n = 12).",
    )
    return Table("example", "The paper's example of Theorem 1", columns, tuple(rows), notes)
