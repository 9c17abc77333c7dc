"""What was not run is a sentence that says what params.yaml would need, and the page is built all the same."""

import html
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.criteria import CRITERIA
from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.report.collect import collect
from pipeline.report.render import Content, Report, build
from pipeline.report.sections import SECTIONS
from pipeline.report.stored import Stored
from pipeline.results import Searched
from tests.report.pages import PROVENANCE, TABLE_1, Page, report_of, small
from tests.stored_results import params_for, write_all, write_simulation

SENTENCES = {
    "texts": "no text task under tasks in params.yaml; add one, such as sst2, and a backbone for it",
    "images": (
        "no image task under tasks in params.yaml; add one, such as cifar10, and a backbone for it, such as resnet56"
    ),
    "latency": "no task under latency.tasks in params.yaml; add one of those under tasks",
    "attack": "no task under attack.tasks in params.yaml; add a text task with classes",
    "simulation": "no patience under simulate.patiences in params.yaml; add some, such as 1 to 11",
}
"""What is said where a part is empty."""
NOTHING = frozenset(SENTENCES)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A text and an image task, timed, the text attacked."""
    workspace, params = Workspace(tmp_path_factory.mktemp("full")), small("albert-base", ("sst2", "cifar10"))
    write_all(workspace, params)
    return collect(params, workspace)


@pytest.fixture(scope="module")
def no_patience(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The same without a simulation."""
    return Stored((), {}, write_simulation(Workspace(tmp_path_factory.mktemp("none")), []))


def without(full: Stored, nothing: Stored, empty: frozenset[str]) -> Stored:
    """The results without the parts named."""
    tasks = [
        replace(
            task,
            latency=None if "latency" in empty else task.latency,
            attacks=() if "attack" in empty else task.attacks,
        )
        for task in full.tasks
        if ("images" if task.image else "texts") not in empty
    ]
    return replace(full, tasks=tuple(tasks), simulation=(nothing if "simulation" in empty else full).simulation)


def said_in(report: Report, sentence: str) -> tuple[int, int]:
    """How often the page and the Markdown file say it."""
    plain = report.markdown.replace("\\", "")
    return html.unescape(report.html).count(f"{sentence}."), plain.count(f"{sentence}.")


def test_every_combination_of_empty_parts_has_its_sentences(full: Stored, no_patience: Stored) -> None:
    for flags in product((False, True), repeat=len(SENTENCES)):
        empty = frozenset(part for part, flag in zip(SENTENCES, flags, strict=True) if flag)
        stored = without(full, no_patience, empty)
        empty |= {"latency", "attack"} if "texts" in empty else set()  # both were asked of the text
        sentences = [sentence for section in SECTIONS for sentence in section.not_run(stored)]
        assert {part for part, sentence in SENTENCES.items() if sentence in sentences} == empty
        for section in SECTIONS:
            shown = any(table.rows for table in section.tables(stored)) or section.slug in ("curves", "overthinking")
            assert shown or section.not_run(stored), f"{section.slug} is silent without {sorted(empty)}"
            assert all(finding.text for finding in section.findings(stored))


# A figure hangs on one part alone, and drawing is slow: whole pages with one part empty, and with all.
@pytest.mark.slow
@pytest.mark.parametrize("empty", [*([part] for part in SENTENCES), [*NOTHING]], ids="-".join)
def test_a_page_with_empty_parts_is_whole(full: Stored, no_patience: Stored, empty: list[str]) -> None:
    report = build(without(full, no_patience, frozenset(empty)), PROVENANCE)
    page = Page(report.html)
    assert page.balanced
    assert all(len(rows) > 1 for rows in page.tables.values())
    for part in empty:
        assert said_in(report, SENTENCES[part]) == (1, 1), "in the summary; a section of nothing else is not there"
    for section in SECTIONS:
        content = Content.of(section, without(full, no_patience, frozenset(empty)))
        assert (section.slug in page.ids) == (not content.empty)
        assert (f"\n## {section.title}\n" in report.markdown) == (not content.empty)
    links = {address[1:] for address in page.addresses if address.startswith("#")}
    assert links <= set(page.ids)


def test_all_that_was_run_leaves_no_heading_for_what_was_not(full: Stored) -> None:
    report = build(full, PROVENANCE)
    assert "What was not run" not in report.html
    assert "Not run:" not in report.html
    assert "What was not run" not in report.markdown


def own_data(**changes: Any) -> Params:
    """One task of own data, one method, one seed, and nothing else."""
    source = {"train": "train.csv", "report": {"validation": "validation.csv"}}
    task = {"source": source, "text": ["text"], "label": "label", "label_names": ["no", "yes"]}
    raw = params_for({"mine": task}, "minilm", seeds=[1], **changes).model_dump(mode="json")
    raw["latency"]["tasks"], raw["attack"]["tasks"], raw["simulate"]["patiences"] = [], {}, []
    return Params.model_validate(raw)


def test_one_task_of_own_data_and_nothing_else(tmp_path: Path) -> None:
    workspace, params = Workspace(tmp_path), own_data(methods=["joint"])
    write_all(workspace, params, layers=6, seeds=(1,))
    write_simulation(workspace, [])
    report = build(collect(params, workspace), PROVENANCE)
    page = Page(report.html)
    assert page.balanced
    assert "Reproduction of" not in report.html
    assert page.row("mine", "joint, patience (PABEE)")["Seeds"] == "1"
    for part in ("images", "latency", "attack", "simulation"):
        assert said_in(report, SENTENCES[part]) == (1, 1)
    assert said_in(
        report, "no plainly trained model to compare with; add single_exit under methods in params.yaml"
    ) == (2, 2)


def test_one_method_without_early_exits(tmp_path: Path) -> None:
    raw = small("albert-base", ("sst2",), methods=["single_exit"]).model_dump(mode="json")
    raw["latency"]["tasks"], raw["attack"]["tasks"] = [], {}
    report = report_of(tmp_path, Params.model_validate(raw))
    assert Page(report.html).balanced
    assert report.headlines["comparisons"] == 0
    # Verdicts, curves, budget and diagnosis, in the summary.
    assert said_in(report, "no method under methods in params.yaml trains early exits; add one, such as joint") == (
        4,
        4,
    )
    row = Page(report.html).row(TABLE_1, "PABEE")
    assert row["Model and exit rule"] == "PABEE not run: joint is not in methods"


def test_a_task_without_early_exits_cannot_be_timed(tmp_path: Path) -> None:
    report = report_of(tmp_path, small("albert-base", ("sst2",), methods=["single_exit"]))
    sentence = "sst2 has no model with early exits to time; add a method that trains them, such as joint, under methods"
    assert said_in(report, f"{sentence} in params.yaml") == (1, 1)
    assert "wall time on sst2" not in report.html


@pytest.mark.parametrize(
    ("kept", "sentence", "times"),
    [
        ("patience", "no rival of patience that serves these tasks under evaluate.criteria in params.yaml; add one, "
                     "such as confidence", 2),
        ("entropy", "no patience under evaluate.criteria in params.yaml, to compare with the others; add it", 1),
    ],
)  # fmt: skip
def test_one_criterion_has_no_rival(full: Stored, kept: str, sentence: str, times: int) -> None:
    def only(rows: Any) -> Any:
        return tuple(row for row in rows if row.criterion in (None, kept))

    tasks = [
        replace(task, evaluated=task.evaluated.model_copy(update={"rows": only(task.rows)}), curves=only(task.curves))
        for task in full.tasks
    ]
    report = build(replace(full, tasks=tuple(tasks)), PROVENANCE)
    assert Page(report.html).balanced
    # Patience is still compared with all layers and the plain model; without it the section is not there.
    assert said_in(report, sentence) == (times, times)


def test_a_regression_is_told_of_rivals_that_it_can_have(tmp_path: Path) -> None:
    workspace, params = Workspace(tmp_path), small("albert-base")
    write_all(workspace, params)
    both = collect(params, workspace)
    sentence = (
        "no rival of patience that serves these tasks under evaluate.criteria in params.yaml; add one, such as fixed, "
        "or learned with method berxit"
    )
    assert said_in(build(both, PROVENANCE), sentence) == (0, 0)
    assert said_in(build(replace(both, tasks=both.tasks[1:]), PROVENANCE), sentence) == (2, 2)
    rivals = {name for name, one in CRITERIA.items() if one.regression and one.causal}
    assert rivals == {"patience", "learned", "fixed"}


def test_models_that_other_code_trained_are_counted(full: Stored) -> None:
    assert "declared to do the same" not in build(full, PROVENANCE).html
    selected = [trial.key for _, group in full.groups for trial in group.trials]
    changed = {key: full.trials[key].model_copy(update={"other_code": True}) for key in selected[:2]}
    report = build(replace(full, trials={**full.trials, **changed}), PROVENANCE)
    sentence = "2 of 12 models were trained by code that was since changed and declared to do the same"
    assert said_in(report, sentence) == (1, 1)
    rows = Page(report.html).tables["Trained models behind the rows"][1:]
    assert [key in selected[:2] for key in selected] == ["trained by other code" in row[6] for row in rows]


def test_what_a_search_stopped_is_counted(full: Stored) -> None:
    assert "stopped by the search" not in build(full, PROVENANCE).html
    first, *others = full.tasks
    group, *rest = first.selected.groups
    (chosen,) = group.grid
    behind = chosen.model_copy(update={"key": "k", "learning_rate": 0.5, "selection": 0.4, "stopped_after": 1})
    search = Searched(method="asha", stopped=1, epochs=4, epochs_saved=2)
    halved = group.model_copy(update={"grid": (behind, chosen), "search": search})
    halved.check()
    tasks = (replace(first, selected=first.selected.model_copy(update={"groups": (halved, *rest)})), *others)
    report = build(replace(full, tasks=tasks), PROVENANCE)
    sentence = "1 trial was stopped by the search for a grid point, which saved at most 2 epochs"
    assert said_in(report, sentence) == (1, 1)
    _, row, *_ = Page(report.html).tables["Searches of the grids"]
    assert row[3:8] == ["asha", "2", "1", "4", "2"]
    assert row[9:11] == ["2e-05", "0.9000"]
