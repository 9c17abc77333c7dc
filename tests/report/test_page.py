"""The page as a whole: it stands alone, is the same for the same results, and reads what today's params name."""

import hashlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ArtifactError
from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.render import Report, build
from pipeline.report.sections import SECTIONS
from pipeline.results import Attack
from tests.report.pages import PROVENANCE, Page, edit, report_of, small
from tests.stored_results import params_for, write_all

OWN_SCRIPT = (ROOT / "pipeline/report/page.js").read_text(encoding="utf-8")


def scripts(report: Report) -> list[str]:
    """The scripts of a page, and whatever else begins like one."""
    return [text.partition("</script>")[0].partition(">")[2] for text in report.html.split("<script")[1:]]


def test_page_stands_alone(glue: Report) -> None:
    page = Page(glue.html)
    assert page.balanced
    assert page.addresses
    assert not [address for address in page.addresses if not address.startswith(("#", "data:image/png;base64,"))]
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert scripts(glue) == [OWN_SCRIPT]
    assert b64encode(hashlib.sha256(OWN_SCRIPT.encode()).digest()).decode() in glue.html, "the policy allows no other"
    assert re.findall(r"url\((?!#)", glue.html) == []
    assert "@import" not in glue.html
    assert "prefers-color-scheme: dark" in glue.html
    assert "Reproduction of Zhou" in glue.html


def test_every_section_is_there_once_and_in_order(glue: Report) -> None:
    slugs = [section.slug for section in SECTIONS]
    assert len(set(slugs)) == len(slugs)
    assert [place for place in Page(glue.html).ids if place in slugs] == slugs
    titles = [line[3:] for line in glue.markdown.splitlines() if line.startswith("## ")]
    assert titles == [
        "Does early exit pay here?",
        "Summary",
        *(section.title for section in SECTIONS),
        "Tracing a number back",
    ]


def test_figures_are_there_and_whole(glue: Report) -> None:
    names = set(glue.figures)
    texts = [f"{place}-albert-base" for place in ("mnli-matched", "mnli-mismatched", "sst2-validation")]
    for model in (*texts, "stsb-validation-albert-base", "cifar10-test-resnet56"):
        for part in ("figure-3", "figure-4", "depth", "verdict"):
            assert f"figures/{part}-{model}-joint.svg" in names
    assert {"figures/figure-5a.svg", "figures/figure-5b.svg", "figures/latency-mnli.svg"} <= names
    for name, svg in glue.figures.items():
        ET.fromstring(svg)
        assert len(svg) < 60_000, name
        assert f"]({name})" in glue.markdown
    assert "speed-up (layers in all / layers run)" in glue.html


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    params = small("albert-base")
    first = report_of(tmp_path, params)
    assert first == build(collect(params, Workspace(tmp_path)), PROVENANCE)


def test_what_results_say_is_escaped(tmp_path: Path) -> None:
    """Names have no such characters; a source of the user's, and what another tool wrote into a result, may."""
    evil = "<script>alert(1)<b>|$x$`"
    params, workspace = params_for({"demo-sentences": {}, "demo-similarity": {}}, "demo-albert"), Workspace(tmp_path)
    write_all(workspace, params)
    attack = Attack.read(workspace.attack("demo-sentences"), "")
    (attacked,) = attack.attacked
    attacked = attacked.model_copy(update={"source": evil})
    Attack(task=attack.task, attacked=(attacked,)).write(workspace.attack("demo-sentences"))
    report = build(collect(params, workspace), PROVENANCE)
    assert Page(report.html).balanced
    assert scripts(report) == [OWN_SCRIPT]
    assert "&lt;script&gt;alert(1)" in report.html
    assert "<script" not in report.markdown
    for line in report.markdown.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
    for svg in report.figures.values():
        assert "script" not in {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}


def test_demo_says_that_it_is_one(tmp_path: Path) -> None:
    report = report_of(tmp_path, small("demo-albert", ("demo-pairs", "demo-similarity", "demo-images")))
    assert "says nothing for or against the paper" in report.html
    assert "Paper: score" not in Page(report.html).tables["demo-pairs"][0]
    assert "demo-images (image classification, generated data)" in report.html


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("evaluate/sst2.json", "evaluate@sst2"),
        ("evaluate/sst2.curves.csv", "evaluate@sst2"),
        ("selected/stsb.json", "finetune"),
        ("finetune/trials.json", "finetune"),
        ("latency/sst2.json", "latency@sst2"),
        ("latency/stsb.json", "latency@stsb"),
        ("attack/sst2.json", "attack@sst2"),
        ("simulate/simulate.json", "simulate"),
    ],
)
def test_a_missing_or_broken_result_names_the_remedy(tmp_path: Path, file: str, remedy: str) -> None:
    params, workspace = small("albert-base"), Workspace(tmp_path)
    write_all(workspace, params)
    path = tmp_path / "outputs" / file
    path.write_text('{"schema": 2}' if path.suffix == ".json" else "a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{re.escape(str(path))}.*dvc repro {remedy}"):
        collect(params, workspace)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{re.escape(str(path))}.*dvc repro {remedy}"):
        collect(params, workspace)


def test_rows_of_models_that_are_selected_no_more_name_the_remedy(tmp_path: Path) -> None:
    params, workspace = small("albert-base"), Workspace(tmp_path)
    write_all(workspace, params)
    edit(workspace.selected("stsb"), lambda selected: selected["groups"].pop())
    with pytest.raises(ArtifactError, match=r"stsb: no model of albert-base/joint is selected.*dvc repro"):
        build(collect(params, workspace), PROVENANCE)


def test_stage_writes_page_markdown_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.storage import write_text
    from stages.report import main

    monkeypatch.chdir(tmp_path)
    params = small("albert-base")
    write_all(Workspace(), params)
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
    assert logged["comparisons"] == 6


def test_import_is_light() -> None:
    code = "import sys, stages.report; print([m for m in ('torch', 'matplotlib', 'jinja2', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
