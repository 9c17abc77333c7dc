"""Does early exit pay: who is chosen, what the answer is, and that figures answer a pointer."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.criteria import CRITERIA
from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.paying import BEARABLE, best_of, deals
from pipeline.report.render import Provenance, Report, build
from pipeline.report.sections import FIRST
from pipeline.report.sections.budget import Budget
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Curve, OverSeeds
from tests.report.pages import Page, small
from tests.stored_results import write_all


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


@pytest.mark.parametrize(
    ("speed", "values", "lost_won_p", "answer"),
    [
        (1.5, (0.01, 0.002, 0.0), (0.0, 0.01, None), "pays"),
        (1.5, (0.0, -0.004, -0.02), (0.02, 0.01, None), "pays"),  # median at most half a point, and not on every seed
        (1.5, (-0.001, -0.002, -0.003), (0.01, 0.0, None), "costs"),  # behind on every seed
        (1.5, (-0.02, -0.03, 0.01), (0.03, 0.0, None), "costs"),  # seeds disagree, the median is lost
        (1.01, (0.01, 0.02, 0.03), (0.0, 0.02, None), "gains nothing"),
        (1.5, (-0.004,), (0.02, 0.01, 0.3), "pays"),  # one seed: rows tell
        (1.5, (-0.004,), (0.02, 0.01, 0.01), "costs"),
        (1.5, (0.004,), (0.01, 0.02, 0.01), "pays"),
        (1.5, (-BEARABLE - 0.001,), (0.02, 0.01, 0.3), "costs"),
    ],
)
def test_the_answer(
    stored: Stored,
    speed: float,
    values: tuple[float, ...],
    lost_won_p: tuple[float, float, float | None],
    answer: str,
) -> None:
    deal = deals(stored.tasks)[0]
    several = len(values) > 1
    middle = sorted(values)[len(values) // 2]
    gap = OverSeeds(
        median=middle, low=min(values) if several else None, high=max(values) if several else None, values=values
    )
    fast = OverSeeds(median=speed, values=(speed,))
    lost, won, p = lost_won_p
    row = deal.row.model_copy(update={"layer_speedup": fast})
    untimed = replace(deal, row=row, gap=gap, lost=lost, won=won, p=p, measured=None)
    assert untimed.answer == answer
    assert replace(untimed, measured=0.9).answer == "gains nothing", "slower by the clock"
    assert replace(untimed, measured=1.2).answer == (answer if speed > 1.2 else "pays")
    assert replace(untimed, learned=False).answer == "learned nothing", "whatever else holds"


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

    def changed(name: str = "sst2", **changes: Any) -> TaskResults:
        models = tuple(
            model.model_copy(update={"constant": model.constant.model_copy(update=changes)})
            for model in task.evaluated.diagnosis
        )
        return replace(task, evaluated=task.evaluated.model_copy(update={"task": name, "diagnosis": models}))

    for ignorant in (changed(score=deal.full.score.centre), changed(p=0.05), changed(score=1.0, p=1.0)):
        only = replace(stored, tasks=(ignorant,))
        assert [one.answer for one in deals(only.tasks)] == ["learned nothing"]
        report = build(only, Provenance("c", "p"))
        for text in (report.html, report.markdown):
            assert "No answer: the model has learned nothing" in text
            assert "The model has learned nothing (one answer for every row scores" in text
            assert "a pretrained backbone come before early exit." in text
    both = replace(stored, tasks=(changed("other"), changed(p=1.0)))
    assert FIRST.answer(both).endswith("; no answer on sst2, where the model has learned nothing.")


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
    assert deal.p == (pytest.approx(stats.binomtest(outcome.lost.rows, both).pvalue) if both else 1.0)


def test_the_first_screen_answers_and_each_task_has_one_sentence(stored: Stored, glue: Report) -> None:
    best = best_of(deals(stored.tasks))
    assert [(deal.task.name, deal.row.split) for deal in best] == [("sst2", "validation"), ("stsb", "validation")]
    assert [finding.subject for finding in FIRST.findings(stored)] == ["sst2", "stsb"]
    assert glue.html.index('id="answer"') < glue.html.index('id="summary"')
    rows = Page(glue.html).tables["Does early exit pay here?"]
    assert {row[3].split()[0] for row in rows[1:]} <= {"pays", "costs", "gains"}
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
