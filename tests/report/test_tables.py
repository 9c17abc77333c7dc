"""The tables: ours beside the paper's, texts and images alike."""

import re
import statistics
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.criteria.confidence import Confidence
from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.report.collect import collect
from pipeline.report.numbers import setting, signed
from pipeline.report.render import Report, build
from pipeline.report.sections.comparison import Comparison
from pipeline.results import Evaluated, OperatingPoint
from tests import stored_results
from tests.report.pages import CUT, PROVENANCE, TABLE_1, TIMES, Page, edit, report_of, small
from tests.stored_results import key_of, params_for, run_id_of, write_all


def test_paper_beside_ours(glue: Report) -> None:
    page = Page(glue.html)
    row = page.row(TABLE_1, "joint, patience (PABEE)")
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
        line
        for line in glue.markdown.splitlines()
        if line.startswith("| joint, patience (PABEE); ") and "| 93.0" in line
    )
    assert "*paper: PABEE*" in line


def test_regression_has_no_confidence(glue: Report) -> None:
    page = Page(glue.html)
    row = page.row(TABLE_1, "joint, confidence (Shallow-Deep)")
    assert row["stsb"] == "n/a no regression"
    assert row["Macro"] == "—"
    assert not any("confidence" in cell for row in page.tables["stsb"] for cell in row)


def test_rows_of_the_paper_that_were_not_run(glue: Report) -> None:
    row = Page(glue.html).row(TABLE_1, "LayerDrop")
    assert row["Model and exit rule"] == "LayerDrop not run: layer_drop is not in methods"
    assert row["sst2"] == "90.7"
    assert row["Traced back to"] == "paper, Table 1"


def test_distilbert_stands_in_bert_base_s_table(tmp_path: Path) -> None:
    title = "Comparison on bert-base (the paper's Table 2)"
    row = Page(report_of(tmp_path / "bert", small("bert-base")).html).row(title, "DistilBERT")
    assert row["Model and exit rule"] == "DistilBERT not run: distilbert is not in backbones"
    params, workspace = small("bert-base", backbones={"bert-base": {}, "distilbert": {}}), Workspace(tmp_path / "both")
    write_all(workspace, params)
    table = next(t for t in Comparison().tables(collect(params, workspace)) if t.title == title)
    (distilbert,) = [row for row in table.rows if row.cells[0].paper == "DistilBERT"]
    assert distilbert.cells[0].detail == "distilbert"
    assert distilbert.cells[1].paper == "66M"
    assert distilbert.cells[4].paper == "90.7"


def test_macro_averages_a_task_s_splits_first_and_leaves_images_out(tmp_path: Path) -> None:
    params = params_for({"mnli": {}, "sst2": {}, "cifar10": {}}, "albert-base")
    write_all(Workspace(tmp_path), params)
    (table,) = Comparison().tables(collect(params, Workspace(tmp_path)))
    assert table.columns[-4:] == ("mnli matched", "mnli mismatched", "sst2", "Macro")
    matched, mismatched, sst2, macro = (float(cell.text) for cell in table.rows[0].cells[-4:])
    assert macro == pytest.approx(((matched + mismatched) / 2 + sst2) / 2, abs=0.11)
    assert table.rows[0].cells[-1].paper == ""  # the paper's is over eight tasks


def test_ratios_are_means_over_tasks_not_over_splits(tmp_path: Path) -> None:
    params = small("albert-base", ("mnli", "sst2"))
    report = report_of(tmp_path, params)
    mnli, sst2 = collect(params, Workspace(tmp_path)).tasks
    of = {
        task.name: [r.layer_speedup.centre or 0.0 for r in task.rows if r.criterion == "patience"]
        for task in (mnli, sst2)
    }
    assert [len(values) for values in of.values()] == [2, 1]
    mean = statistics.fmean(statistics.fmean(values) for values in of.values())
    shown = Page(report.html).row(TABLE_1, "joint, patience (PABEE)")
    assert shown["Layer ratio"].split()[0] == f"{mean:.2f}{TIMES}"


def test_one_seed_has_no_range_to_hold_the_papers_figure(tmp_path: Path) -> None:
    report = report_of(tmp_path, small("albert-base", seeds=[1]), seeds=[1])
    assert "have a figure in the paper;" not in report.html


def test_every_row_can_be_traced_back(glue: Report) -> None:
    page = Page(glue.html)
    for title, rows in page.tables.items():
        for cells in rows[1:]:
            assert cells[-1], f"{title}: {cells}"
    key = key_of("albert-base", "joint", "sst2", 1)
    row = page.row("sst2", "joint, patience (PABEE)")
    assert f"key {key} run {run_id_of(key)}" in row["Traced back to"]
    assert f"`{key}` → `{run_id_of(key)}`" in glue.markdown
    assert "0123abc" in glue.html
    assert "feed5eed" in glue.markdown


def test_training_cost_and_latency(glue: Report) -> None:
    page = Page(glue.html)
    cost = page.row("Training cost (Table 3)", "sst2", "joint")
    assert (cost["Added by exits"], cost["Paper: parameters"], cost["Paper: time to best"]) == (
        "24.0K",
        "+24K",
        "108 min",
    )
    assert cost["Time to best"] == "6.7 min"
    timed = page.row("Latency", "patience", "batch\xa01")
    spread = f"1.45{TIMES} to 1.50{TIMES} over 3 repeats"
    assert (timed["Measured"], timed["Own layer ratio"], timed["Own FLOP ratio"]) == (
        f"1.45{TIMES} {spread}",
        f"1.50{TIMES}",
        f"1.48{TIMES}",
    )


def test_images_are_in_every_table_that_texts_are_in(tmp_path: Path) -> None:
    params = small("albert-base", ("sst2", "cifar10"))
    raw = params.model_dump(mode="json")
    raw["latency"]["tasks"] = ["cifar10"]
    page = Page(report_of(tmp_path, Params.model_validate(raw)).html)
    key = key_of("resnet56", "joint", "cifar10", 1)
    for table in ("Image classification (Table 6)", "cifar10"):
        row = page.row(table, "joint, patience (PABEE)", "resnet56")
        assert f"key {key} run {run_id_of(key)}" in row["Traced back to"]
    table_6 = page.row("Image classification (Table 6)", "cifar10", "patience")
    assert (table_6["Paper: accuracy"], table_6["Paper: layer ratio"]) == ("92.0", f"1.26{TIMES}")
    mine = page.row("cifar10", "joint, patience (PABEE)")
    assert mine["Score"] == table_6["Accuracy"]
    assert mine["Paper: score"].startswith("92.0")
    assert page.row("Does patience win?", "cifar10")["Against single exit"]
    assert page.row("Diagnosis", "cifar10")["Overthinking"]
    assert page.row("Training cost (Table 3)", "cifar10", "joint")["Time to best"] == "6.7 min"
    assert page.row("Latency", "cifar10", "patience", "batch\xa01")["Measured"].startswith(f"1.45{TIMES} ")
    trained = page.row("Trained models behind the rows", "cifar10", "joint")
    assert trained["Weights, SHA-256"] == key_of("weights", key)
    assert "cifar10" not in page.tables[TABLE_1][0]


def test_undefined_is_never_zero(glue: Report, tmp_path: Path) -> None:
    attacked = Page(glue.html).row("Robustness (Table 5)", "joint, patience (PABEE)")
    assert attacked["Words changed"] == "n/a"
    params, workspace = small("albert-base"), Workspace(tmp_path)
    write_all(workspace, params)
    none = {"median": None, "low": None, "high": None, "coverage": 0.75, "values": [None] * 3}

    def undefine(payload: dict[str, Any]) -> None:
        for row in payload["rows"]:
            row["score"] = none
            row["metrics"] = dict.fromkeys(row["metrics"], none)
        for exits in payload["exits"]:
            exits["scores"] = [None] * len(exits["scores"])

    edit(workspace.evaluated("stsb"), undefine)
    curves = workspace.curves("stsb")
    head, *rows = curves.read_text().splitlines()
    at = head.split(",").index("score")
    rows = [",".join("nan" if i == at else cell for i, cell in enumerate(row.split(","))) for row in rows]
    curves.write_text("\n".join([head, *rows]) + "\n")
    report = build(collect(params, workspace), PROVENANCE)
    row = Page(report.html).row("stsb", "joint, patience (PABEE)")
    assert (row["Score"], row["pearson"], row["spearman"]) == ("n/a learned nothing", "n/a", "n/a")
    assert "Patience scores n/a" in report.html


def test_a_seed_that_was_lost_is_named_with_its_reason(tmp_path: Path) -> None:
    params = small("albert-base")
    report_of(tmp_path, params)
    lost = {"seed": 9, "key": "0123456789abcdef", "reason": "not run: the trial k that it starts from failed"}
    edit(Workspace(tmp_path).selected("sst2"), lambda selected: selected["groups"][1].update(failed=[lost]))
    report = build(collect(params, Workspace(tmp_path)), PROVENANCE)
    row = Page(report.html).row("Trained models behind the rows", "joint", "failed")
    assert (row["Seed"], row["Weights, SHA-256"]) == ("9", f"failed {lost['reason']}")
    assert "1 failed or could not run" in report.html


def test_out_of_window_and_choice_on_report_rows_are_seen(tmp_path: Path) -> None:
    evaluate = {"criteria": stored_results.CRITERIA, "window": (30.0, 40.0)}
    report = report_of(tmp_path, small("albert-base", protocol="paper", evaluate=evaluate))
    row = Page(report.html).row("sst2", "joint, patience (PABEE)")
    assert "outside window" in row["Score"]
    assert "chosen on validation, the rows reported" in row["Score"]
    assert "outside the speed-up window" in report.html
    assert "on the rows of the first report split" in report.html
    assert "**outside window**" in report.markdown


def test_rows_are_flattered_only_where_they_chose(tmp_path: Path) -> None:
    page = Page(report_of(tmp_path, small("albert-base", ("mnli",), protocol="paper")).html)
    chose, did_not = (
        page.row(f"mnli {half}", "joint, patience (PABEE)")["Score"] for half in ("matched", "mismatched")
    )
    assert "chosen on matched, the rows reported" in chose
    assert "chosen on matched" in did_not
    assert "the rows reported" not in did_not


def test_not_comparable_and_cut_rows_are_said(tmp_path: Path) -> None:
    params = params_for({"mrpc": CUT, "stsb": {}}, "minilm", methods=["joint", "single_exit"])
    report = report_of(tmp_path, params, layers=6, comparable=False)
    page = Page(report.html)
    assert page.row("mrpc", "joint, patience (PABEE)")["Paper: score"] == "not comparable"
    assert "LayerDrop" not in report.html
    assert "Trained on 2,000 rows; the paper used all." in report.html
    assert "not comparable with the paper" in report.html


def test_a_setting_shows_what_is_read(tmp_path: Path) -> None:
    params = small("albert-base", ("mrpc", "stsb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stored_results.CRITERIA, "patience", {"tau": 0.25})
        page = Page(report_of(tmp_path, params).html)
    row = {task: page.row(task, "joint, patience (PABEE)")["Setting"] for task in ("mrpc", "stsb")}
    assert "tau\xa0=\xa00.25" in row["stsb"]
    assert "tau" not in row["mrpc"]  # a class is the same or another


@pytest.mark.parametrize(
    ("name", "settings", "regression", "shown"),
    [
        ("patience", {}, True, "t = 3 (tau = 0.5)"),
        ("patience", {"tau": 0.5}, False, "t = 3"),
        ("patient_confidence", {}, False, "t = 3 (tau = 0.2)"),
        ("divergence", {"tau": 0.1}, False, "t = 3 (tau = 0.1)"),
        ("voting", {}, False, "v = 3 (power = 0.5)"),
        ("fixed", {}, True, "j = 3"),
        ("confidence", {}, False, "θ = 3"),
        ("temperature", {}, False, "θ = 3"),
        ("learned", {}, True, "θ = 3"),
        ("random", {"seed": 4.0}, True, "θ = 3 (seed = 4)"),
    ],
)
def test_a_setting_has_the_symbol_and_the_settings_of_its_criterion(
    name: str, settings: dict[str, float], regression: bool, shown: str
) -> None:
    point = OperatingPoint(criterion=name, settings=settings, threshold=3.0)
    assert setting([point], regression=regression).replace("\xa0", " ") == shown


class Certain(Confidence):
    """Another criterion, as its one file has it."""

    name: ClassVar[str] = "certain"
    title: ClassVar[str] = "certainty (Nobody 2030)"
    symbol: ClassVar[str] = "c"


def test_a_criterion_brings_its_title_and_symbol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "certain", Certain)
    monkeypatch.setitem(stored_results.CRITERIA, "certain", {})
    row = Page(report_of(tmp_path, small("albert-base", ("sst2",))).html).row("sst2", "certainty")
    assert row["Model and exit rule"].startswith("joint, certainty (Nobody 2030)")
    assert row["Setting"].startswith("c\xa0=\xa0")


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_every_criterion_has_a_title_of_its_own(criterion: type[Confidence]) -> None:
    assert [other.title for other in CRITERIA.values()].count(criterion.title) == 1


def test_the_report_names_no_criterion_that_is_not_in_the_paper() -> None:
    folder = Path(stored_results.__file__).parents[1] / "pipeline/report"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    text = text.replace('{"learned": ', "")  # one of DVC's numbers, whether the model has
    quoted = {name for name in CRITERIA if f'"{name}"' in text}
    assert quoted == {"patience", "confidence", "entropy"}  # the paper's, which its tables and figures are about


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
        (
            {"rule": "latency", "budget_ms": 1.0, "engine": "onnx-int8"},
            "an expected time of at most 1 ms a row, one at a time, by the measured cost of each exit in onnx-int8 on "
            "a processor, 2 CPUs",
            "over budget",
        ),
    ],
)
def test_other_rules_are_said(tmp_path: Path, choose: dict[str, Any], aim: str, flag: str) -> None:
    raw = small("albert-base").model_dump(mode="json")
    raw["evaluate"]["choose"] = choose
    report = report_of(tmp_path, Params.model_validate(raw))
    page = Page(report.html)
    assert page.balanced
    assert aim in report.html
    assert aim in report.markdown
    assert "window" not in re.sub(r"<style>.*?</style>", "", report.html, flags=re.DOTALL)
    row = page.row("sst2", "joint, confidence (Shallow-Deep)")
    assert flag in row["Score"]
    assert ("Lost" in row) == (choose["rule"] == "risk")
    assert ("Expected, ms" in row) == (choose["rule"] == "latency")
    if choose["rule"] == "latency":
        assert row["Expected, ms"].split()[0] == "1.50", "every row at the first exit"
        assert page.row("sst2", "joint, all layers")["Expected, ms"] == "12.50"
    if flag == "no early exit certified":
        assert (row["Lost"].split()[0], row["Layer ratio"], row["Setting"]) == (
            "0.0",
            f"1.00{TIMES}",
            "θ\xa0=\xa0never",
        )
    if flag:
        assert f"{flag}" in page.row("Does patience win?", "sst2")["Against confidence"]
        assert "They are marked and are not a fair comparison." in report.html


def test_each_modality_s_window_is_said(glue: Report) -> None:
    texts, images = (
        f"speed-up between {low}{TIMES} and {high}{TIMES}" for low, high in (("1.30", 1.96), ("1.20", "1.40"))
    )
    assert (
        f"{texts} in layers on mnli, sst2, mrpc and stsb; the best score with a {images} in layers on cifar10"
        in glue.html
    )


def test_diagnosis_beside_the_stored_rows(glue: Report, tmp_path: Path) -> None:
    page = Page(glue.html)
    row = page.row("Diagnosis", "sst2", "albert-base, joint")
    write_all(Workspace(tmp_path), small("albert-base"))
    every = Evaluated.read(Workspace(tmp_path).evaluated("sst2"), "").diagnosis
    assert {d.method for d in every} == {"joint", "single_exit"}
    every = tuple(d for d in every if d.method == "joint")
    assert not any("single exit" in row[1] for row in page.tables["Diagnosis"]), "it leaves nowhere"
    assert (
        row["Overthinking"] == f"{100 * statistics.median(d.overthinking.share for d in every if d.overthinking):.1f}"
    )
    assert row["Oracle: score"] == f"{100 * statistics.median(d.oracle.score or 0 for d in every):.1f}"
    assert row["Oracle: layer ratio"] == f"{statistics.median(d.oracle.layer_speedup or 0 for d in every):.2f}{TIMES}"
    agreement = statistics.median(d.agreement[0][-1] or 0 for d in every if d.agreement)
    assert row["Exits 1 and last agree"] == f"{100 * agreement:.1f}"
    error = statistics.median(d.calibration.error[-1] or 0 for d in every if d.calibration)
    assert row["ECE, last exit"] == f"{100 * error:.1f}"
    for name in ("patience", "confidence", "entropy"):
        at = [next(c for c in d.criteria if c.criterion == name) for d in every]
        lost = 100 * statistics.median(c.lost.share for c in at if c.lost)
        won = 100 * statistics.median(c.won.share for c in at if c.won)
        assert row[f"Lost, won by {name}"] == f"{signed(-lost)}, {signed(won)}"
    assert len(row["Traced back to"].split("key ")) == 1 + len(every)
    stsb = page.row("Diagnosis", "stsb", "albert-base, joint")
    assert stsb["Oracle: layer ratio"].endswith(TIMES)
    undefined = ("Overthinking", "Exits 1 and last agree", "ECE, last exit", "Lost, won by patience")
    assert {stsb[column] for column in undefined} == {"n/a"}
    assert "single exit" not in " ".join(cell for cells in page.tables["Diagnosis"][1:] for cell in cells)
    assert "## Diagnosis" in glue.markdown
