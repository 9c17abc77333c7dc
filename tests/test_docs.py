"""What the pages say is true: their code runs, their table matches the registry."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.choosing import Window
from pipeline.evaluation.criteria import CRITERIA, Criterion, make
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import load_trace
from pipeline.identity.imports import ROOT
from pipeline.results import FILES
from tests.documents import blocks_of
from tests.test_criteria import (
    Case,
    cases_of,
    check_live_equals_replay,
    check_monotone,
    check_never_peeks,
    check_rows_are_independent,
    check_top_is_the_full_model,
    check_torch_and_numpy_agree,
    probabilities,
    random_trace,
    trace_of,
)
from tools import schema_page, settings_page
from tools.write_docs import EVIDENCE, FRONT, PAGE, PICTURE, SCHEMA, SCORES, SETTINGS, THRESHOLDS, front, page, picture


def blocks(name: str) -> list[str]:
    """The Python blocks of a page."""
    return [block.text for block in blocks_of(ROOT / "docs" / name) if block.language == "python"]


@pytest.fixture
def margin(monkeypatch: pytest.MonkeyPatch) -> Criterion:
    """The worked example, executed and registered."""
    (code,) = blocks("guides/own-criterion.md")
    assert len(code.splitlines()) <= 32
    module: dict[str, Any] = {"__name__": "pipeline.evaluation.criteria.margin"}
    exec(compile(code, "docs/guides/own-criterion.md", "exec"), module)
    monkeypatch.setitem(CRITERIA, "margin", module["Margin"])
    return make("margin")


def test_the_worked_example_by_hand(margin: Criterion) -> None:
    swept = sweep(trace_of(probabilities([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]])), margin, np.array([0.1, 0.4]))
    assert swept.exit_index[:, 0].tolist() == [0, 1]


def test_the_worked_example_keeps_the_laws(margin: Criterion) -> None:
    (case,) = cases_of(margin)
    for seed in range(5):
        check_never_peeks(case, seed, seed)
        check_monotone(case, seed)
        check_top_is_the_full_model(case, seed)
        check_rows_are_independent(case, seed)
        check_torch_and_numpy_agree(case, seed)
    check_live_equals_replay(case)


def test_the_worked_example_gets_a_curve_and_an_operating_point(margin: Criterion) -> None:
    traces = {
        split: random_trace(Case(margin, False), seed, rows=80) for seed, split in enumerate(("selection", "test"))
    }
    group = Group("b", "joint", True, (SeedTraces(1, "key", traces),))
    found = evaluate_group(group, {"margin": {}}, ("accuracy",), Window(1.0, 7.0))
    assert [row.criterion for row in found.rows] == [None, "margin"]
    assert len(found.curves) == 2 * (101 + 1)
    assert "| `margin` |" in page(PAGE.read_text(encoding="utf-8"))


def test_the_table_of_criteria_is_the_registry() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run python -m tools.write_docs"


def test_the_schema_page_is_the_classes() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_page.page(), "run python -m tools.write_docs"


def test_the_settings_page_is_the_classes() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    assert text == settings_page.page(), "run python -m tools.write_docs"
    for key in ("tasks.<name>.source", "grid", "images.training", "evaluate.choose", "attack.tasks.<name>", "runtime"):
        assert f"\n## `{key}`" in text, key
    assert "| `stop_after` | whole number | `2` | Epochs without a better selection score" in text


def test_the_front_page_shows_what_its_commands_print(tmp_path: Path) -> None:
    compared, swept = [block.text.split() for block in blocks_of(FRONT) if "replay" in block.text]
    drawn = tmp_path / "curves.svg"
    words = [str(drawn) if word == "curves.svg" else word for word in compared]
    subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=True, capture_output=True)
    assert drawn.read_text(encoding="utf-8") == EVIDENCE.with_suffix(".svg").read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, *swept[1:]], cwd=ROOT, check=True, capture_output=True, text=True)
    text = FRONT.read_text(encoding="utf-8")
    for row in csv.DictReader(done.stdout.splitlines()):
        t = "all layers" if row["threshold"] == "inf" else row["threshold"]
        assert f"| {t} | {100 * float(row['accuracy']):.1f} | {float(row['layer_speedup']):.2f}x |\n" in text
    assert text == front(text), "run python -m tools.write_docs"


def test_every_field_and_every_link_of_the_schema_page_has_its_words() -> None:
    lines = SCHEMA.read_text(encoding="utf-8").splitlines()
    sections = {line.removeprefix("## ").lower() for line in lines if line.startswith("## ")}
    assert set(re.findall(r"\(#(\w+)\)", "\n".join(lines))) <= sections
    assert {cls.__name__.lower() for cls in FILES} <= sections
    fields = [line.split(" | ") for line in lines if line.startswith("| `") and line.count(" | ") == 2]
    assert len(fields) > 150
    assert all(len(words.strip("| ")) > 2 for _, _, words in fields)


def test_the_picture_shows_what_the_page_says() -> None:
    assert PICTURE.read_text(encoding="utf-8") == picture(), "run python -m tools.write_docs"
    scores = np.array(list(SCORES.values()))
    left = [
        [int(np.argmax(s >= level)) + 1 if (s >= level).any() else 6 for s in scores] for level in THRESHOLDS.values()
    ]
    assert left == [[2, 4, 6], [3, 5, 6]]


def test_a_trace_written_without_this_project_is_evaluated(tmp_path: Path) -> None:
    write, evaluate = blocks("trace-format.md")
    assert "pipeline" not in write
    subprocess.run([sys.executable, "-c", write], cwd=tmp_path, check=True)
    run = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{evaluate}"
    found = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, check=True, capture_output=True, text=True)
    lines = found.stdout.splitlines()
    assert len(lines) == 7
    assert re.fullmatch(r"patience inf: accuracy 0\.\d{3}, 1\.00x", lines[-1])
    trace = load_trace(tmp_path / "validation.safetensors")
    assert trace.label_names == ("entailment", "neutral", "contradiction")
    assert trace.provenance["model"] == "mine, 6 layers"
