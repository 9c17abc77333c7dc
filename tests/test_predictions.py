"""Predictions of rows without labels: each file's format read back, the seed that answers, the archive for GLUE."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.evaluation.criteria import make
from pipeline.evaluation.group import Seeded
from pipeline.evaluation.metrics import score
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace, save_trace
from pipeline.params import load_params
from pipeline.storage import DATA, write_json
from pipeline.tasks.names import TASKS
from pipeline.tasks.predictions import file_of, table, write_predictions
from pipeline.tasks.prepare import prepare
from pipeline.tasks.task import ServerFiles, Task
from tests.test_choosing import made_up_trace
from tests.workspace import Workspace

GLUE = {name: task for name, task in TASKS.items() if task.server}
WORDS = {"mnli", "qnli", "rte"}


def unlabelled(trace: Trace) -> Trace:
    values = {name: getattr(trace, name) for name in ("logits", "row_ids", "layers", "flops", "full_flops")}
    return Trace(trace.kind, labels=np.full(trace.rows, np.nan), **values)


def read(text: str) -> tuple[list[str], list[int], list[str]]:
    """Header, index and predictions, by Python's own reader of tab-separated text."""
    header, *rows = list(csv.reader(text.splitlines(), delimiter="\t"))
    return header, [int(index) for index, _ in rows], [said for _, said in rows]


@pytest.mark.parametrize("name", GLUE)
def test_the_servers_format(name: str) -> None:
    task = GLUE[name]
    answers = np.array([-0.2, 3.14159, 5.7, 2.0]) if task.kind == "regression" else np.arange(4.0) % task.outputs
    text = table(task, np.arange(4), answers)
    header, index, said = read(text)
    assert (header, index) == (["index", "prediction"], [0, 1, 2, 3])
    assert text.startswith("index\tprediction\n")
    assert text.endswith("\n")
    if name == "stsb":
        assert said == ["0.000", "3.142", "5.000", "2.000"]
    elif name in WORDS:
        assert [task.label_names.index(word) for word in said] == answers.tolist()
    else:
        assert [int(number) for number in said] == answers.tolist()


def test_the_servers_names() -> None:
    names = [file_of(task, split) for task in GLUE.values() for split in task.server.names if task.server]
    wanted = "CoLA SST-2 MRPC QQP STS-B MNLI-m MNLI-mm QNLI RTE"
    assert names == [f"{name}.tsv" for name in wanted.split()]
    for task in GLUE.values():
        assert isinstance(task.server, ServerFiles)
        assert not isinstance(task.source, str)
        assert set(task.server.names) == set(task.source.test)  # type: ignore[union-attr]
    assert set(GLUE["mnli"].label_names) == {"entailment", "neutral", "contradiction"}
    assert set(GLUE["rte"].label_names) == {"entailment", "not_entailment"}


def test_a_plain_table_for_other_tasks() -> None:
    task = TASKS["ag_news"]
    assert file_of(task, "new") == "ag_news.new.tsv"
    header, index, said = read(table(task, np.array([4, 9]), np.array([3.0, 0.0])))
    assert (header, index, said) == (["index", "prediction"], [4, 9], ["Sci/Tech", "World"])
    tabbed = Task("own", task.source, "classification", ("text",), "label", ('a\t"b"', "c"), ("accuracy",))
    assert read(table(tabbed, np.arange(2), np.array([0.0, 1.0])))[2] == ['a\t"b"', "c"]
    relatedness = TASKS["sick-relatedness"]
    values = np.array([-1.25, 1e-7, 123456.0])
    said = read(table(relatedness, np.arange(3), values))[2]
    np.testing.assert_allclose([float(text) for text in said], values, rtol=1e-5)


def test_rows_without_labels_have_no_score() -> None:
    trace = unlabelled(made_up_trace(50, classes=2, seed=1))
    swept = sweep(trace, make("patience"))
    assert np.isfinite(swept.layer_speedup).all()
    for metric in ("accuracy", "f1", "matthews", "pearson", "spearman"):
        assert np.isnan(swept.metrics((metric,))["score"]).all()
        assert np.isnan(score((metric,), swept.predictions, trace.labels)).all()


def rows_of(criterion: str | None, thresholds: list[float | None]) -> list[dict[str, Any]]:
    about = {"backbone": "b", "method": "joint", "criterion": criterion, "settings": {}, "fitted": [{}, {}]}
    return [about | {"split": split, "thresholds": thresholds} for split in ("validation", "other")]


@pytest.mark.parametrize(("criterion", "thresholds"), [("patience", [2.0, 3.0]), (None, [None, None])])
def test_the_seed_with_the_best_selection_score_answers(
    criterion: str | None, thresholds: list[float | None], tmp_path: Path
) -> None:
    seeds = [Seeded(s, f"k{s}", {"selection": made_up_trace(300, classes=2, seed=10 + s)}) for s in (1, 2)]
    hidden = {s.key: {"test": unlabelled(made_up_trace(40, classes=2, seed=s.seed))} for s in seeds}
    (entry,) = write_predictions(tmp_path, GLUE["cola"], rows_of(criterion, thresholds), seeds, hidden)
    rule = make(criterion or "fixed")
    at = [NEVER if t is None else t for t in thresholds]
    scores = [
        float(sweep(s.traces["selection"], rule, np.array([t])).metrics(("matthews",))["score"][0])
        for s, t in zip(seeds, at, strict=True)
    ]
    best = int(np.argmax(scores))
    assert (entry["seed"], entry["selection"]) == (best + 1, pytest.approx(scores[best], abs=1e-6))
    assert entry["threshold"] == thresholds[best]
    said = read((tmp_path / entry["file"]).read_text())[2]
    expected = sweep(hidden[f"k{best + 1}"]["test"], rule, np.array([at[best]])).predictions[0]
    assert [float(number) for number in said] == expected.tolist()
    assert write_predictions(tmp_path, GLUE["cola"], rows_of("oracle", [1.0, 1.0]), seeds, hidden) == []


# The stages and the archive


def traced(task: str, splits: dict[str, list[str]], classes: int = 2) -> None:
    """An index as the trace stage writes it, of one model and two seeds."""
    folder = Path("outputs/traces") / task
    index: dict[str, list[dict[str, Any]]] = {"traces": [], "unlabelled": []}
    for seed in (1, 2):
        for kind, names in splits.items():
            for i, split in enumerate(names):
                trace = made_up_trace(60, classes=classes, seed=10 * seed + i)
                file = f"k{seed}.{split}.safetensors"
                save_trace(unlabelled(trace) if kind == "unlabelled" else trace, folder / file)
                about = {"backbone": "albert-base", "method": "joint", "multi_exit": True}
                index[kind].append(about | {"seed": seed, "key": f"k{seed}", "split": split, "file": file})
    write_json(folder / "index.json", {"schema": 1, **index})


def glue_params(workspace: Workspace) -> None:
    tasks = {"rte": {"test": True}, "mnli": {"test": True}, "sst2": {}}
    workspace.write_params({"tasks": tasks, "latency.tasks": [], "attack.tasks": {}, "backbones": {"albert-base": {}}})


def submit(workspace: Workspace, *arguments: str) -> Any:
    return workspace.command(
        "-m", "pipeline", "submission", "--backbone", "albert-base", "--method", "joint", *arguments
    )


def test_from_traces_to_the_archive(workspace: Workspace) -> None:
    glue_params(workspace)
    line = submit(workspace).error()
    assert all(part in line for part in ("outputs/predictions/rte/index.json", "no such file", "evaluate@rte"))
    traced("rte", {"traces": ["selection", "validation"], "unlabelled": ["test"]})
    halves = ["test_matched", "test_mismatched"]
    traced("mnli", {"traces": ["selection", "matched", "mismatched"], "unlabelled": halves}, classes=3)
    traced("sst2", {"traces": ["selection", "validation"], "unlabelled": []})
    for task in ("rte", "mnli", "sst2"):
        assert workspace.stage("evaluate", task).code == 0
    stored = json.loads(Path("outputs/evaluate/mnli.json").read_text())
    assert {row["split"] for part in ("rows", "exits", "diagnosis") for row in stored[part]} == {
        "matched",
        "mismatched",
        "selection",
    }
    assert "test" not in Path("outputs/evaluate/rte.curves.csv").read_text()
    assert json.loads(Path("outputs/predictions/sst2/index.json").read_text())["files"] == []
    done = submit(workspace, "--criterion", "patience", "--out", "mine/glue.zip")
    assert done.code == 0, done.err
    assert "RTE.tsv     rte: 60 rows, seed" in done.out
    assert done.out.splitlines()[-1].startswith("mine/glue.zip: 3 files; the server also wants CoLA.tsv, SST-2.tsv")
    with zipfile.ZipFile("mine/glue.zip") as archive:
        assert archive.namelist() == ["MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv"]
        for name in archive.namelist():
            header, index, said = read(archive.read(name).decode())
            assert (header, index) == (["index", "prediction"], list(range(60)))
            assert set(said) <= set(TASKS["mnli" if "MNLI" in name else "rte"].label_names)
    first = Path("mine/glue.zip").read_bytes()
    assert submit(workspace, "--criterion", "patience", "--out", "mine/glue.zip").code == 0
    assert Path("mine/glue.zip").read_bytes() == first
    # What can go wrong.
    line = submit(workspace, "--criterion", "patiense").error()
    assert "'albert-base.joint.patiense'; did you mean 'albert-base.joint.patience'?" in line
    assert "'glue.tar'" in submit(workspace, "--out", "glue.tar").error()
    Path("outputs/predictions/rte/albert-base.joint.full/RTE.tsv").write_text("index\tprediction\n")
    line = submit(workspace).error()
    assert all(part in line for part in ("RTE.tsv", "changed", "evaluate@rte"))
    workspace.write_params({"tasks": {"sst2": {}}, "latency.tasks": [], "attack.tasks": {}})
    assert "set tasks.<name>.test" in submit(workspace).error()
    assert not Path("submission.zip").exists()


def test_own_rows_from_params_to_predictions(workspace: Workspace) -> None:
    """The real stages prepare, trace and evaluate; the model is one that nobody trained."""
    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit, save_checkpoint
    from pipeline.storage import RUNS

    for name, rows in (("train", 30), ("held", 9)):
        lines = ["text,label", *(f"good film {i},{('bad', 'good')[i % 2]}" for i in range(rows))]
        Path(f"{name}.csv").write_text("\n".join(lines) + "\n")
    Path("new.csv").write_text("text\n" + "".join(f"bad film {i}\n" for i in range(7)))
    source = {"train": "train.csv", "report": {"held": "held.csv"}, "test": {"new": "new.csv"}}
    own = {
        "source": source,
        "text": ["text"],
        "label": "label",
        "label_names": ["bad", "good"],
        "rows": {"selection": 10},
    }
    workspace.write_params({"tasks": {"own": own}, "latency.tasks": [], "attack.tasks": {}})
    params = load_params()
    prepare(params.task("own"), [params.backbone("demo-albert")], "holdout", DATA / "own", None)
    save_checkpoint(MultiExit(build_encoder(params.backbone("demo-albert"), 400), range(1, 13), 2), RUNS / "k")
    group = {"backbone": "demo-albert", "method": "joint", "multi_exit": True, "trials": [{"seed": 1, "key": "k"}]}
    write_json(Path("outputs/selected/own.json"), {"schema": 1, "groups": [group]})
    for stage in ("trace", "evaluate"):
        done = workspace.stage(stage, "own")
        assert done.code == 0, done.err
    index = json.loads(Path("outputs/traces/own/index.json").read_text())
    assert [entry["split"] for entry in index["traces"]] == ["selection", "held"]
    assert [(entry["split"], entry["rows"]) for entry in index["unlabelled"]] == [("new", 7)]
    files = json.loads(Path("outputs/predictions/own/index.json").read_text())["files"]
    assert {entry["criterion"] for entry in files} == {
        None,
        *yaml.safe_load(Path("params.yaml").read_text())["evaluate"]["criteria"],
    }
    text = Path("outputs/predictions/own/demo-albert.joint.patience/own.new.tsv").read_text()
    assert read(text)[1] == list(range(7))
    assert set(read(text)[2]) <= {"bad", "good"}
