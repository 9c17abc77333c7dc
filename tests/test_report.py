"""The report: the paper's numbers, ours beside them, what is missing said in a word, and a page that stands alone."""

import doctest
import importlib
import json
import re
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ArtifactError
from pipeline.params import Params
from pipeline.report import paper
from pipeline.report.collect import collect
from pipeline.report.numbers import signed
from pipeline.report.other_tables import robustness_table
from pipeline.report.render import Provenance, Report, build
from pipeline.report.stored import Attack, Curve, Defence, Interval, Paired, Simulation
from pipeline.report.stored import Point as CurvePoint
from pipeline.report.summary import _attacks, _theorem
from pipeline.report.tables import overview_tables
from pipeline.report.verdicts import score_at, verdicts, word
from pipeline.theory import appendix_c
from tests import stored_results
from tests.stored_results import key_of, params_for, run_id_of, write_all

TIMES = "\u00d7"
PROVENANCE = Provenance("0123abc", "feed5eed")
CUT = {"rows": {"train": 2000}}
GLUE = {"mnli": {}, "sst2": {}, "mrpc": CUT, "stsb": {}}
MODULES = ("numbers", "cells", "paper", "verdicts", "summary", "render")


def small(backbone: str, tasks: tuple[str, str] = ("sst2", "stsb"), **changes: Any) -> Params:
    """Two tasks, one of them a regression, and two methods."""
    return params_for({task: {} for task in tasks}, backbone, methods=["single_exit", "joint"], **changes)


def report_of(outputs: Path, params: Params, **written: Any) -> Report:
    write_all(outputs, params, **written)
    return build(collect(params, outputs), PROVENANCE)


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report_of(tmp_path_factory.mktemp("glue"), params_for(GLUE, "albert-base"))


class Page(HTMLParser):
    """A page's tables by their title, as rows of cell texts; its addresses; and whether its tags are balanced."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.balanced = True
        self._rows: list[list[str]] = []
        self._in_cell = False
        self.feed(html)
        self.close()
        self.balanced &= not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.addresses += [named[name] for name in ("src", "href", "xlink:href", "action", "data") if name in named]
        self.ids += [named["id"]] if "id" in named else []
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "div" and named.get("role") == "region":
            self._rows = self.tables.setdefault(named["aria-label"], [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
            self._in_cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        self.balanced &= bool(self.open) and self.open.pop() == tag
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1] = f"{self._rows[-1][-1]} {data}".strip()

    def row(self, table: str, *words: str) -> dict[str, str]:
        """The first row whose cells hold all the words, by column."""
        head, *rows = self.tables[table]
        found = next(row for row in rows if all(any(word in cell for cell in row) for word in words))
        return dict(zip(head, found, strict=True))


def page_and_text(report: Report) -> tuple[Page, str]:
    return Page(report.html), report.markdown


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    payload = json.loads(path.read_text(encoding="utf-8"))
    change(payload)
    path.write_text(json.dumps(payload), encoding="utf-8")


# ---------------------------------------------------------------- the paper's numbers


def test_macro_scores_are_the_means_of_their_rows() -> None:
    complete = [row for row in paper.ROWS if row.macro is not None]
    assert len(complete) == 8
    for row in complete:
        values = [value for value in row.scores.values() if value is not None]
        # The paper rounds each score first; its test rows hold it to within a tenth.
        assert statistics.fmean(values) == pytest.approx(row.macro, abs=0.11), row


@pytest.mark.parametrize(
    ("task", "backbone", "key", "text"),
    [
        ("sst2", "albert-base", ("joint", "patience"), "93.0"),
        ("mrpc", "albert-base", ("joint", "patience"), "90.0"),
        ("mrpc", "albert-base", ("joint", "confidence"), "87.1"),
        ("cola", "albert-base", ("joint", "entropy"), "55.2"),
        ("rte", "albert-base", ("single_exit", None), "78.6"),
        ("stsb", "albert-base", ("joint", "confidence"), "“-”"),
        ("mnli", "bert-base", ("two_stage", "entropy"), "80.7"),
        ("sst2", "albert-base", ("two_stage", "entropy"), paper.NONE),
        ("sst2", "albert-base", ("joint", None), paper.NONE),
        ("sst2", "minilm", ("joint", "patience"), paper.NOT_COMPARABLE),
        ("cola", "bert-base", ("joint", "patience"), paper.NOT_COMPARABLE),
        ("demo-pairs", "albert-base", ("joint", "patience"), paper.NONE),
    ],
)
def test_what_stands_beside_a_row(task: str, backbone: str, key: paper.Key, text: str) -> None:
    assert paper.beside(task, backbone, 12, key).text == text


def test_a_cut_backbone_has_no_counterpart() -> None:
    assert paper.beside("sst2", "albert-base", 6, ("joint", "patience")).text == paper.NOT_COMPARABLE
    assert paper.beside("sst2", "albert-large", 24, ("joint", "patience")).text == "95.2"


def test_image_counterparts() -> None:
    found = paper.beside_image("cifar100", "resnet56", "joint", "patience")
    assert isinstance(found, paper.ImageFigure)
    assert (found.speedup, found.accuracy) == (1.22, 69.1)
    assert paper.beside_image("cifar10", "resnet56", "joint", None) == paper.NONE
    assert paper.beside_image("demo-images", "resnet56", "joint", "patience") == paper.NONE


# ---------------------------------------------------------------- tables


def test_paper_beside_ours(glue: Report) -> None:
    page, text = page_and_text(glue)
    row = page.row("Comparison on albert-base (the paper's Table 1)", "joint, patience (PABEE)")
    assert row["sst2"].endswith("93.0")
    assert row["mrpc"].endswith("90.0")
    assert row["Parameters"].endswith("12M")
    assert row["Layer ratio"].endswith(f"1.57{TIMES}")
    sst2 = page.row("sst2", "joint, patience (PABEE)")
    assert sst2["Paper: score"].startswith("93.0")
    assert sst2["Paper: layer ratio"] == f"1.57{TIMES}"
    assert sst2["Seeds"] == "3"
    assert re.match(r"[\d.]+ \[[\d.]+, [\d.]+\]", sst2["Score"])
    line = next(
        line for line in text.splitlines() if line.startswith("| joint, patience (PABEE); ") and "| 93.0" in line
    )
    assert "*paper: PABEE*" in line


def test_regression_has_no_confidence(glue: Report) -> None:
    page, _ = page_and_text(glue)
    row = page.row("Comparison on albert-base (the paper's Table 1)", "joint, confidence (Shallow-Deep)")
    assert row["stsb"] == "n/a no regression"
    assert row["Macro"] == "—"
    assert not any("confidence" in cell for row in page.tables["stsb"] for cell in row)


def test_rows_of_the_paper_that_were_not_run(glue: Report) -> None:
    page, _ = page_and_text(glue)
    row = page.row("Comparison on albert-base (the paper's Table 1)", "LayerDrop")
    assert row["Model and exit rule"] == "LayerDrop not run: layer_drop is not in methods"
    assert row["sst2"] == "90.7"
    assert row["Traced back to"] == "paper, Table 1"


def test_distilbert_stands_in_bert_base_s_table(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("bert-base", "distilbert")}
    params = {name: params_for({"sst2": {}, "stsb": {}}, name) for name in folders}
    bert, _ = (report_of(folder, params[name]) for name, folder in folders.items())
    title = "Comparison on bert-base (the paper's Table 2)"
    row = Page(bert.html).row(title, "DistilBERT")
    assert row["Model and exit rule"] == "DistilBERT not run: distilbert is not in backbones"
    stored = [collect(params[name], folder) for name, folder in folders.items()]
    both = replace(  # as one report of two backbones has it
        stored[0],
        trained={**stored[0].trained, **stored[1].trained},
        tasks=tuple(
            replace(mine, rows=(*mine.rows, *theirs.rows), groups=(*mine.groups, *theirs.groups))
            for mine, theirs in zip(*(s.tasks for s in stored), strict=True)
        ),
    )
    table = next(t for t in overview_tables(both) if t.title == title)
    (found,) = [r for r in table.rows if r.cells[0].paper == "DistilBERT"]
    assert found.cells[0].detail == "distilbert"
    assert found.cells[1].paper == "66M"
    assert found.cells[4].paper == "90.7"


def test_macro_averages_a_task_s_splits_first(tmp_path: Path) -> None:
    params = params_for({"mnli": {}, "sst2": {}}, "albert-base")
    write_all(tmp_path, params)
    stored = collect(params, tmp_path)
    table = overview_tables(stored)[0]
    assert table.columns[-4:] == ("mnli matched", "mnli mismatched", "sst2", "Macro")
    matched, mismatched, sst2, macro = (float(cell.text) for cell in table.rows[0].cells[-4:])
    assert macro == pytest.approx(((matched + mismatched) / 2 + sst2) / 2, abs=0.11)
    assert table.rows[0].cells[-1].paper == ""  # the paper's is over eight tasks


def test_every_row_can_be_traced_back(glue: Report) -> None:
    page, text = page_and_text(glue)
    for title, rows in page.tables.items():
        for row in rows[1:]:
            assert row[-1], f"{title}: {row}"
    key = key_of("albert-base", "joint", "sst2", 1)
    row = page.row("sst2", "joint, patience (PABEE)")
    assert f"key {key} run {run_id_of(key)}" in row["Traced back to"]
    assert f"`{key}` → `{run_id_of(key)}`" in text
    assert "0123abc" in glue.html
    assert "feed5eed" in text


def test_training_cost_latency_robustness_and_images(glue: Report) -> None:
    page, _ = page_and_text(glue)
    cost = page.row("Training cost (Table 3)", "sst2", "joint")
    assert (cost["Added by exits"], cost["Paper: parameters"], cost["Paper: time to best"]) == (
        "24.0K",
        "+24K",
        "108 min",
    )
    assert cost["Time to best"] == "6.7 min"
    timed = page.row("Latency", "patience", "batch\xa01")
    assert (timed["Measured"], timed["Layer ratio"], timed["FLOP ratio"]) == tuple(
        f"{v}{TIMES}" for v in (1.45, "1.50", 1.48)
    )
    attacked = page.row("Robustness (Table 5)", "joint, patience (PABEE)")
    assert attacked["After-attack acc."].startswith("25.0 [")
    assert attacked["After-attack acc."].endswith("30.2")
    assert attacked["Queries"].endswith("88")
    images = page.row("Image classification (Table 6)", "cifar10", "patience")
    assert images["Paper: accuracy"] == "92.0"
    assert run_id_of(key_of("cifar10", "resnet56", "joint", 1)) in images["Traced back to"]


def test_a_defence_that_misleads_the_search_is_named() -> None:
    def row(
        criterion: str | None,
        after: tuple[float, float, float],
        pooled: tuple[float, float, float],
        p: float | None = None,
    ) -> Defence:
        before = Interval(0.9, 0.88, 0.92)
        figures = {"original_accuracy": before, "after_attack_accuracy": Interval(*after)}
        figures["pooled_accuracy"] = Interval(*pooled)
        against = None if p is None else Paired(30, 5, p)
        return Defence("minilm", "single_exit", criterion, None, "k", 1, figures, against)

    rows = (
        row(None, (0.09, 0.07, 0.12), (0.09, 0.07, 0.12)),
        row("confidence", (0.29, 0.25, 0.33), (0.1, 0.07, 0.13), 1e-9),
        row("patience", (0.10, 0.08, 0.13), (0.1, 0.07, 0.13), 0.03),
    )
    stored: Any = SimpleNamespace(
        attacks=[Attack("mr", "textfooler", "misclassify", None, {}, False, "mr/test", 500, rows)]
    )
    (finding,) = _attacks(stored)
    assert "confidence falls from 90.0 to 29.0 (10.0 on all texts found)" in finding.text
    assert "What confidence gained by misleading the search" in finding.text
    # 0.03 is not small enough where two were tried.
    assert "On the same examples confidence is told apart from single exit" in finding.text


def test_an_attack_on_the_speed_is_told_from_one_on_the_answers() -> None:
    def row(criterion: str | None, before: float, after: float, success: float | None) -> Defence:
        spans = {name: Interval(value, value, value) for name, value in (("before", before), ("after", after))}
        figures = {f"layers_{name}": span for name, span in spans.items()}
        same = {f"{name}_accuracy": Interval(0.9, 0.9, 0.9) for name in ("original", "after_attack")}
        none = Interval(None, None, None)
        rest = dict.fromkeys(("pooled_accuracy", "queries", "perturbed_words", "layers_under_attack"), none)
        rate = Interval(success, success, success)
        return Defence(
            "minilm", "joint", criterion, None, "k", 1, {**figures, **same, **rest, "attack_success_rate": rate}
        )

    rows = (row(None, 6, 6, None), row("confidence", 3.1, 5.9, 0.93))
    attack = Attack("mr", "textfooler", "slow_down", 50, {}, False, "mr/test", 200, rows)
    (finding,) = _attacks(SimpleNamespace(attacks=[attack]))  # type: ignore[arg-type]
    assert "confidence goes from 3.1 layers to 5.9 (93.0% of the attacks reach the last)" in finding.text
    assert "joint" not in finding.text
    assert "falls" not in finding.text
    table = robustness_table([attack], {})
    assert any("to slow the model down" in note and "at most 50 queries" in note for note in table.notes)
    assert [cell.text for cell in table.rows[1].cells][-1] == "5.9"


def test_undefined_is_never_zero(glue: Report, tmp_path: Path) -> None:
    page, _ = page_and_text(glue)
    assert page.row("Robustness (Table 5)", "joint, patience (PABEE)")["Words changed"] == "n/a"
    params = small("albert-base")
    write_all(tmp_path, params)
    none = {"median": None, "low": None, "high": None, "coverage": 0.75, "values": [None] * 3}

    def undefine(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            row["score"] = none
            row["metrics"] = dict.fromkeys(row["metrics"], none)
        for exits in payload["exits"]:
            exits["scores"] = [None] * len(exits["scores"])

    edit(tmp_path / "evaluate/stsb.json", undefine)
    curves = tmp_path / "evaluate/stsb.curves.csv"
    head, *rows = curves.read_text().splitlines()
    at = head.split(",").index("score")
    rows = [",".join("nan" if i == at else cell for i, cell in enumerate(row.split(","))) for row in rows]
    curves.write_text("\n".join([head, *rows]) + "\n")
    report = build(collect(params, tmp_path), PROVENANCE)
    row = Page(report.html).row("stsb", "joint, patience (PABEE)")
    assert (row["Score"], row["pearson"], row["spearman"]) == ("n/a", "n/a", "n/a")
    assert "Patience scores n/a" in report.html


def test_out_of_window_and_choice_on_report_rows_are_seen(tmp_path: Path) -> None:
    params = small("albert-base", protocol="paper")
    report = report_of(tmp_path, params, window=(30.0, 40.0))
    row = Page(report.html).row("sst2", "joint, patience (PABEE)")
    assert "outside window" in row["Score"]
    assert "chosen on validation, the rows reported" in row["Score"]
    assert "outside the speed-up window" in report.html
    assert "on the rows of the first report split" in report.html
    assert "**outside window**" in report.markdown


def test_not_comparable_and_cut_rows_are_said(tmp_path: Path) -> None:
    report = report_of(
        tmp_path,
        params_for({"mrpc": CUT, "stsb": {}}, "minilm", methods=["joint", "single_exit"]),
        layers=6,
        comparable=False,
    )
    page = Page(report.html)
    assert page.row("mrpc", "joint, patience (PABEE)")["Paper: score"] == "not comparable"
    assert "LayerDrop" not in report.html
    assert "Trained on 2,000 rows; the paper used all." in report.html
    assert "not comparable with the paper" in report.html


def test_demo_says_that_it_is_one(tmp_path: Path) -> None:
    report = report_of(tmp_path, small("demo-albert", ("demo-pairs", "demo-similarity")))
    assert "says nothing for or against the paper" in report.html
    assert "Paper: score" not in Page(report.html).tables["demo-pairs"][0]


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    report = report_of(tmp_path, small("albert-base"), seeds=(1,))
    row = Page(report.html).row("Does patience win?", "sst2")
    assert row["Against confidence"].split("(")[1].startswith("one seed)")
    assert "[" not in Page(report.html).row("sst2", "joint, patience (PABEE)")["Score"]


def test_parts_that_were_not_run_say_so(tmp_path: Path) -> None:
    params = params_for({"sst2": {}}, "albert-base", methods=["single_exit"])
    raw = params.model_dump(mode="json")
    raw["latency"]["tasks"], raw["attack"]["tasks"], raw["cifar"]["datasets"] = [], {}, []
    report = report_of(tmp_path, Params.model_validate(raw))
    for part in ("latency.tasks", "attack.tasks", "cifar.datasets"):
        assert f"Not run: {part}" in report.html
    assert Page(report.html).balanced
    assert report.headlines["comparisons"] == 0
    row = Page(report.html).row("Comparison on albert-base (the paper's Table 1)", "PABEE")
    assert row["Model and exit rule"] == "PABEE not run: joint is not in methods"


# ---------------------------------------------------------------- verdicts


def test_verdicts_pair_by_seed(tmp_path: Path) -> None:
    params = params_for({"sst2": {}, "stsb": {}}, "albert-base")
    write_all(tmp_path, params)
    (sst2, stsb) = collect(params, tmp_path).tasks
    found = {(v.champion.method, v.rival): v for v in verdicts(sst2)}
    assert set(found) == {
        (method, rival)
        for method in ("joint", "two_stage")
        for rival in ("confidence", "entropy", "all layers", "single exit")
    }
    v = found["joint", "confidence"]
    gaps = [a - b for a, b in zip(v.champion.score.values, v.theirs.score.values, strict=True) if a and b]
    assert v.own_points.centre == pytest.approx(statistics.median(gaps))
    assert (v.own_points.low, v.own_points.high) == pytest.approx((min(gaps), max(gaps)))
    assert v.same_speed is not None
    assert {v.rival for v in verdicts(stsb)} == {"all layers", "single exit"}


def test_smaller_models_are_rivals_of_their_own_name_and_bounds_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("oracle", "random"):
        monkeypatch.setitem(stored_results.CRITERIA, bound, {})
    params = params_for({"sst2": {}}, "albert-base", methods=["single_exit", "first_half", "joint"])
    report = report_of(tmp_path, params)
    rivals = {v.rival: v.theirs.method for v in verdicts(collect(params, tmp_path).tasks[0])}
    assert rivals == {
        "confidence": "joint",
        "entropy": "joint",
        "all layers": "joint",
        "single exit": "single_exit",
        "first half": "first_half",
    }
    row = Page(report.html).row("Does patience win?", "sst2")
    single, half = (f"sst2.validation.albert-base.joint.minus_{name}" for name in ("single_exit", "first_half"))
    assert {single, half} < set(report.headlines)
    assert row["Against first half"].split()[0] in ("ahead", "behind", "not", "equal")
    assert report.html.count("the plainly trained model (") == 2  # of sst2, and of the images
    assert "the model made smaller by first half (" in report.html
    drawn = [text for name, text in report.figures.items() if "figure-3-sst2" in name]
    assert [text.count(">single exit<") for text in drawn] == [1]
    # The oracle is shown where it stands, not where a window would have put it.
    bound = Page(report.html).row("sst2", "joint, oracle (bound)")
    assert "outside" not in bound["Score"]
    assert float(bound["Layer ratio"].split(TIMES)[0]) > 2


def test_between_two_settings_a_curve_is_what_mixing_them_gives() -> None:
    points = (CurvePoint(1.0, 0.8, 6.0, 6.0), CurvePoint(2.0, 0.5, 12.0, 12.0))
    curve = Curve("t", "b", "joint", "fixed", 1, "validation", points)
    # Half of the rows at 6x (a sixth of the layers) and half at 12x run an eighth of them.
    assert score_at(curve, 8.0) == pytest.approx(0.65)
    assert score_at(curve, 6.0) == pytest.approx(0.8)
    assert score_at(curve, 12.5) is None


def test_rows_are_flattered_only_where_they_chose(tmp_path: Path) -> None:
    params = params_for({"mnli": {}}, "albert-base", methods=["single_exit", "joint"], protocol="paper")
    page = Page(report_of(tmp_path, params).html)
    chose, did_not = (
        page.row(f"mnli {half}", "joint, patience (PABEE)")["Score"] for half in ("matched", "mismatched")
    )
    assert "chosen on matched, the rows reported" in chose
    assert "chosen on matched" in did_not
    assert "the rows reported" not in did_not


def test_ratios_are_means_over_tasks_not_over_splits(tmp_path: Path) -> None:
    params = params_for({"mnli": {}, "sst2": {}}, "albert-base", methods=["single_exit", "joint"])
    report = report_of(tmp_path, params)
    (mnli, sst2) = collect(params, tmp_path).tasks
    of = {
        task.name: [r.layer_speedup.centre or 0.0 for r in task.rows if r.criterion == "patience"]
        for task in (mnli, sst2)
    }
    assert [len(values) for values in of.values()] == [2, 1]
    mean = statistics.fmean(statistics.fmean(values) for values in of.values())
    shown = Page(report.html).row("Comparison on albert-base (the paper's Table 1)", "joint, patience (PABEE)")
    assert shown["Layer ratio"].split()[0] == f"{mean:.2f}{TIMES}"


def test_one_seed_has_no_range_to_hold_the_papers_figure(tmp_path: Path) -> None:
    params = small("albert-base", seeds=[1])
    report = report_of(tmp_path, params, seeds=[1])
    assert "have a figure in the paper;" not in report.html


@pytest.mark.parametrize(("layers", "start"), [(12, 4), (24, 5)])
def test_the_bound_of_theorem_1_is_computed_for_the_layers_simulated(layers: int, start: int) -> None:
    simulated = appendix_c(layers, list(range(1, 12)), 0.1, 200, 0)
    parts = {part: tuple(simulated[part]) for part in ("rows", "theorem", "example")}
    stored: Any = SimpleNamespace(simulation=Simulation(layers, 200, **parts))
    assert f"promises it from t = {start} only" in _theorem(stored)[0].text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.2, "ahead"),
        (-0.2, -0.1, "behind"),
        (-0.1, 0.1, "not told apart"),
        (0.0, 0.2, "not told apart"),
        (0, 0, "equal"),
    ],
)
def test_words(low: float, high: float, said: str) -> None:
    assert word(Interval((low + high) / 2, low, high, 5, 0.9375)) == said


# ---------------------------------------------------------------- the page


def test_page_stands_alone(glue: Report) -> None:
    page, _ = page_and_text(glue)
    assert page.balanced
    assert page.addresses
    assert not [address for address in page.addresses if not address.startswith(("#", "data:image/png;base64,"))]
    missing = {address[1:] for address in page.addresses if address.startswith("#")} - set(page.ids)
    assert not missing
    assert "<script" not in glue.html
    assert re.findall(r"url\((?!#)", glue.html) == []
    assert "@import" not in glue.html
    assert "prefers-color-scheme: dark" in glue.html


def test_figures_are_there_and_whole(glue: Report) -> None:
    names = set(glue.figures)
    for task in ("mnli-matched", "mnli-mismatched", "sst2-validation", "stsb-validation"):
        assert {f"figures/{part}-{task}-albert-base-joint.svg" for part in ("figure-3", "figure-4", "depth")} <= names
    assert {"figures/figure-5a.svg", "figures/figure-5b.svg", "figures/latency-mnli.svg"} <= names
    for name, svg in glue.figures.items():
        ET.fromstring(svg)
        assert len(svg) < 60_000, name
        assert f"]({name})" in glue.markdown
    assert "speed-up (layers in all / layers run)" in glue.html


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    params = small("albert-base")
    first = report_of(tmp_path, params)
    again = build(collect(params, tmp_path), PROVENANCE)
    assert first == again


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)<b>|$x$`"
    source = {"source": {"demo": "sentences"}, "text": ["sentence"], "label": "label", "label_names": ["a", "b"]}
    report = report_of(tmp_path, params_for({evil: source, "demo-similarity": {}}, "demo-albert", methods=["joint"]))
    assert Page(report.html).balanced
    assert "<script" not in report.html
    assert "&lt;script&gt;alert(1)" in report.html
    assert "<script" not in report.markdown
    for line in report.markdown.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
    for svg in report.figures.values():
        assert "script" not in {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("evaluate/sst2.json", "evaluate@sst2"),
        ("evaluate/sst2.curves.csv", "evaluate@sst2"),
        ("selected/stsb.json", "finetune"),
        ("finetune/trials.json", "finetune"),
        ("latency/sst2.json", "latency@sst2"),
        ("attack/sst2.json", "attack@sst2"),
        ("cifar/cifar.json", "cifar"),
        ("cifar/trials.json", "cifar"),
        ("simulate/simulate.json", "simulate"),
    ],
)
def test_a_missing_or_broken_result_names_the_remedy(tmp_path: Path, file: str, remedy: str) -> None:
    params = small("albert-base")
    write_all(tmp_path, params)
    path = tmp_path / file
    path.write_text('{"schema": 1}' if path.suffix == ".json" else "a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{re.escape(str(path))}.*dvc repro {remedy}"):
        collect(params, tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{re.escape(str(path))}.*dvc repro {remedy}"):
        collect(params, tmp_path)


def test_stage_writes_page_markdown_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.storage import write_text
    from stages.report import main

    monkeypatch.chdir(tmp_path)
    params = small("albert-base")
    write_all(Path("outputs"), params)
    stale = write_text(Path("outputs/report/figures/figure-3-gone.svg"), "")
    logged: dict[str, float] = {}
    tags = {"git_commit": "0123abc", "params_hash": "feed5eed"}
    stage: Any = SimpleNamespace(params=params, tags=tags, write_text=write_text, log_metrics=logged.update)
    main(stage)
    assert not stale.exists()
    assert Path("outputs/report/index.html").is_file()
    links = re.findall(r"\]\((figures/[^)]+)\)", Path("outputs/report/report.md").read_text(encoding="utf-8"))
    assert links
    assert all((Path("outputs/report") / link).is_file() for link in links)
    assert capsys.readouterr().out.strip() == f"report: {tmp_path / 'outputs/report/index.html'}"
    assert logged["comparisons"] == 10


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"pipeline.report.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_import_is_light() -> None:
    code = "import sys, stages.report; print([m for m in ('torch', 'matplotlib', 'jinja2', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- rules that choose, and the diagnosis


@pytest.mark.parametrize(
    ("choose", "aim", "flag"),
    [
        (
            {"rule": "speedup", "target": 99.0},
            f"the nearest speed-up at or above 99.00{TIMES} in layers",
            "target not reached",
        ),
        (
            {"rule": "risk", "epsilon": 0.2, "delta": 0.2, "tolerance": 1.0},
            "the most speed at which, with a probability of 80.0%, at most 20.0% of rows are lost",
            "",
        ),
        (
            {"rule": "risk", "epsilon": 0.01, "delta": 0.1, "tolerance": 1.0},
            "at most 1.0% of rows are lost (wrong where the full model is right)",
            "no early exit certified",
        ),
    ],
)
def test_other_rules_are_said(tmp_path: Path, choose: dict[str, Any], aim: str, flag: str) -> None:
    raw = small("albert-base").model_dump(mode="json")
    raw["evaluate"]["choose"] = raw["cifar"]["choose"] = choose
    report = report_of(tmp_path, Params.model_validate(raw))
    page = Page(report.html)
    assert page.balanced
    assert aim in report.html
    assert aim in report.markdown
    assert "window" not in re.sub(r"<style>.*?</style>", "", report.html, flags=re.DOTALL)
    row = page.row("sst2", "joint, confidence (Shallow-Deep)")
    assert flag in row["Score"]
    assert ("Lost" in row) == (choose["rule"] == "risk")
    if flag == "no early exit certified":
        assert (row["Lost"].split()[0], row["Layer ratio"], row["Setting"]) == (
            "0.0",
            f"1.00{TIMES}",
            "θ\xa0=\xa0never",
        )
    if flag:
        assert f"{flag}" in page.row("Does patience win?", "sst2")["Against confidence"]
        assert "They are marked and are not a fair comparison." in report.html


def test_diagnosis_beside_the_stored_rows(glue: Report, tmp_path: Path) -> None:
    page, text = page_and_text(glue)
    row = page.row("Diagnosis", "sst2", "albert-base, joint")
    params = small("albert-base")
    write_all(tmp_path, params)
    payload = json.loads((tmp_path / "evaluate/sst2.json").read_text())
    found = [d for d in payload["diagnosis"] if d["method"] == "joint"]
    assert {d["method"] for d in payload["diagnosis"]} == {"joint"}
    assert row["Overthinking"] == f"{100 * statistics.median(d['overthinking']['share'] for d in found):.1f}"
    assert row["Oracle: score"] == f"{100 * statistics.median(d['oracle']['score'] for d in found):.1f}"
    assert row["Oracle: layer ratio"] == f"{statistics.median(d['oracle']['layer_speedup'] for d in found):.2f}{TIMES}"
    assert row["Exits 1 and last agree"] == f"{100 * statistics.median(d['agreement'][0][-1] for d in found):.1f}"
    assert row["ECE, last exit"] == f"{100 * statistics.median(d['calibration']['error'][-1] for d in found):.1f}"
    for name in ("patience", "confidence", "entropy"):
        at = [next(c for c in d["criteria"] if c["criterion"] == name) for d in found]
        lost, won = (100 * statistics.median(c[part]["share"] for c in at) for part in ("lost", "won"))
        assert row[f"Lost, won by {name}"] == f"{signed(-lost)}, {signed(won)}"
    assert len(row["Traced back to"].split("key ")) == 1 + len(found)
    stsb = page.row("Diagnosis", "stsb", "albert-base, joint")
    assert stsb["Oracle: layer ratio"].endswith(TIMES)
    undefined = ("Overthinking", "Exits 1 and last agree", "ECE, last exit", "Lost, won by patience")
    assert {stsb[column] for column in undefined} == {"n/a"}
    assert "single exit" not in " ".join(cell for cells in page.tables["Diagnosis"][1:] for cell in cells)
    assert "## Diagnosis" in text
