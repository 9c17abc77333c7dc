"""What the pages say is true: their code runs, their table matches the registry."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ArtifactError
from pipeline.evaluation.choosing import Window
from pipeline.evaluation.criteria import CRITERIA, Criterion, make
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace, load_trace, save_trace
from pipeline.identity.imports import ROOT
from pipeline.results import FILES
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
from tools import schema_page
from tools.write_docs import PAGE, PICTURE, SCHEMA, SCORES, THRESHOLDS, page, picture


def blocks(name: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def margin(monkeypatch: pytest.MonkeyPatch) -> Criterion:
    """The worked example, executed and registered."""
    (code,) = blocks("criteria.md")
    assert len(code.splitlines()) <= 32
    module: dict[str, Any] = {"__name__": "pipeline.evaluation.criteria.margin"}
    exec(compile(code, "docs/criteria.md", "exec"), module)
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


def test_channels_travel_through_the_file(tmp_path: Path) -> None:
    lte = np.random.default_rng(0).uniform(size=(5, 3)).astype(np.float32)
    wide = np.zeros((5, 3, 4), dtype=np.float32)
    trace = trace_of(np.zeros((5, 3, 2)), lte=lte, hidden=wide)
    save_trace(trace, tmp_path / "t.safetensors")
    again = load_trace(tmp_path / "t.safetensors")
    assert set(again.channels) == {"lte", "hidden"}
    np.testing.assert_array_equal(again.channels["lte"], lte)
    assert again.channels["hidden"].shape == (5, 3, 4)


@pytest.mark.slow
def test_equal_traces_are_equal_files_whichever_process_writes(tmp_path: Path) -> None:
    write = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom pipeline.evaluation.trace import Trace, save_trace\n"
        "one = np.ones(2)\n"
        "trace = Trace('classification', np.ones((2, 3, 2), np.float32), one, np.arange(2), np.arange(1.0, 4),"
        " np.ones((2, 3)), one, ('a', 'ü'), {'model': 'm', 'commit': 'c'}, {c: np.ones((2, 3)) for c in 'ba'})\n"
        "print(save_trace(trace, Path(sys.argv[1])))"
    )
    hashes = set()
    for name in "abcdefgh":  # eight processes: the library's own order of four keys would agree once in 24**7
        command = [sys.executable, "-c", write, str(tmp_path / name)]
        hashes.add(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip())
    assert hashes == {hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()}
    again = load_trace(tmp_path / "a")
    assert (again.label_names, again.provenance) == (("a", "ü"), {"model": "m", "commit": "c"})
    assert set(again.channels) == {"a", "b"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lte": np.zeros((5, 2))}, r"channel 'lte' has shape \(5, 2\), expected \(5, 3\) or \(5, 3, k\)"),
        ({"lte": np.zeros(5)}, r"channel 'lte' has shape \(5,\)"),
    ],
)
def test_a_channel_of_another_shape_is_refused(changed: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        trace_of(np.zeros((5, 3, 2)), **changed)


def test_a_file_with_what_is_needed_and_no_more_reads(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    trace = trace_of(np.zeros((5, 3, 2)))
    tensors = {n: getattr(trace, n) for n in ("logits", "labels", "row_ids", "layers", "flops", "full_flops")}
    path = tmp_path / "t.safetensors"
    save_file(tensors, path, metadata={"schema": "early-exit-trace/1", "kind": "classification"})
    assert isinstance(load_trace(path), Trace)
    for metadata, message in (
        ({"schema": "early-exit-trace/2", "kind": "classification"}, "is not 'early-exit-trace/1'"),
        ({"schema": "early-exit-trace/1"}, "is neither classification nor regression"),
        ({"schema": "early-exit-trace/1", "kind": "classification", "provenance": "{"}, "metadata are not JSON"),
    ):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ArtifactError, match=message):
            load_trace(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.array([0.0, 1, 2, 1, 2])}, "label 2 of row 12 is no class index 0..1; count classes from 0"),
        ({"labels": np.array([-1.0, 1, 1, 1, 1])}, "label -1 of row 10 .* write NaN where a label is unknown"),
        ({"labels": np.array([np.nan, 0, 0.5, 1, 1])}, "label 0.5 of row 12 "),
        ({"labels": np.array([np.nan, 0, np.inf, 1, 1])}, "label inf of row 12 "),
        ({"logits": np.zeros((5, 3, 1), np.float32)}, "found 1 per exit; write two for a binary task"),
        ({"layers": np.array([3.0, 2, 1])}, r"layers \[3.0, 2.0, 1.0\] do not ascend .* the earliest exit first"),
        ({"layers": np.array([1.0, np.nan, 3])}, "nan, 3.0] do not ascend"),
        ({"layers": np.array([1.0, 2, np.inf])}, "inf] do not ascend to a number"),
        ({"layers": np.zeros(3)}, "to a number above 0"),
        ({"full_layers": np.array(0.0)}, "full_layers 0 is not above 0"),
    ],
    ids=["from_one", "minus_one", "half", "inf", "one_column", "descending", "nan", "endless", "zero", "full_layers"],
)
def test_values_that_the_format_rules_out_are_refused(
    changed: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    trace = trace_of(np.zeros((5, 3, 2)))
    tensors = {n: getattr(trace, n) for n in ("logits", "labels", "layers", "flops", "full_flops")}
    tensors |= {"row_ids": np.arange(10, 15)}
    path = tmp_path / "t.safetensors"
    metadata = {"schema": "early-exit-trace/1", "kind": "classification"}
    fine = {"labels": np.array([np.nan, 0, 1, 1, 1]), "layers": np.array([0.0, 1, 1])}
    save_file(tensors | fine, path, metadata=metadata)
    load_trace(path)
    save_file(tensors | changed, path, metadata=metadata)
    with pytest.raises(ArtifactError, match=message) as refused:
        load_trace(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["logits", "channel.lte"])
def test_numbers_that_numpy_lacks_are_refused(name: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    trace = trace_of(np.zeros((5, 3, 2)))
    names = ("logits", "labels", "row_ids", "layers", "flops", "full_flops")
    tensors = {n: torch.from_numpy(getattr(trace, n)) for n in names} | {"channel.lte": torch.zeros(5, 3)}
    path = tmp_path / "t.safetensors"
    tensors[name] = tensors[name].bfloat16()
    save_file(tensors, path, metadata={"schema": "early-exit-trace/1", "kind": "classification"})
    with pytest.raises(ArtifactError, match=f"tensor '{name}' holds BF16, not F32; write it as float32"):
        load_trace(path)
