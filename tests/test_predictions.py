"""Predictions of rows without labels: each file's format read back, the seed that answers, the archive for GLUE."""

import csv
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.evaluation.criteria import make
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.metrics import METRICS, score
from pipeline.evaluation.point import point_of
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace, save_trace
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import Evaluated, OverSeeds, Predictions, Row, TraceEntry, TraceIndex
from pipeline.tasks.names import TASKS
from pipeline.tasks.predictions import file_of, table, write_predictions
from pipeline.tasks.task import ServerFiles, Task
from tests.selections import save_model, select
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
    for metric in METRICS:
        assert np.isnan(swept.metrics((metric,))["score"]).all()
        assert np.isnan(score((metric,), swept.predictions, trace.labels)).all()


def row_of(criterion: str | None, thresholds: list[float], split: str) -> Row:
    none = OverSeeds(median=None, values=(None, None))
    return Row(
        backbone="b", method="joint", split=split, seeds=(1, 2), keys=("k1", "k2"),
        points=tuple(point_of(make(criterion) if criterion else None, {}, at) for at in thresholds),
        score=none, metrics={"accuracy": none}, layer_speedup=none, flop_speedup=none,
        rule="window", in_window=True, selected_on="selection",
    )  # fmt: skip


@pytest.mark.parametrize(("criterion", "thresholds"), [("patience", [2.0, 3.0]), (None, [NEVER, NEVER])])
def test_the_seed_with_the_best_selection_score_answers(
    criterion: str | None, thresholds: list[float], tmp_path: Path
) -> None:
    seeds = tuple(SeedTraces(s, f"k{s}", {"selection": made_up_trace(300, classes=2, seed=10 + s)}) for s in (1, 2))
    hidden = {s.key: {"test": unlabelled(made_up_trace(40, classes=2, seed=s.seed))} for s in seeds}
    group = Group("b", "joint", True, seeds, hidden)
    rows = [row_of(criterion, thresholds, split) for split in ("validation", "other")]
    (entry,) = write_predictions(tmp_path, GLUE["cola"], group, rows)
    rule = make(criterion or "fixed")
    scores = [
        float(sweep(s.traces["selection"], rule, np.array([at])).metrics(("matthews",))["score"][0])
        for s, at in zip(seeds, thresholds, strict=True)
    ]
    best = int(np.argmax(scores))
    assert (entry.seed, entry.selection) == (best + 1, pytest.approx(scores[best], abs=1e-6))
    assert (entry.point.criterion, entry.point.limit) == (criterion, thresholds[best])
    answers = read((tmp_path / entry.file).read_text())[2]
    expected = sweep(hidden[f"k{best + 1}"]["test"], rule, np.array([thresholds[best]])).predictions[0]
    assert [float(number) for number in answers] == expected.tolist()
    bounds = [row_of("oracle", [1.0, 1.0], "validation")]
    assert list(write_predictions(tmp_path, GLUE["cola"], group, bounds)) == []
    assert list(write_predictions(tmp_path, GLUE["cola"], replace(group, unlabelled={}), rows)) == []


# The stages and the archive


def traced(task: str, splits: dict[str, list[str]], classes: int = 2) -> None:
    """An index as the trace stage writes it, of one model and two seeds."""
    index: dict[str, list[TraceEntry]] = {"traces": [], "unlabelled": []}
    for seed in (1, 2):
        for kind, names in splits.items():
            for i, split in enumerate(names):
                trace = made_up_trace(60, classes=classes, seed=10 * seed + i)
                path = HERE.trace(task, f"k{seed}", split)
                sha256 = save_trace(unlabelled(trace) if kind == "unlabelled" else trace, path)
                entry = TraceEntry(
                    backbone="albert-base", method="joint", multi_exit=True, seed=seed, key=f"k{seed}",
                    weights_sha256="w", split=split, file=path.name, sha256=sha256, rows=trace.rows,
                )  # fmt: skip
                index[kind].append(entry)
    entries = {kind: tuple(of_kind) for kind, of_kind in index.items()}
    TraceIndex(task=task, **entries).write(HERE.trace_index(task))


def glue_params(workspace: Workspace) -> None:
    tasks = {"rte": {"test": True}, "mnli": {"test": True}, "sst2": {}}
    workspace.write_params({"tasks": tasks, "latency.tasks": [], "attack.tasks": {}, "backbones": {"albert-base": {}}})


def submit(workspace: Workspace, *arguments: str) -> Any:
    return workspace.command(
        "-m", "pipeline", "submission", "--backbone", "albert-base", "--method", "joint", *arguments
    )


@pytest.mark.slow
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
    stored = Evaluated.read(HERE.evaluated("mnli"), "")
    splits = {part.split for parts in (stored.rows, stored.exits, stored.diagnosis) for part in parts}
    assert splits == {"matched", "mismatched", "selection"}
    assert "test" not in Path("outputs/evaluate/rte.curves.csv").read_text()
    assert Predictions.read(HERE.predictions_index("sst2"), "").files == ()
    done = submit(workspace, "--criterion", "patience", "--out", "mine/glue.zip")
    assert done.code == 0, done.err
    assert "RTE.tsv     rte: 60 rows, seed" in done.out
    assert done.out.splitlines()[-1].startswith("mine/glue.zip: 3 files; the server also needs CoLA.tsv, SST-2.tsv")
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
    assert "--out glue.tar: does not end in .zip" in submit(workspace, "--out", "glue.tar").error()
    Path("folder.zip").mkdir()
    assert "--out folder.zip: is a folder" in submit(workspace, "--out", "folder.zip").error()
    place = "params.yaml/glue.zip"
    assert f"--out {place}: cannot be written" in submit(workspace, "--criterion", "patience", "--out", place).error()
    assert not list(Path().glob("*.partial"))
    Path("outputs/predictions/rte/albert-base.joint.full/RTE.tsv").write_text("index\tprediction\n")
    line = submit(workspace).error()
    assert all(part in line for part in ("RTE.tsv", "changed", "evaluate@rte"))
    workspace.write_params({"tasks": {"sst2": {}}, "latency.tasks": [], "attack.tasks": {}})
    assert "set tasks.<name>.test" in submit(workspace).error()
    assert not Path("submission.zip").exists()


def test_own_rows_from_params_to_predictions(workspace: Workspace) -> None:
    """The real stages prepare, trace and evaluate; the model is one that nobody trained."""
    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit

    for name, rows in (("train", 30), ("held", 9)):
        lines = ["text,label", *(f"good film {i},{('bad', 'good')[i % 2]}" for i in range(rows))]
        Path(f"{name}.csv").write_text("\n".join(lines) + "\n")
    # The blank line is a row: the others keep their numbers.
    Path("new.csv").write_text("text\n" + "".join("\n" if i == 3 else f"bad film {i}\n" for i in range(7)))
    source = {"train": "train.csv", "report": {"held": "held.csv"}, "test": {"new": "new.csv"}}
    own = {
        "source": source,
        "text": ["text"],
        "label": "label",
        "label_names": ["bad", "good"],
        "rows": {"selection": 10},
    }
    workspace.write_params({"tasks": {"own": own}, "latency.tasks": [], "attack.tasks": {}})
    assert workspace.stage("prepare", "own").code == 0
    encoder = build_encoder(load_params().backbone("demo-albert"), 400)
    save_model(MultiExit(encoder, range(1, 13), 2), "own", "k")
    select("own", "demo-albert", {"joint": {1: "k"}})
    for stage in ("trace", "evaluate"):
        done = workspace.stage(stage, "own")
        assert done.code == 0, done.err
    index = TraceIndex.read(HERE.trace_index("own"), "")
    assert [entry.split for entry in index.traces] == ["selection", "held"]
    assert [(entry.split, entry.rows) for entry in index.unlabelled] == [("new", 7)]
    files = Predictions.read(HERE.predictions_index("own"), "").files
    criteria = yaml.safe_load(Path("params.yaml").read_text())["evaluate"]["criteria"]
    assert {entry.point.criterion for entry in files} == {None, *criteria}
    text = Path("outputs/predictions/own/demo-albert.joint.patience/own.new.tsv").read_text()
    assert read(text)[1] == list(range(7))
    assert set(read(text)[2]) <= {"bad", "good"}
