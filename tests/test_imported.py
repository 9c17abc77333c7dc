"""import-trace and rescore: others' records as traces, and stored experiments under what came later."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import load_trace, save_trace
from pipeline.results import Evaluated
from tests.test_choosing import made_up_trace
from tests.test_evaluate import run_stage
from tests.test_replay_commands import Ran

CLASSES = ("no", "maybe", "yes")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: Ran(monkeypatch, capsys, list(words))


def write_table(path: Path, delimiter: str, cells: np.ndarray, labels: list[Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(["truth", *(f"exit_{j + 1}" for j in range(cells.shape[1]))])
        writer.writerows([label, *row] for label, row in zip(labels, cells.tolist(), strict=True))
    return path


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
@pytest.mark.parametrize("named", [True, False])
def test_a_table_of_classes_decides_as_the_logits_it_came_from(
    suffix: str, delimiter: str, named: bool, run: Any, tmp_path: Path
) -> None:
    soft = made_up_trace(200, exits=4)
    answers, labels = soft.answers().astype(int), soft.labels.astype(int)
    cells = np.array(CLASSES)[answers] if named else answers
    truth = [CLASSES[label] if named else label for label in labels]
    file, out = write_table(tmp_path / f"exits{suffix}", delimiter, cells, truth), tmp_path / "t.safetensors"
    options = ["--names", ",".join(CLASSES)] if named else []
    ran = run("import-trace", file, "--label", "truth", "--out", out, "--layers", "3,6,9,12", *options)
    assert (ran.code, ran.error) == (0, "")
    assert "200 rows, 4 exits, 3 classes; holds classes alone" in ran.out
    hard = load_trace(out)
    assert (hard.hard, hard.layers.tolist(), hard.label_names) == (True, [3, 6, 9, 12], CLASSES if named else ())
    np.testing.assert_array_equal(hard.labels, soft.labels)
    for name, cls in CRITERIA.items():
        if cls.reads == "logits" and not cls.probabilities:
            mine, theirs = sweep(hard, make(name)), sweep(soft, make(name))
            np.testing.assert_array_equal(mine.exit_index, theirs.exit_index)
            np.testing.assert_array_equal(mine.predictions, theirs.predictions)
    assert diagnose(hard, ("accuracy",)).calibration is None
    assert diagnose(hard, ("accuracy",)).agreement == diagnose(soft, ("accuracy",)).agreement


def test_a_criterion_that_needs_probabilities_is_refused_by_name(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "hard.safetensors"
    soft = made_up_trace(50)
    answers = soft.answers()[:, :, None] == np.arange(3)
    save_trace(replace(soft, logits=np.where(answers, 0, -np.inf).astype(np.float32), hard=True), path)
    needing = [name for name, cls in CRITERIA.items() if cls.probabilities and cls.causal]
    assert {"confidence", "entropy", "temperature", "ensemble", "divergence"} <= {*needing}
    assert not {"patience", "voting", "fixed", "learned"} & {*needing}
    for name in needing:
        assert not make(name).applies_to(load_trace(path))
        ran = run("replay", path, "--criterion", name, "--sweep")
        assert (ran.code, len(ran.error.splitlines())) == (1, 1)
        assert f"criterion '{name}' needs class probabilities and the trace holds hard labels" in ran.error
    assert run("replay", path, "--criterion", "patience", "--threshold", "2").code == 0
    ran = run("replay", path, "--criterion", "temperature", "--threshold", "0.9", "--fit", path)
    assert "'temperature' needs class probabilities" in ran.error


@pytest.mark.parametrize("holds", ["logits", "probabilities", "classes", "values"])
def test_arrays_of_each_kind(holds: str, run: Any, tmp_path: Path) -> None:
    soft = made_up_trace(60, exits=5)
    if holds == "values":
        soft = replace(soft, kind="regression", logits=soft.logits[:, :, :1])
    exponents = np.exp(soft.logits.astype(np.float64))
    array = {
        "logits": soft.logits,
        "probabilities": exponents / exponents.sum(axis=2, keepdims=True),
        "classes": soft.answers().astype(np.int16),
        "values": soft.logits[:, :, 0],
    }[holds]
    np.savez(tmp_path / "a.npz", outputs=array.swapaxes(0, 1), y=soft.labels)
    out = tmp_path / "t.safetensors"
    options = ["--logits", "outputs", "--label", "y", "--holds", holds, "--exits-first"]
    costs = ["--costs", "10,20,30,40,60", "--plain-layers", "10"]
    ran = run("import-trace", tmp_path / "a.npz", "--out", out, *options, *costs)
    assert (ran.code, ran.error) == (0, "")
    trace = load_trace(out)
    assert (trace.kind, trace.hard, trace.all_layers) == (soft.kind, holds == "classes", 10)
    np.testing.assert_array_equal(trace.answers(), soft.answers())
    np.testing.assert_allclose(trace.flops[0], [10, 20, 30, 40, 60])
    criterion = make("confidence" if holds in ("logits", "probabilities") else "patience")
    np.testing.assert_array_equal(sweep(trace, criterion).exit_index, sweep(soft, criterion).exit_index)
    assert sweep(trace, criterion).layer_speedup[-1] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("truth,a\n0,1\n", [], "unknown column 'label'"),
        ("label,a\n0,1\n", ["--exits", "b"], "unknown column 'b'"),
        ("label,a\n0,1\n", ["--exits", "a,a"], "name each exit's column once"),
        ("label,a,b\n0,1,0.7\n1,0,1\n", [], "column 'b' of row 1: '0.7' is no class; tables hold classes"),
        ("label,a,b\n0,1,\n", [], "column 'b' of row 1 is empty"),
        ("label,a\nyes,yes\nno,perhaps\n", ["--names", "no,yes"], "column 'a' of row 2: 'perhaps' is none of no, yes"),
        ("label,a\n0,2\n", ["--names", "no,yes"], "--names: 2 names"),
        ("label,a\n", [], "holds no rows"),
        ("label,a,b\n0,1,1\n", ["--layers", "2"], "--layers 2: 1 for 2 exits"),
        ("label,a,b\n0,1,1\n", ["--layers", "2,x"], "--layers 2,x: are not numbers"),
        ("label,a,b\n0,1,1\n", ["--layers", "4,2"], "layers"),
        ("label,a,b\n0,1,1\n", ["--costs", "4,2"], "flops"),
        ("label,a,b\n0,1\n", [], "line 2"),
    ],
)
def test_tables_that_cannot_be_read(text: str, options: list[str], message: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    ran = run("import-trace", tmp_path / "t.csv", "--out", tmp_path / "t.safetensors", *options)
    assert (ran.code, len(ran.error.splitlines())) == (1, 1)
    assert message in ran.error
    assert not (tmp_path / "t.safetensors").exists()


def test_arrays_that_cannot_be_read(run: Any, tmp_path: Path) -> None:
    soft = made_up_trace(9)
    np.savez(tmp_path / "a.npz", logits=soft.logits, label=soft.labels, texts=np.array([{"a": 1}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    for file, options, message in (
        ("a.npz", ["--label", "y"], "unknown array 'y'"),
        ("a.npz", ["--logits", "label"], "has shape (9,); write (rows, exits, classes)"),
        ("a.npz", ["--logits", "texts"], "no .npz of plain arrays"),
        ("a.npz", ["--holds", "probabilities"], "does not sum to 1"),
        ("a.npz", ["--holds", "classes"], "is not (rows, exits) of class numbers"),
        ("a.npz", ["--exits", "a"], "--exits: is of tables"),
        ("cut.npz", [], "no .npz of plain arrays"),
        ("none.npz", [], "no .npz of plain arrays"),
        ("a.txt", [], "is no .csv, .tsv, .npz"),
    ):
        ran = run("import-trace", tmp_path / file, "--out", tmp_path / "t.safetensors", *options)
        assert (ran.code, len(ran.error.splitlines())) == (1, 1), file
        assert message in ran.error
    ran = run("import-trace", tmp_path / "a.npz", "--out", tmp_path / "t.trace")
    assert "does not end in .safetensors" in ran.error


# rescore


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Evaluated]:
    folder = tmp_path / "experiment"
    folder.mkdir()
    stored = run_stage(folder, {"rule": "risk", "epsilon": 0.1, "delta": 0.1}, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return folder, stored


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_criterion_that_came_later_over_a_stored_experiment(
    experiment: tuple[Path, Evaluated], run: Any, tmp_path: Path
) -> None:
    folder, stored = experiment
    before = contents(folder)
    ran = run("rescore", folder, "--criterion", "entropy", "--criterion", "temperature", "--to", tmp_path / "new")
    assert (ran.code, ran.error) == (0, "")
    assert contents(folder) == before
    found = Evaluated.read(tmp_path / "new" / "sst2.json", "")
    assert {row.criterion for row in found.rows} == {None, "entropy", "temperature"}
    old, new = ({(r.method, r.criterion): r for r in one.rows} for one in (stored, found))
    for key in (("joint", "temperature"), ("joint", None), ("single_exit", None)):
        assert new[key] == old[key]  # as evaluate itself chose and measured it
    assert (found.choosing, found.protocol, found.exits) == (stored.choosing, stored.protocol, stored.exits)
    assert new["joint", "entropy"].rule == "risk"
    ran = run("rescore", folder, "--criterion", "entropy", "--criterion", "temperature", "--json")
    assert json.loads(ran.out)["sst2"] == json.loads((tmp_path / "new" / "sst2.json").read_text())
    ran = run("rescore", folder, "--criterion", "entropy")
    (line,) = [line for line in ran.out.splitlines() if "entropy" in line]
    row = new["joint", "entropy"]
    assert line.split()[:5] == ["sst2", "albert-base/joint", "validation", "entropy", f"{row.score.median:.4f}"]
    assert "risk on selection" in line


def test_the_documented_commands_run(
    experiment: tuple[Path, Evaluated], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs/trace-format.md").read_text(encoding="utf-8")
    lines = [line.split()[3:] for line in page.splitlines() if line.startswith("python -m pipeline rescore ")]
    (experiment[0].parent / "other").symlink_to(experiment[0])
    monkeypatch.chdir(experiment[0])
    assert [run(*words).code for words in lines] == [0, 0]
    assert Path("rescored/sst2.json").is_file()


def test_a_metric_that_came_later_is_of_the_criteria_that_there_are(
    experiment: tuple[Path, Evaluated], run: Any
) -> None:
    folder, stored = experiment
    found = json.loads(run("rescore", folder, "--metric", "matthews", "--json").out)["sst2"]
    assert found["metrics"] == ["matthews"]
    assert {row["points"][0]["criterion"] for row in found["rows"]} == {row.criterion for row in stored.rows}
    assert all(row["metrics"].keys() == {"matthews"} for row in found["rows"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a --criterion or a --metric"),
        (["--criterion", "entrpy"], "did you mean 'entropy'?"),
        (["--criterion", "learned"], "--criterion learned: reads the channel 'lte', which no model of sst2 has"),
        (["--criterion", "entropy", "--set", "tau=1"], "--set tau: no setting of entropy"),
        (["--metric", "pearson"], "--metric pearson: has no meaning for a classification of 2 classes"),
        (["--criterion", "entropy", "--task", "mrpc"], "--task: unknown task 'mrpc'"),
        (["--criterion", "entropy", "--to", "experiment"], "results are not overwritten"),
    ],
)
def test_what_cannot_be_rescored(
    options: list[str], message: str, experiment: tuple[Path, Evaluated], run: Any
) -> None:
    before = contents(experiment[0])
    ran = run("rescore", experiment[0], *options)
    assert (ran.code, len(ran.error.splitlines())) == (1, 1)
    assert message in ran.error
    assert contents(experiment[0]) == before


def test_a_folder_without_results_is_one_line(run: Any, tmp_path: Path) -> None:
    ran = run("rescore", tmp_path, "--criterion", "entropy")
    assert ran.code == 1
    assert "no results of evaluate; run `dvc repro`" in ran.error
