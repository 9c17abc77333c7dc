"""Attacks: the paper's figures beside ours, and what the summary makes of them."""

from pathlib import Path
from typing import Any

from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.render import Report
from pipeline.report.sections.robustness import Robustness
from pipeline.results import ALL_LAYERS, Attack, DefenceRow, OperatingPoint, OverExamples, Paired
from tests.report.pages import Page, small
from tests.stored_results import key_of, write_all

NONE = OverExamples(value=None, n=0)


def span(value: float, low: float | None = None, high: float | None = None) -> OverExamples:
    return OverExamples(value=value, low=low, high=high, n=500)


def defence(criterion: str | None, **figures: Any) -> DefenceRow:
    """A row with the figures given; the others are not defined."""
    names = ("original_accuracy", "after_attack_accuracy", "pooled_accuracy", "attack_success_rate", "queries",
             "perturbed_words", "layers_before", "layers_under_attack", "layers_after")  # fmt: skip
    method = "joint" if criterion else "single_exit"
    key = key_of("minilm", method, "sst2", 1)
    labels = {"defence": criterion or "single exit", "backbone": "minilm", "seed": 1, "key": key}
    point = OperatingPoint(criterion=criterion, threshold=0.9) if criterion else ALL_LAYERS
    rest = {"scores": "answered", "against_first": None, "unattacked": 0, **dict.fromkeys(names, NONE)}
    return DefenceRow(**{**labels, "point": point, "method": method, **rest, **figures})


def section_of(root: Path, rows: tuple[DefenceRow, ...], **changes: Any) -> tuple[str, tuple[str, ...], list[str]]:
    """The finding, the table's notes and the last column of a report with one attack."""
    params, workspace = small("minilm", ("sst2",)), Workspace(root)
    write_all(workspace, params, layers=6, comparable=False)
    stored = Attack.read(workspace.attack("sst2"), "")
    (attacked,) = stored.attacked
    attacked = attacked.model_copy(update={"rows": rows, "examples": 500, **changes})
    Attack(task="sst2", attacked=(attacked,)).write(workspace.attack("sst2"))
    results = collect(params, workspace)
    (finding,) = Robustness().findings(results)
    (table,) = Robustness().tables(results)
    return finding.text, table.notes, [row.cells[-1].text for row in table.rows]


def test_the_papers_figures_stand_beside(glue: Report) -> None:
    table = Page(glue.html).tables["Robustness (Table 5)"]
    halves = {row[0]: dict(zip(table[0], row, strict=True)) for row in table if "patience" in row[1]}
    assert list(halves) == ["mnli matched", "mnli mismatched"]
    for (half, row), printed, queries in zip(halves.items(), ("30.2", "25.6"), ("88", "93"), strict=True):
        assert row["After-attack acc."].startswith("25.0 ["), half
        assert row["After-attack acc."].endswith(printed), half
        assert row["Queries"].endswith(queries), half
    assert "textfooler on mnli matched, textfooler on mnli mismatched" in glue.html


def test_a_defence_that_misleads_the_search_is_named(tmp_path: Path) -> None:
    before = span(0.9, 0.88, 0.92)

    def row(criterion: str | None, after: OverExamples, pooled: OverExamples, p: float | None = None) -> DefenceRow:
        against = None if p is None else Paired(kept=30, lost=5, p_value=p)
        accuracies = {"original_accuracy": before, "after_attack_accuracy": after, "pooled_accuracy": pooled}
        return defence(criterion, **accuracies, against_first=against)

    rows = (
        row(None, span(0.09, 0.07, 0.12), span(0.09, 0.07, 0.12)),
        row("confidence", span(0.29, 0.25, 0.33), span(0.1, 0.07, 0.13), 1e-9),
        row("patience", span(0.10, 0.08, 0.13), span(0.1, 0.07, 0.13), 0.03),
    )
    text, _, _ = section_of(tmp_path, rows)
    assert "confidence falls from 90.0 to 29.0 (10.0 on all texts found)" in text
    assert "What confidence gained by misleading the search" in text
    # 0.03 is not small enough where two were tried.
    assert "On the same examples confidence is told apart from single exit" in text


def test_an_attack_on_the_speed_is_told_from_one_on_the_answers(tmp_path: Path) -> None:
    def row(criterion: str | None, before: float, after: float, success: OverExamples) -> DefenceRow:
        same = {"original_accuracy": span(0.9), "after_attack_accuracy": span(0.9), "attack_success_rate": success}
        return defence(criterion, layers_before=span(before), layers_after=span(after), **same)

    rows = (row(None, 6, 6, NONE), row("confidence", 3.1, 5.9, span(0.93)))
    text, notes, layers_after = section_of(tmp_path, rows, goal="slow_down", max_queries=50)
    assert "confidence goes from 3.1 layers to 5.9 (93.0% of the attacks reach the last)" in text
    assert "single exit" not in text
    assert "falls" not in text
    assert any("to slow the model down" in note and "at most 50 queries" in note for note in notes)
    assert layers_after == ["6.0", "5.9"]
