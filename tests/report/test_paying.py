"""Does early exit pay: who is chosen, what the answer is, what is said beside it, and that figures answer a pointer."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.diagnosis import Learned
from pipeline.evaluation.intervals import median_interval
from pipeline.layout import Workspace
from pipeline.report import classes
from pipeline.report.clock import Clock
from pipeline.report.collect import collect
from pipeline.report.paying import Change, Deal, best_of, deals
from pipeline.report.remarks import remarks
from pipeline.report.render import Provenance, Report, build
from pipeline.report.sections import FIRST
from pipeline.report.sections.budget import Budget
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Curve, LatencyRow, OfClass, OverSeeds
from tests.report.pages import TIMES, Page, edit, small
from tests.stored_results import point_of, write_all


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    root, params = tmp_path_factory.mktemp("stored"), small("albert-base")
    write_all(Workspace(root), params)
    return collect(params, Workspace(root))


def lowered(task: TaskResults, but: str, split: str) -> TaskResults:
    """The task with the scores of all criteria but one at 0, on one split."""

    def change(curve: Curve) -> Curve:
        if curve.criterion == but or curve.split != split:
            return curve
        return replace(curve, points=tuple(point._replace(score=0.0) for point in curve.points))

    return replace(task, curves=tuple(map(change, task.curves)))


def test_selection_rows_choose_the_exit_rule_and_report_rows_do_not(stored: Stored) -> None:
    task = next(task for task in stored.tasks if task.name == "sst2")
    (deal,) = deals([task])
    for criterion in {row.criterion for row in task.rows} - {None}:
        assert criterion is not None
        (same,) = deals([lowered(task, criterion, "validation")])
        assert same.row.criterion == deal.row.criterion
        (changed,) = deals([lowered(task, criterion, "selection")])
        runs_early = CRITERIA[criterion].causal and CRITERIA[criterion].adaptive
        assert (changed.row.criterion == criterion) == runs_early


def over(*values: float) -> OverSeeds:
    return median_interval(values)


def changes(rows: int, *lost_won: tuple[int, int]) -> tuple[Change, ...]:
    """Rows lost and won, of each seed."""
    return tuple(Change(seed, lost, won, rows) for seed, (lost, won) in enumerate(lost_won, 1))


@pytest.mark.parametrize(
    ("speed", "values", "rows", "answer"),
    [
        (1.5, (0.01, 0.002, 0.0), changes(1000, (0, 10), (0, 2), (0, 0)), "pays"),
        # In the median at most half a point, and not on every seed.
        (1.5, (0.0, -0.004, -0.02), changes(1000, (0, 0), (4, 0), (20, 0)), "pays"),
        (1.5, (-0.001, -0.002, -0.003), changes(9000, (9, 0), (18, 0), (27, 0)), "costs"),  # behind on every seed
        (1.5, (-0.001, -0.002, -0.003), changes(1000, (1, 0), (2, 0), (3, 0)), "too few rows to tell"),
        (1.5, (-0.02, -0.03, 0.01), changes(1000, (20, 0), (30, 0), (0, 10)), "costs"),  # seeds disagree
        (1.01, (0.01, 0.02, 0.03), changes(1000, (0, 10), (0, 20), (0, 30)), "gains nothing"),
        (1.5, (-0.004,), changes(1000, (20, 16)), "pays"),  # one seed: rows tell
        (1.5, (-0.004,), changes(1000, (36, 16)), "costs"),
        (1.5, (0.004,), changes(1000, (16, 36)), "pays"),
        (1.5, (-0.011,), changes(1000, (21, 10)), "costs"),
        # Two of 180 rows on one seed and none on the other are below half a point, and no loss that rows can tell.
        (1.5, (-2 / 180, 0.0), changes(180, (2, 0), (0, 0)), "too few rows to tell"),
        (1.5, (-5 / 180,), changes(180, (5, 0)), "too few rows to tell"),
        (1.5, (-6 / 180,), changes(180, (6, 0)), "costs"),
        (1.5, (-5 / 180, -6 / 180), changes(180, (5, 0), (6, 0)), "costs"),  # one seed's rows tell
        (1.5, (-6 / 180,), changes(180, (16, 10)), "costs"),  # not told, and more than a few
        (1.5, (0.0,), changes(180, (0, 0)), "pays"),
        (1.5, (-0.02, -0.01), (), "costs"),  # a regression has no rows lost and won
    ],
)
def test_the_answer(
    stored: Stored, speed: float, values: tuple[float, ...], rows: tuple[Change, ...], answer: str
) -> None:
    deal = deals(stored.tasks)[0]
    row = deal.row.model_copy(update={"layer_speedup": over(speed)})
    untimed = replace(deal, row=row, gap=over(*values), changes=rows, clock=None)
    assert untimed.answer == answer

    def timed(low: float, high: float) -> str:
        return replace(untimed, clock=Clock((low + high) / 2, low, high, 3, 1.33)).answer

    assert timed(0.85, 1.04) == "gains nothing", "slower by the clock"
    assert timed(1.05, 1.5) == (answer if speed > 1.2 else "pays")
    assert timed(1.04, 1.05) == timed(0.9, 1.5) == "not settled by the clock"
    assert replace(untimed, learned=Learned({1: False})).answer == "learned nothing", "whatever else holds"


def test_seeds_that_have_learned_nothing_do_not_say_what_is_lost(stored: Stored) -> None:
    """On a seed that answers at random an early exit may gain much; that pays for nothing."""
    deal = deals(stored.tasks)[0]
    row = deal.row.model_copy(update={"layer_speedup": over(1.5), "seeds": (1, 2)})
    both = replace(deal, row=row, gap=over(0.36, -0.03), changes=changes(1000, (0, 360), (40, 10)), clock=None)
    assert replace(both, learned=Learned({1: True, 2: True})).answer == "pays"
    assert replace(both, learned=Learned({1: False, 2: True})).answer == "costs"
    assert replace(both, learned=Learned({1: True, 2: False})).answer == "pays"
    regression = replace(both, learned=Learned({1: False, 2: True}), changes=())
    assert regression.answer == "costs"
    few = replace(both, gap=over(0.36, -0.003), changes=changes(1000, (0, 360), (3, 0)))
    assert replace(few, learned=Learned({1: False, 2: True})).answer == "pays"
    assert replace(few, gap=over(0.36, -0.03), learned=Learned({1: False, 2: True})).answer == "too few rows to tell"


def timed_row(criterion: str | None, repeats: tuple[float, ...], speedup: float = 1.0) -> LatencyRow:
    """A row of a timing at batch 1, with milliseconds of each repeat."""
    return LatencyRow(
        backbone="b", method="joint", key="k", point=point_of(criterion), engine="pytorch", precision="float32",
        score=0.8, mode="batch 1", threads=1, examples=1, exits=(1,), ms_per_example=median(repeats),
        repeats_ms=repeats, p50_ms=1.0, p99_ms=1.0, measured_speedup=speedup, own_layer_speedup=1.33,
        own_flop_speedup=1.3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("full", "early", "speedup", "low", "high", "gained"),
    [
        ((1.44, 1.43, 2.02), (1.4, 1.5, 2.8), 0.96, 2.02 / 2.8, 1.44 / 1.4, False),
        ((6.0, 6.0, 6.0), (5.0, 6.0, 5.5), 1.09, 1.0, 1.2, None),
        ((6.0, 6.6, 6.0), (5.0, 5.5, 5.0), 1.2, 1.2, 1.2, True),
        ((6.0,), (5.8,), 6 / 5.8, 6 / 5.8, 6 / 5.8, False),
        # The one slow repeat of six does not unsettle the others.
        ((6.0,) * 6, (5.0, 5.0, 5.0, 5.0, 5.0, 7.0), 1.2, 1.2, 1.2, True),
        ((6.0,) * 6, (5.0, 5.0, 5.0, 5.0, 7.0, 7.0), 1.2, 6 / 7, 1.2, None),
        ((6.0, 4.0, 5.0), (6.1, 3.9, 4.0), 1.25, 6 / 6.1, 1.25, None),  # the medians are of different repeats
    ],
)
def test_the_clock_has_the_range_of_its_repeats(
    full: tuple[float, ...], early: tuple[float, ...], speedup: float, low: float, high: float, gained: bool | None
) -> None:
    rows = [timed_row(None, full), timed_row("patience", early, speedup)]
    clock = Clock.of(rows[1], rows)
    assert (clock.low, clock.high) == pytest.approx((low, high))
    assert (clock.gained, clock.layers, clock.repeats) == (gained, 1.33, len(full))
    assert ("repeats" in clock.beside) == (len(full) > 1)


def test_the_clock_stands_beside_the_layers_of_the_model_that_was_timed(tmp_path: Path) -> None:
    """The row's layers are the median over seeds, and the first seed's model was timed."""
    params = small("albert-base", ("sst2",))
    write_all(Workspace(tmp_path), params)
    (best,) = deals(collect(params, Workspace(tmp_path)).tasks)

    def repeat(latency: dict[str, Any]) -> None:
        for row in latency["measured"]["rows"]:
            if row["point"]["criterion"] == "confidence":
                row["point"]["criterion"] = best.row.criterion
                row |= {"measured_speedup": 0.96, "repeats_ms": [10.0, 10.0, 10.0], "own_layer_speedup": 1.33}

    edit(Workspace(tmp_path).latency("sst2"), repeat)
    report = build(collect(params, Workspace(tmp_path)), Provenance("c", "p"))
    said = f"0.90{TIMES} to 1.10{TIMES} over 3 repeats; the timed model: 1.33{TIMES} in layers"
    for text in (report.html, report.markdown):
        assert f"by the clock, one row at a time, 0.96{TIMES} ({said})" in text
        assert "The clock does not settle it: raise latency.repeats in params.yaml" in text
        assert "Not settled: repeats of the timing disagree." in text
    row = Page(report.html).row("Does early exit pay here?", "sst2")
    assert row["Wall time"] == f"0.96{TIMES} {said.replace(';', '')}", "a line each"
    assert row["Answer"].startswith("not settled by the clock")
    measured = Page(report.html).row("Latency", f"joint, {CRITERIA[best.row.criterion or ''].title}")["Measured"]
    assert measured == f"0.96{TIMES} 0.90{TIMES} to 1.10{TIMES} over 3 repeats"


def test_too_few_rows_are_counted(stored: Stored) -> None:
    deal = deals(stored.tasks)[0]
    gap, fast = over(-2 / 180, 0.0), deal.row.model_copy(update={"layer_speedup": over(1.5)})
    few = replace(deal, row=fast, gap=gap, changes=changes(180, (2, 0), (0, 0)), clock=None)
    assert (
        "Too few rows to tell: of 180 rows seed 1 loses 2 and wins none and seed 2 loses none and wins none; 0.5 "
        "points are 0.9 rows."
    ) in [*remarks(few)]


def with_constant(task: TaskResults, method: str, seeds: tuple[int, ...], **changes: Any) -> TaskResults:
    """The task with another constant answer beside the models of some seeds."""
    models = tuple(
        model.model_copy(update={"constant": model.constant.model_copy(update=changes)})
        if (model.method, model.seed in seeds) == (method, True)
        else model
        for model in task.evaluated.diagnosis
    )
    return replace(task, evaluated=task.evaluated.model_copy(update={"diagnosis": models}))


def test_a_model_that_has_learned_nothing_gets_no_yes(tmp_path: Path) -> None:
    """One of two equal classes for every row, as a small encoder on little data answers, and its neighbours."""
    params = small("albert-base", ("sst2",), seeds=[1])
    write_all(Workspace(tmp_path), params, seeds=(1,))
    stored = collect(params, Workspace(tmp_path))
    (task,) = stored.tasks
    (deal,) = deals([task])
    assert deal.answer != "learned nothing"
    assert deal.constant is not None
    assert 0.5 <= deal.constant < 0.7
    ignorant = [with_constant(task, "joint", (1,), **changes) for changes in (
        {"score": deal.full.score.centre}, {"p": 0.05}, {"score": 1.0, "p": 1.0}
    )]  # fmt: skip
    for one in ignorant:
        only = replace(stored, tasks=(one,))
        assert [deal.answer for deal in deals(only.tasks)] == ["learned nothing"]
        report = build(only, Provenance("c", "p"))
        for text in (report.html, report.markdown):
            assert "No answer: the model has learned nothing." in text
            assert "The model has learned nothing (one answer for every row scores" in text
            assert "training with exits failed" in text, "the plainly trained model has learned"
            assert "as good as the last" not in text
            assert "not compared, since the model has learned nothing." in text
            for word in ("ahead", "behind", "equal to", "not told apart from"):
                assert not re.search(rf"It is {word}|[Pp]atience was compared", text)
        assert report.headlines["comparisons"] == 0
        cells = Page(report.html).row("Does patience win?", "sst2")
        assert cells["Against confidence"].startswith("not compared")
        assert Page(report.html).row("Does early exit pay here?", "sst2")["Answer"] == "learned nothing"
        assert "a class is never" not in report.html
        assert "learned nothing" in Page(report.html).row("sst2", "joint, patience (PABEE)")["Score"]
        assert "learned nothing" not in Page(report.html).row("sst2", "single exit")["Score"]
    both = with_constant(ignorant[0], "single_exit", (1,), p=1.0)
    report = build(replace(stored, tasks=(both,)), Provenance("c", "p"))
    assert "a pretrained backbone come before early exit." in report.html
    assert "training with exits failed" not in report.html
    other = replace(task, evaluated=task.evaluated.model_copy(update={"task": "other"}))
    answer = FIRST.answer(replace(stored, tasks=(other, ignorant[0])))
    assert answer.endswith("; no answer on sst2, where the model has learned nothing.")


@pytest.mark.parametrize(("seeds", "nothing"), [((1,), False), ((1, 3), True)])
def test_some_seeds_have_learned_nothing(stored: Stored, seeds: tuple[int, ...], nothing: bool) -> None:
    """One seed is no verdict on the others."""
    task = with_constant(stored.tasks[0], "joint", seeds, p=0.2)
    (deal,) = deals([task])
    (before,) = deals(stored.tasks[:1])
    assert deal.answer == ("learned nothing" if nothing else before.answer)
    report = build(replace(stored, tasks=(task,)), Provenance("c", "p"))
    some = f"{len(seeds)} of 3 seeds {'has' if len(seeds) == 1 else 'have'} learned nothing"
    first = FIRST.answer(replace(stored, tasks=(task,)))
    assert first == f"No answer: {some}." if nothing else first.endswith(f" But {some}.")
    are = "1 of 3 seeds is" if len(seeds) == 1 else "2 of 3 seeds are"
    for text in (report.html, report.markdown):
        assert f"With all layers, {are} no better than one answer for every row; the plainly trained model" in text
        assert "The model has learned nothing" not in text
        assert (f"not compared, since {some}." in text) == nothing
        assert (f"{some}. It is " in text) == (not nothing)
    # A model without exits that has learned nothing is no rival, and the model with exits did not fail for it.
    plain = with_constant(stored.tasks[0], "single_exit", (1, 2, 3), p=0.2)
    report = build(replace(stored, tasks=(plain,)), Provenance("c", "p"))
    assert "It is not compared with what has learned nothing: the plainly trained model (" in report.html
    assert "training with exits failed" not in report.html


def test_the_constant_answer_stands_beside_the_scores(stored: Stored, glue: Report) -> None:
    sentences = {finding.subject: finding.text for finding in FIRST.findings(stored)}
    constant = deals(stored.tasks)[0].models[0].constant.score
    assert constant is not None
    assert f"; one answer for every row: {100 * constant:.1f};" in sentences["sst2"]
    assert "one answer for every row:" not in sentences["stsb"]
    rows = {row[0]: row for row in Page(glue.html).tables["Does early exit pay here?"]}
    at = rows["Task"].index("One answer")
    assert rows["stsb"][at] == "n/a"
    assert 50 <= float(rows["sst2"][at]) < 70


def with_classes(deal: Deal, *by_seed: tuple[tuple[int, int, int, int, int], ...]) -> Deal:
    """A deal of models with these rows, right, answered, lost and won rows for each class, of 80 rows."""
    models = []
    for model, of_seed in zip(deal.models, by_seed, strict=False):
        lost, won = (tuple(one[i] for one in of_seed) for i in (3, 4))
        outcomes = tuple(
            outcome.model_copy(update={"lost_by_class": lost, "won_by_class": won}) for outcome in model.criteria
        )
        of_classes = tuple(
            OfClass(name="abcdefghijkl"[i], rows=rows, right=right, answered=answered)
            for i, (rows, right, answered, _, _) in enumerate(of_seed)
        )
        models.append(model.model_copy(update={"classes": of_classes, "criteria": outcomes}))
    return replace(deal, models=tuple(models))


def test_a_class_that_is_never_answered_is_named(stored: Stored) -> None:
    """The rare class of an imbalanced task, which no score shows."""
    deal = deals(stored.tasks)[0]
    common, silent, rare = (76, 76, 78, 0, 0), (4, 0, 0, 0, 0), (4, 2, 2, 0, 0)
    never = with_classes(deal, (common, silent), (common, silent), (common, silent))
    assert [*classes.remarks(never)] == ["With all layers a class is never the answer: “b” (4 of 80 rows)."]
    once = with_classes(deal, (common, rare), (common, silent), (common, rare))
    assert [*classes.remarks(once)] == [
        "With all layers a class is never the answer: “b” (4 of 80 rows; 1 of 3 seeds)."
    ]
    absent = with_classes(deal, ((80, 80, 80, 0, 0), (0, 0, 0, 0, 0)))
    assert [*classes.remarks(absent)] == [], "there is no row of it"
    many = with_classes(deal, ((69, 69, 80, 0, 0), *[(1, 0, 0, 0, 0)] * 11))
    (text,) = classes.remarks(many)
    assert text.startswith("With all layers 11 classes are never the answer: “b” (1 of 80 rows), “c”")
    assert text.endswith("“f” (1 of 80 rows) and 6 others.")
    assert not classes.recall_table([many], {}).rows, "more than ten classes"


def test_a_class_that_the_exit_rule_loses_is_named(stored: Stored) -> None:
    deal = deals(stored.tasks)[0]

    def losing(*lost: int) -> Deal:
        return with_classes(deal, *(((70, 70, 72, 0, 0), (10, 8, 8, rows, 0)) for rows in lost))

    for lost, early in (((3, 3, 0), "50.0"), ((6, 0, 0), "80.0"), ((8, 8, 8), "0.0")):
        told = losing(*lost)
        text = f"Under {deal.row.criterion} recall falls: of “b” from 80.0 to {early}."
        assert [*classes.remarks(told)] == [text], lost
        _, row = classes.recall_table([told], {}).rows
        assert [cell.text for cell in row.cells[2:6]] == ["b", "10", "80.0", early]
        assert row.cells[6].flags == ("behind",)
    for lost in ((0, 0, 0), (5, 0, 0), (2, 2, 1)):
        assert not [*classes.remarks(losing(*lost))], "may be chance"
        assert not classes.recall_table([losing(*lost)], {}).rows[1].cells[6].flags


def test_the_recall_of_each_class_has_a_table(glue: Report, stored: Stored) -> None:
    rows = Page(glue.html).tables["Recall by class"]
    assert [row[0] for row in rows[1:]] == ["mnli matched"] * 3 + ["mnli mismatched"] * 3 + ["sst2"] * 2 + [
        "mrpc"
    ] * 2 + ["cifar10"] * 10
    deal = deals(stored.tasks)[0]
    for row, at in zip(classes.recall_table([deal], {}).rows, (0, 1), strict=True):
        full = median(model.classes[at].right / model.classes[at].rows for model in deal.models if model.classes)
        assert row.cells[4].text == f"{100 * full:.1f}"
    weights = [model.classes for model in deal.models]
    for of_model, score in zip(weights, deal.full.score.values, strict=True):
        assert of_model is not None
        assert sum(one.right for one in of_model) / 80 == pytest.approx(score, abs=1e-6)


def test_one_exit_for_every_row_is_said(tmp_path: Path) -> None:
    """A rule that sends all rows one way is a smaller model; one that runs all layers is none."""
    params = small("albert-base", ("sst2",))
    write_all(Workspace(tmp_path), params)
    stored = collect(params, Workspace(tmp_path))
    (task,) = stored.tasks

    def leaving(*at: int | None) -> TaskResults:
        """Each seed's rows all at one exit, or where they were."""
        models = []
        for model in task.evaluated.diagnosis:
            place, exits = at[model.seed - 1], len(model.layers)
            one = {} if place is None else {"exits": tuple(80 * (i == place) for i in range(exits))}
            outcomes = tuple(outcome.model_copy(update=one) for outcome in model.criteria)
            models.append(model.model_copy(update={"criteria": outcomes}))
        return replace(task, evaluated=task.evaluated.model_copy(update={"diagnosis": tuple(models)}))

    for at, text in (
        ((7, 7, 6), "Every row leaves at the same exit (after layer 8 and 7): a smaller model does the same."),
        ((None, 7, None), "On 1 of 3 seeds every row leaves at the same exit (after layer 8): a smaller model does"),
    ):
        report = build(replace(stored, tasks=(leaving(*at),)), Provenance("c", "p"))
        assert text in report.html
        assert text in report.markdown
        flag = text.partition(":")[0][1:]
        assert flag in Page(report.html).row("sst2", "joint, patience")["Score"]
        assert flag in Page(report.html).row("Does early exit pay here?", "sst2")["Answer"]
    for at in ((None, None, None), (11, 11, 11)):
        assert "at the same exit" not in build(replace(stored, tasks=(leaving(*at),)), Provenance("c", "p")).html


def test_with_one_seed_rows_decide(tmp_path: Path) -> None:
    from scipy import stats

    params = small("albert-base", ("sst2",), seeds=[1])
    write_all(Workspace(tmp_path), params, seeds=(1,))
    (deal,) = deals(collect(params, Workspace(tmp_path)).tasks)
    (outcome,) = (
        outcome
        for model in deal.task.evaluated.diagnosis
        if model.key in deal.row.keys
        for outcome in model.criteria
        if outcome.criterion == deal.row.criterion
    )
    assert outcome.lost is not None
    assert outcome.won is not None
    both = outcome.lost.rows + outcome.won.rows
    (change,) = deal.changes
    assert (change.lost, change.won, change.rows) == (outcome.lost.rows, outcome.won.rows, 80)
    assert change.p == (pytest.approx(stats.binomtest(outcome.lost.rows, both).pvalue) if both else 1.0)


def test_the_first_screen_answers_and_each_task_has_one_sentence(stored: Stored, glue: Report) -> None:
    best = best_of(deals(stored.tasks))
    assert [(deal.task.name, deal.row.split) for deal in best] == [("sst2", "validation"), ("stsb", "validation")]
    assert [finding.subject for finding in FIRST.findings(stored)] == ["sst2", "stsb"]
    assert glue.html.index('id="answer"') < glue.html.index('id="summary"')
    rows = Page(glue.html).tables["Does early exit pay here?"]
    assert {row[3].split()[0] for row in rows[1:]} <= {"pays", "costs", "gains", "too", "not"}
    assert FIRST.answer(replace(stored, tasks=())) == "Unknown: nothing here leaves early."


def test_points_of_figures_say_what_they_are_and_lead_to_their_row(glue: Report) -> None:
    spots = re.findall(r'<a class="spot" href="#([^"]+)" aria-label="([^"]+)">', glue.html)
    ids = set(Page(glue.html).ids)
    assert spots
    assert {link for link, _ in spots} <= ids
    assert any(re.search(r"patience t\xa0=\xa0.* at \d\.\d\d\u00d7 \[", text) for _, text in spots)
    assert re.search(r"<title>patience, t = 3: \d+\.\d at \d\.\d\d\u00d7</title>", glue.html)
    width, height = 302.4, 223.2
    inside = re.search(r'id="figure-3-figure".*?</figure>', glue.html, re.DOTALL)
    assert inside
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)" r="5"/>', inside[0])]
    assert places
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert "spot" not in "".join(glue.figures.values()), "files of their own have no page to lead to"


def test_scores_under_a_budget_are_linear_in_the_cost(stored: Stored) -> None:
    """Two settings: all layers, 0.9, and half of them, 0.5."""
    task = next(task for task in stored.tasks if task.name == "sst2")

    def two(curve: Curve) -> Curve:
        first = curve.points[0]
        ends = (first._replace(layer_speedup=1.0, score=0.9), first._replace(layer_speedup=2.0, score=0.5))
        return replace(curve, points=ends)

    changed = replace(task, curves=tuple(map(two, task.curves)))
    (table,) = Budget().tables(replace(stored, tasks=(changed,)))
    assert {row.cells[1].text for row in table.rows} <= {CRITERIA[curve.criterion].title for curve in task.curves}
    for row in table.rows:
        assert [cell.text for cell in row.cells[2:]] == ["\u2014", "50.0", "70.0", "90.0", "70.0"]
        assert row.cells[-1].detail.endswith("from 50%")


def test_the_last_share_of_the_budget_is_all_layers(stored: Stored) -> None:
    task = next(task for task in stored.tasks if task.name == "sst2")
    (full,) = [row for row in task.rows if row.criterion is None and row.method == "joint"]
    (table,) = Budget().tables(replace(stored, tasks=(task,)))
    assert full.score.median is not None
    assert {row.cells[5].text for row in table.rows} == {f"{100 * full.score.median:.1f}"}


def test_where_rows_leave_adds_up(glue: Report) -> None:
    figure = re.search(r'id="exits-figure".*?</figure>', glue.html, re.DOTALL)
    assert figure
    shares: dict[str, float] = {}
    panel = figure[0].split('role="group"')[1]
    for criterion, share in re.findall(r"<title>(\w+): ([\d.]+)% leave after layer", panel):
        shares[criterion] = shares.get(criterion, 0) + float(share)
    assert len(shares) > 2
    assert all(total == pytest.approx(100, abs=0.7) for total in shares.values())
