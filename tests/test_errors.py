"""Bad input, as a user meets it: exit code 1, one line with key or file, value and remedy, nothing half-written."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml

from pipeline.errors import exit_with_one_line
from pipeline.evaluation.trace import Trace, save_trace
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import TraceEntry, TraceIndex
from pipeline.storage import whole_file
from pipeline.tasks.task import TaskSettings
from tests import prepared as preparing
from tests.selections import select
from tests.workspace import NO_NETWORK, Workspace, small_params

ATTACKED = {"attack.tasks": {"demo-sentences": {"examples": 1}}}
OWN = {"text": ["sentence"], "label": "label", "label_names": ["bad", "good"]}
NO_LATER = {"latency.tasks": [], "attack.tasks": {}}
ROWS = {"sentence": [f"it was {word} {i}" for i in range(10) for word in ("good", "bad")], "label": [1, 0] * 10}


# params.yaml


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        # Unknown names: the key, the name, and the nearest known one.
        ({"tasks": {"demo-sentence": {}}}, ["tasks:", "'demo-sentence'", "did you mean 'demo-sentences'?"]),
        ({"tasks": {"sst3": {}}}, ["tasks:", "did you mean 'sst2'?", "tasks.sst3.source"]),
        ({"backbones": {"demo-albrt": {}}}, ["backbones:", "did you mean 'demo-albert'?"]),
        ({"methods": ["jiont"]}, ["methods:", "'jiont'", "did you mean 'joint'?"]),
        ({"evaluate.criteria": {"patiense": {}}}, ["evaluate.criteria", "did you mean 'patience'?"]),
        ({"evaluate.criteria": {"patience": {"tua": 1.0}}}, ["evaluate.criteria.patience", "did you mean 'tau'?"]),
        ({"attack.criteria": ["confidense"]}, ["attack.criteria", "did you mean 'confidence'?"]),
        ({"attack.tasks": {"sentences": {"examples": 1}}}, ["attack.tasks", "'sentences'", "demo-sentences"]),
        ({"latency.tasks": ["demo-sentense"]}, ["latency.tasks", "did you mean 'demo-sentences'?"]),
        ({"tasks.demo-sentences.metrics": ["acuracy"]}, ["tasks.demo-sentences.metrics", "did you mean 'accuracy'?"]),
        ({"tasks.demo-sentences.metrics": ["pearson"]}, ["tasks.demo-sentences.metrics", "'pearson'", "take accuracy"]),
        ({"tasks": {"stsb": {"metrics": ["f1"]}}}, ["tasks.stsb.metrics", "'f1'", "take pearson, spearman"]),
        (
            {"tasks": {"snli": {"metrics": ["f1"]}}},
            ["tasks.snli.metrics", "'f1'", "two classes", "3", "take accuracy, macro_f1"],
        ),
        ({"tasks.demo-sentences.test": True}, ["tasks.demo-sentences.test", "true", "source.test"]),
        (
            {"tasks": {"sst2": {"source": {"hub": "a/b", "report": {"train": "validation"}}}}},
            ["tasks.sst2.source", "'train'", "a name of its own"],
        ),
        (
            {"tasks": {"sst2": {"source": {"hub": "a/b", "test": {"validation": "test"}}}}},
            ["tasks.sst2.source", "'validation'", "a name of its own"],
        ),
        ({"tasks": {"cifar11": {}}}, ["tasks", "'cifar11'", "did you mean 'cifar10'?"]),
        ({"methods": ["shallow_dep"]}, ["methods", "'shallow_dep'", "did you mean 'shallow_deep'?"]),
        (
            {"tasks": {"cifar10": {}}, "backbones": {"demo-albert": {}}, **NO_LATER},
            ["backbones", "no backbone serves images", "'cifar10'", "resnet20"],
        ),
        (
            {
                "tasks": {"demo-images": {}},
                "backbones": {"resnet14": {}},
                "methods": ["first_half"],
                "latency.tasks": [],
                "attack.tasks": {},
            },
            ["methods", "no method trains on them", "'demo-images'", "add joint"],
        ),
        ({"backbones": {"resnet14": {}}}, ["backbones", "no backbone serves texts", "'demo-sentences'", "minilm"]),
        ({"backbones": {"demo-albert": {"width": 8}}}, ["backbones.demo-albert.width", "8", "take it out"]),
        ({"backbones": {"demo-albert": {}, "resnet14": {"hub": "a/b"}}}, ["backbones.resnet14.hub", "take it out"]),
        (
            {"tasks": {"own": {"source": {"train": "a", "report": {"t": "b"}}, "text": ["x"], "image": "y"}}},
            ["tasks.own", "both text and image"],
        ),
        ({"tasks": {"sst2": {"image": "y"}}}, ["tasks.sst2", "texts", "a name that is not taken"]),
        (
            {
                "tasks": {"demo-images": {}},
                "backbones": {"resnet14": {}},
                "latency.tasks": [],
                "attack.tasks": {"demo-images": {"examples": 1}},
            },
            ["attack.tasks", "'demo-images'", "take it out"],
        ),
        (
            {
                "tasks": {"demo-similarity": {}},
                "latency.tasks": [],
                "attack.tasks": {"demo-similarity": {"examples": 1}},
            },
            ["attack.tasks", "'demo-similarity'", "regression", "take it out"],
        ),
        # What is attacked is trained and evaluated.
        *(
            ({"methods": ["single_exit", "joint"], **ATTACKED, **changes}, parts)
            for changes, parts in (
                ({"attack.criteria": ["voting"]}, ["attack.criteria", "'voting'", "evaluate.criteria"]),
                ({"attack.multi_exit": "jiont"}, ["attack.multi_exit", "did you mean 'joint'?"]),
                ({"attack.multi_exit": "single_exit"}, ["attack.multi_exit", "one exit", "name one of joint"]),
                ({"attack.single_exit": "joint"}, ["attack.single_exit", "early exits", "name one of single_exit"]),
                ({"attack.single_exit": "first_half"}, ["attack.single_exit", "'first_half' is not in methods"]),
                ({"methods": ["joint"]}, ["attack.single_exit", "'single_exit' is not in methods", "attack.tasks"]),
                ({"attack.recipe": "pwws"}, ["attack.resources", "no wordnet", "'pwws'"]),
                ({"attack.recipe": "bae"}, ["attack.resources", "no masked_lm", "'bae'"]),
                ({"attack.tasks.demo-sentences.source": {"hub": "a/b", "report": {}}}, ["source.report", "at least 1"]),
                ({"attack.tasks.demo-sentences.text": ["a"]}, ["attack.tasks.demo-sentences", "text", "add source"]),
                (
                    {"attack.tasks.demo-sentences": {"examples": 2, "source": {"hub": "a/b"}, "text": ["a", "b"]}},
                    ["attack.tasks.demo-sentences.text", "a, b", "one column for each of sentence"],
                ),
                (
                    {
                        "methods": ["single_exit", "joint", "berxit"],
                        "evaluate.criteria": {"learned": {}},
                        "attack.criteria": ["learned"],
                    },
                    ["attack.criteria", "'learned'", "multi_exit 'berxit'"],
                ),
            )
        ),
        ({"tasks": {"sst2": {"source": {"hub": "a/b", "report": {}}}}}, ["tasks.sst2.source.report", "at least 1"]),
        # A slip in a source is named, not what it leaves missing.
        ({"tasks": {"own": {"source": {"trian": "a", "report": {"t": "b"}}}}}, ["source.trian", "mean 'train'?"]),
        ({"tasks": {"own": {"source": {"train": "a", "dev": "b"}}}}, ["tasks.own.source.dev: no such", "report"]),
        ({"tasks": {"own": {"source": {"train": "a", "report": "b"}}}}, ["tasks.own.source.report: 'b'", "dict"]),
        ({"tasks": {"own": {"source": {"report": {"t": "b"}}}}}, ["tasks.own.source.train: missing"]),
        ({"tasks": {"sst2": {"source": {"hub": "a/b", "confg": "c"}}}}, ["source.confg", "did you mean 'config'?"]),
        ({"trainings": {}}, ["trainings", "no such setting", "did you mean 'training'?"]),
        ({"training.epoch": 3}, ["training.epoch", "no such setting"]),
        ({"tasks.demo-sentences.rows.trian": 3}, ["tasks.demo-sentences.rows.trian", "no such setting"]),
        ({"tasks": None}, ["tasks", "missing", "add it"]),
        # Wrong types.
        ({"grid.batch_size": 64}, ["grid.batch_size", "64", "list"]),
        ({"grid.batch_size": ["many"]}, ["grid.batch_size.0", "'many'", "integer"]),
        ({"grid.batch_size": [16.0]}, ["grid.batch_size.0", "16.0", "integer"]),
        ({"grid.learning_rate": ["fast"]}, ["grid.learning_rate.0", "'fast'", "number"]),
        ({"seeds": [True]}, ["seeds.0", "True", "integer"]),
        ({"tasks": ["demo-sentences"]}, ["tasks", "demo-sentences", "dictionary"]),
        ({"training": 3}, ["training", "3", "dictionary"]),
        ({"evaluate.criteria": {"patience": {"tau": "half"}}}, ["evaluate.criteria.patience.tau", "'half'", "number"]),
        ({"evaluate.criteria": {"patience": {"tau": math.inf}}}, ["evaluate.criteria.patience.tau", "inf", "finite"]),
        ({"evaluate.criteria": {"random": {"seed": -1}}}, ["evaluate.criteria.random.seed", "-1", "whole number"]),
        ({"evaluate.criteria": {"random": {"seed": 0.5}}}, ["evaluate.criteria.random.seed", "0.5", "whole number"]),
        ({"evaluate.criteria": {"voting": {"power": 2.0}}}, ["evaluate.criteria.voting.power", "2.0", "[0, 1)"]),
        # Names that would leave the folder, or mean something to a shell, to DVC or to MLflow.
        *(
            ({f"{block}": {name: {**settings}}}, [block, repr(name), "begin with a letter or digit"])
            for name in (
                "..",
                "../up",
                "/tmp/x",
                "a;touch PWNED",
                "my.task",
                "my task",
                "x(1)",
                "a&b",
                "it's",
                "-x",
                "",
            )
            for block, settings in (("tasks", {}), ("backbones", {"hub": "some/encoder"}))
        ),
        ({"backbones": {"bert@tiny": {"hub": "a/b"}}}, ["backbones", "'bert@tiny'"]),
        *(({"backbones": {name: {"hub": "a/b"}}}, [f"backbones.{name}", "taken"]) for name in ("text", "pixels")),
        *(
            ({"tasks": {"own": {"source": {"hub": hub}}}}, ["tasks.own.source.hub", repr(hub), "no name on the hub"])
            for hub in ("../x", "/x")
        ),
        ({"tasks": {"sst2": {"source": {"hub": "a/b", "report": {"-x": "test"}}}}}, ["tasks.sst2.source", "'-x'"]),
        ({"tasks.demo-sentences.drop_label": False}, ["tasks.demo-sentences.drop_label", "False"]),
        ({"tasks.demo-sentences.text": ["sentence", "sentence"]}, ["tasks.demo-sentences.text", "one column twice"]),
        (
            {"tasks": {"own": {"source": {"hub": "a/b"}, "text": ["x"], "label": "x", "label_names": ["a", "b"]}}},
            ["tasks.own.label", "'x' is a text column too"],
        ),
        ({"seeds": [2**32]}, ["seeds.0", str(2**32), "less than"]),
        ({"attack.seed": 2**63}, ["attack.seed", "less than"]),
        # Lists that are sets, and sizes that no machine has.
        ({"simulate.patiences": [1, 1]}, ["simulate.patiences", "[1, 1]", "distinct"]),
        ({"attack.criteria": ["patience", "patience"]}, ["attack.criteria", "distinct"]),
        ({"tasks.demo-sentences.metrics": ["accuracy", "accuracy"]}, ["metrics", "distinct"]),
        ({"tasks.demo-sentences.rows.train": 10**12}, ["tasks.demo-sentences.rows.train", "at most"]),
        ({"simulate.samples": 10**13}, ["simulate.samples", "less than or equal"]),
        ({"simulate.step": 1e-9}, ["simulate.step", "1e-09", "0.001"]),
        ({"simulate.layers": 10**6}, ["simulate.layers", "200"]),
        ({"simulate.patiences": [10**9]}, ["simulate.patiences.0", "200"]),
        ({"grid.batch_size": [10**12]}, ["grid.batch_size.0", "less than or equal"]),
        ({"backbones": {"demo-albert": {}, "resnet60000000002": {}}}, ["backbones", "resnet60000000002", "1202"]),
        ({"latency.repeats": 10**9}, ["latency.repeats", "less than or equal"]),
        # No value is shown at length.
        ({"methods": ["x" * 100_000]}, ["methods: unknown method 'xxx"]),
        ({"x" * 100_000: 1}, ["xxx", "no such setting"]),
        ({"seeds": ["y" * 100_000]}, ["seeds.0", "yyy...", "integer"]),
        ({"tasks": {"z" * 100_000: {}}}, ["tasks.zzz", "begin with a letter"]),
        # Numbers and truth values are not taken for each other.
        ({"evaluate.criteria": {"patience": {"tau": True}}}, ["evaluate.criteria.patience.tau", "True"]),
        ({"evaluate.choose": {"rule": "speedup", "target": "2"}}, ["evaluate.choose.target", "'2'"]),
        # Impossible values.
        ({"protocol": "papers"}, ["protocol", "'papers'", "'paper'"]),
        ({"grid.batch_size": [0]}, ["grid.batch_size.0", "0", "greater than or equal to 1"]),
        ({"grid.batch_size": []}, ["grid.batch_size", "at least 1"]),
        ({"grid.learning_rate": [-0.1]}, ["grid.learning_rate.0", "-0.1", "greater than 0"]),
        ({"grid.learning_rate": [float("nan")]}, ["grid.learning_rate.0", "nan", "finite"]),
        ({"seeds": [1, 1]}, ["seeds", "[1, 1]", "distinct"]),
        ({"methods": ["joint", "joint"]}, ["methods", "['joint', 'joint']", "distinct"]),
        ({"grid.learning_rate": [0.001, 0.001]}, ["grid.learning_rate", "[0.001, 0.001]", "distinct"]),
        ({"images.grid.batch_size": [2, 2]}, ["images.grid.batch_size", "[2, 2]", "distinct"]),
        ({"latency.tasks": ["demo-sentences", "demo-sentences"]}, ["latency.tasks", "distinct"]),
        ({"tasks.demo-sentences.label_names": ["a", "a"]}, ["tasks.demo-sentences.label_names", "a, a", "different"]),
        ({"tasks.demo-sentences.label_names": ["a"]}, ["tasks.demo-sentences.label_names", "a;", "two or more"]),
        ({"methods": ["two_stage"]}, ["methods", "'two_stage'", "add 'single_exit'"]),
        ({"training.epochs": 0}, ["training.epochs", "0", "greater than or equal to 1"]),
        ({"training.warmup": 1.0}, ["training.warmup", "1.0", "less than 1"]),
        ({"evaluate.window": [2.0, 1.3]}, ["evaluate", "[2.0, 1.3]", "[low, high]"]),
        ({"images.window": [2.0, 1.3]}, ["images.window", "[2.0, 1.3]", "[low, high]"]),
        ({"backbones": {"demo-albert": {}, "resnet18": {}}}, ["backbones.resnet18", "18", "20"]),
        (
            {"backbones": {"demo-albert": {"layers": 13}}},
            ["backbones.demo-albert.layers: 13; demo-albert has 12"],
        ),
        ({"tasks.demo-sentences.rows.selection": 0}, ["tasks.demo-sentences.rows.selection", "0"]),
        ({"simulate.step": 2.0}, ["simulate.step", "2.0", "0.5"]),
        ({"runtime.device": "tpu"}, ["runtime.device", "'tpu'", "'cuda'"]),
        ({"runtime.threads": 0}, ["runtime.threads", "0"]),
        *(
            ({"runtime": {"gpus_per_trial": share}}, ["runtime.gpus_per_trial", str(share), "a whole number of GPUs"])
            for share in (1.5, 0.00001)
        ),
        ({"runtime": {"device": "cpu", "gpus_per_trial": 0.5}}, ["runtime", "device cpu", "gpus_per_trial", "take"]),
        ({"runtime": {"device": "cuda", "gpus_per_trial": 0.0}}, ["runtime", "device cuda", "gpus_per_trial", "take"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_params(workspace: Workspace, changes: dict[str, Any], parts: list[str]) -> None:
    workspace.write_params(changes)
    line = workspace.stage("simulate").error()
    assert all(part in line for part in parts), line
    assert workspace.files() == set()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["params.yaml", "no such file", "profiles/"]),
        (b"", ["params.yaml", "empty", "profiles/"]),
        (b"- a\n- b\n", ["params.yaml", "['a', 'b'], not blocks", "profiles/"]),
        (b"grid: [1, 2\nseeds: 3", ["params.yaml", "not valid YAML", "line 2"]),
        (b"\xff\xfe\x00", ["params.yaml", "not valid YAML"]),
        (b"seeds: [1]\nprotocol: paper\nseeds: [2]\n", ["params.yaml", 'line 3: found duplicate key "seeds"']),
        (b"grid: {batch_size: [1], batch_size: [2]}\n", ["params.yaml", 'line 1: found duplicate key "batch_size"']),
        (b"seeds: [1_0]\n", ["params.yaml", "line 1: '1_0' is no number"]),
        (b"seeds: [" + b"9" * 5000 + b"]\n", ["params.yaml", "5000 digits"]),
        (b"seeds: 2026-13-45\n", ["params.yaml", "month must be in 1..12"]),
        (b"seeds: " + b"[" * 3000, ["params.yaml", "nested too deeply"]),
        (b"seeds: !!python/name:os.system\n", ["params.yaml", "line 1", "constructor for the tag"]),
        (b"? [a, b]\n: 1\n", ["params.yaml", "no such setting"]),
        (b"tasks: {demo-sentences: {label_names: [~, yes]}}", ["tasks.demo-sentences.label_names.0", "None"]),
        (b"tasks: {own: {drop_label: no}}\nseeds: [1:30]", ["seeds.0: '1:30'", "integer"]),
        (b"tasks: {own: {drop_label: true}}", ["tasks.own.drop_label", "True"]),
    ],
)
def test_a_params_file_that_is_none(workspace: Workspace, content: bytes | None, parts: list[str]) -> None:
    Path("params.yaml").unlink()
    if content is not None:
        Path("params.yaml").write_bytes(content)
    line = workspace.stage("simulate").error()
    assert all(part in line for part in parts), line


def test_a_params_file_that_is_a_folder_or_leads_to_itself(workspace: Workspace) -> None:
    path = Path("params.yaml")
    path.unlink()
    path.mkdir()
    assert "params.yaml: not valid YAML (Is a directory)" in workspace.stage("simulate").error()
    path.rmdir()
    path.symlink_to(path)
    assert "params.yaml: not valid YAML (Too many levels of symbolic links)" in workspace.stage("simulate").error()


def test_numbers_and_names_as_people_write_them(workspace: Workspace) -> None:
    text = Path("params.yaml").read_text().replace("0.001", "2e-5")
    Path("params.yaml").write_text(text + "\nprotocol: paper\n" if "protocol" not in text else text)
    assert load_params().grid.learning_rate == [2e-5]
    settings = TaskSettings.model_validate({"label_names": [0, 1.5, True, "no"]})
    assert settings.label_names == ("0", "1.5", "true", "no")


@pytest.mark.parametrize("stage", ["finetune", "report", "simulate"])
def test_a_stage_of_all_tasks_takes_no_argument(workspace: Workspace, stage: str) -> None:
    line = workspace.stage(stage, "demo-sentences").error()
    assert f"{stage}: 'demo-sentences' given; it runs for all tasks at once" in line
    assert workspace.files() == set()


@pytest.mark.parametrize("stage", ["prepare", "trace", "evaluate", "latency", "attack"])
def test_a_stage_of_one_task_takes_one(workspace: Workspace, stage: str) -> None:
    line = workspace.stage(stage, "").error()
    assert f"{stage}: no task given; name one of demo-sentences" in line


@pytest.mark.parametrize("stage", ["prepare", "trace", "evaluate", "latency", "attack"])
def test_an_instance_that_params_do_not_name(workspace: Workspace, stage: str) -> None:
    line = workspace.stage(stage, "demo-sentenses").error()
    assert "unknown task 'demo-sentenses'; did you mean 'demo-sentences'?" in line


def test_as_a_process(workspace: Workspace) -> None:
    for stage in ("finetune", "simulate", "report"):
        assert "it runs for all tasks" in workspace.command("-m", f"stages.{stage}", "demo-sentences").error()
    workspace.write_params({"methods": ["jiont"]})
    line = workspace.command("-m", "stages.finetune").error()
    assert "did you mean 'joint'?" in line
    line = workspace.command("-m", "pipeline", "profile", "dmeo").error()
    assert "did you mean 'demo'?" in line


# Data


def own_task(path: str, **settings: Any) -> dict[str, Any]:
    if Path(path).is_dir():
        shutil.copytree(path, f"report-{path}")
    elif Path(path).is_file():
        shutil.copy(path, f"report-{path}")
    source = {"train": path, "report": {"test": f"report-{path}"}}
    return {"tasks": {"own": {"source": source, **OWN, **settings}}, **NO_LATER}


def write_csv(path: Path, rows: dict[str, list[Any]]) -> None:
    table = pa.table(rows)
    pyarrow.csv.write_csv(table, path)


def broken(kind: str, path: Path) -> None:
    """A data file that does not hold up."""
    if kind == "garbage":
        path.write_bytes(b"\x00\x01 not a table")
    elif kind == "cut":
        pyarrow.parquet.write_table(pa.table(ROWS), path)
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "ragged":
        path.write_text("sentence,label\nfine,1\nbad,0,what\n")
    elif kind == "header":
        path.write_text("sentence,label\n")
    elif kind == "quote":
        path.write_text("sentence,label\n" + "fine,1\n" * 8 + '"bad,0\n' + "fine,1\n" * 8)
    elif kind == "blank":
        path.write_text("sentence,label\nfine,1\n\nbad,0\n")
    elif kind == "latin-1":
        path.write_bytes(b'{"sentence": "caf\xe9", "label": 1}\n')
    elif kind == "UTF-16":
        path.write_bytes("sentence,label\nfine,1\n".encode("utf-16"))
    elif kind == "long":
        write_csv(path, {**ROWS, "label": ["x" * 100_000, *["good"] * 19]})
    elif kind == "wide":
        path.write_text(",".join(f"column{i}" for i in range(10_000)) + "\n" + "1," * 9_999 + "1\n")
    elif kind == "bytes":
        pyarrow.parquet.write_table(pa.table({**ROWS, "label": [b"\xff" * 1000] * 20}), path)
    elif kind == "list":
        pyarrow.parquet.write_table(pa.table({**ROWS, "sentence": [["a"]] * 20}), path)
    elif kind == "empty":
        path.write_text("")
    elif kind == "columns":
        write_csv(path, {"text": ROWS["sentence"], "label": ROWS["label"]})
    elif kind == "label":
        write_csv(path, ROWS | {"label": [*ROWS["label"][:-1], 7]})
    elif kind == "name":
        write_csv(path, {**ROWS, "label": ["good", "bad"] * 9 + ["good", "so-so"]})
    elif kind == "hole":
        pyarrow.parquet.write_table(pa.table({**ROWS, "label": [*ROWS["label"][:-1], None]}), path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "type":
        path.touch()


@pytest.mark.parametrize(
    ("kind", "file", "parts"),
    [
        ("missing", "rows.csv", ["rows.csv", "no such file", "check the path"]),
        ("type", "rows.xlsx", ["rows.xlsx", "'.xlsx'", ".csv"]),
        ("garbage", "rows.parquet", ["rows.parquet", "unreadable as parquet", "mend"]),
        ("cut", "rows.parquet", ["rows.parquet", "unreadable as parquet", "mend"]),
        ("garbage", "rows.jsonl", ["rows.jsonl", "no text in UTF-8", "save it as UTF-8"]),
        ("ragged", "rows.csv", ["rows.csv, line 3", "3 fields", "the header has 2", "mend"]),
        ("empty", "rows.csv", ["rows.csv", "the file is empty", "give"]),
        ("quote", "rows.csv", ["rows.csv, line 10", "never closed", "close it", "quoted: false"]),
        ("blank", "rows.csv", ["rows.csv, line 3", "blank", "delete the line"]),
        ("latin-1", "rows.jsonl", ["rows.jsonl", "'sentence' is not UTF-8", "save the file as UTF-8"]),
        ("UTF-16", "rows.csv", ["rows.csv", "UTF-16", "save it as UTF-8"]),
        ("long", "rows.csv", ["own", "'train', row 0", "label 'xxx", "...", "bad, good"]),
        ("wide", "rows.csv", ["own", "no column 'sentence'", "column9 and 9990 more"]),
        ("bytes", "rows.parquet", ["own", "'train', row 0", "label 1000 bytes is not", "bad, good"]),
        ("list", "rows.parquet", ["own", "'train'", "'sentence' holds no text", "name another column"]),
        ("folder", "rows.csv", ["rows.csv", "unreadable as csv"]),
        ("columns", "rows.csv", ["own", "'train'", "no column 'sentence'", "text, label", "tasks.own.text"]),
        ("header", "rows.csv", ["rows.csv", "no rows below the header", "give a file with rows"]),
        ("label", "rows.csv", ["own", "'train', row 19", "label '7'", "bad, good", "tasks.own.label_names"]),
        ("name", "rows.csv", ["own", "'train', row 19", "'so-so'", "bad, good"]),
        ("hole", "rows.parquet", ["own", "'train', row 19", "None", "bad, good"]),
    ],
)
def test_data_files(workspace: Workspace, kind: str, file: str, parts: list[str]) -> None:
    broken(kind, Path(file))
    workspace.write_params(own_task(file))
    line = workspace.stage("prepare", "own").error()
    assert all(part in line for part in parts), line
    assert len(line) < 500
    assert workspace.files() == set()


def test_a_refused_file_leaves_the_data_of_before(workspace: Workspace) -> None:
    write_csv(Path("rows.csv"), ROWS)
    workspace.write_params(own_task("rows.csv"))
    assert workspace.stage("prepare", "own").code == 0
    before = {name: Path(name).read_bytes() for name in workspace.files()}
    broken("quote", Path("rows.csv"))
    workspace.stage("prepare", "own").error()
    assert {name: Path(name).read_bytes() for name in workspace.files()} == before


def test_no_rows_are_left_to_train_on(workspace: Workspace) -> None:
    write_csv(Path("rows.csv"), ROWS)
    workspace.write_params(own_task("rows.csv", rows={"selection": 20}))
    line = workspace.stage("prepare", "own").error()
    assert "20 training rows leave none beside 20 selection rows; lower tasks.own.rows.selection" in line
    Path("empty.csv").write_text("sentence,label\n")
    changes = own_task("rows.csv")
    changes["tasks"]["own"]["source"]["report"] = {"test": "empty.csv"}
    workspace.write_params(changes)
    line = workspace.stage("prepare", "own").error()
    assert "empty.csv: no rows below the header" in line
    write_csv(Path("rows.csv"), ROWS | {"label": [-1] * 20})
    workspace.write_params(own_task("rows.csv", drop_label=-1))
    line = workspace.stage("prepare", "own").error()
    assert "split 'train' is empty; check the source, and tasks.own.rows and .drop_label" in line
    assert workspace.files() == set()


def test_own_data_that_is_not_described(workspace: Workspace) -> None:
    changes = own_task("rows.csv")
    del changes["tasks"]["own"]["label_names"]
    workspace.write_params(changes)
    line = workspace.stage("prepare", "own").error()
    assert "tasks.own.label_names: missing; your own data needs text, label, label_names" in line


def test_a_mirror_without_the_data_set(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.write_params({"tasks": {"sst2": {}}, **NO_LATER})
    monkeypatch.setenv("HUB_MIRROR", "mirror")
    line = workspace.stage("prepare", "sst2").error()
    assert all(part in line for part in ("nyu-mll/glue (sst2)", "mirror/datasets/nyu-mll/glue", "HUB_MIRROR"))
    assert workspace.files() == set()


@pytest.mark.slow
def test_no_network_and_no_mirror(workspace: Workspace) -> None:
    workspace.write_params({"tasks": {"sst2": {}}, **NO_LATER})
    line = workspace.command("-m", "stages.prepare", "sst2", **NO_NETWORK).error()
    assert all(part in line for part in ("nyu-mll/glue (sst2)", "'train'", "network", "HUB_MIRROR")), line
    assert workspace.files() == set()


@pytest.mark.parametrize(("task", "least"), [("demo-sentences", 3), ("demo-pairs", 5)])
def test_a_length_that_leaves_no_room_for_a_text(workspace: Workspace, task: str, least: int) -> None:
    rows = {"train": 40, "selection": 12, "report": 12}
    for length in (1, least - 1, least):
        workspace.write_params({"tasks": {task: {"rows": rows, "max_length": length}}, **NO_LATER})
        done = workspace.stage("prepare", task)
        assert done.code == (length < least), done.err
    workspace.write_params({"tasks": {task: {"rows": rows, "max_length": 1}}, **NO_LATER})
    line = workspace.stage("prepare", task).error()
    assert all(part in line for part in (f"tasks.{task}.max_length: 1 leaves no room", f"give {least} or more")), line


def test_a_backbone_without_a_tokenizer(workspace: Workspace) -> None:
    # The rows are there and written by then; they go away again.
    Path("folder").mkdir()
    workspace.write_params({"backbones": {"mine": {"hub": "folder"}}})
    line = workspace.stage("prepare", "demo-sentences").error()
    assert all(part in line for part in ("backbones.mine", "'folder'", "check the name")), line
    assert workspace.files() == set()


BERT = {
    **{"model_type": "bert", "vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 4},
    **{"num_attention_heads": 2, "max_position_embeddings": 40, "type_vocab_size": 2},
}
ROBERTA = {"model_type": "roberta", "max_position_embeddings": 32, "pad_token_id": 1}
DISTILBERT = {
    **{"model_type": "distilbert", "n_layers": 3, "dim": 8, "n_heads": 2, "hidden_dim": 16},
    **dict.fromkeys(("num_hidden_layers", "hidden_size", "num_attention_heads"), ""),
}
NO_ENCODERS: list[tuple[Any, dict[str, Any], list[str]]] = [
    ({}, {"layers": 5}, ["backbones.mine.layers: 5; enc has 4, give 4 or fewer"]),
    (DISTILBERT, {"layers": 4}, ["backbones.mine.layers: 4; enc has 3"]),
    ({"model_type": "albert", "num_hidden_groups": 2}, {"layers": 2}, ["mine.layers: 2", "ALBERT of 2 groups"]),
    ({"model_type": "gpt2"}, {}, ["backbones.mine: 'enc' is a 'gpt2'; known families: bert, roberta"]),
    ({"model_type": "nobody's"}, {}, ["backbones.mine: no configuration for 'enc'", "nobody's", "check the name"]),
    ({"model_type": ""}, {}, ["backbones.mine: no configuration for 'enc'", "model_type", "check the name"]),
    (None, {}, ["backbones.mine: no configuration for 'enc'", "config.json", "check the name"]),
    ("{", {}, ["backbones.mine: no configuration for 'enc'", "check the name"]),
    ("[]", {}, ["backbones.mine: no configuration for 'enc'", "check the name"]),
    ({"auto_map": {"AutoConfig": "code.Config"}, "model_type": "own"}, {}, ["backbones.mine: no configuration"]),
    ({"num_hidden_layers": "4"}, {}, ["backbones.mine: config.json of 'enc': num_hidden_layers is '4'", "mend it"]),
    ({"num_hidden_layers": 0}, {}, ["num_hidden_layers is 0, not a whole number above 0"]),
    ({"num_hidden_layers": None}, {}, ["num_hidden_layers is None"]),
    ({"hidden_size": True}, {}, ["hidden_size is True"]),
    ({"vocab_size": 2.5}, {}, ["vocab_size is 2.5"]),
    ({"hidden_size": 9}, {}, ["hidden_size 9 is no multiple of num_attention_heads 2"]),
    ({"intermediate_size": -1}, {}, ["intermediate_size is -1"]),
    ({"pad_token_id": 20}, {}, ["pad_token_id is 20, not one of 20 words"]),
    ({"model_type": "roberta", "pad_token_id": None}, {}, ["pad_token_id is None"]),
    ({"hidden_dropout_prob": "none"}, {}, ["hidden_dropout_prob is 'none', not a rate in 0..1"]),
    ({"attention_probs_dropout_prob": 1.5}, {}, ["attention_probs_dropout_prob is 1.5"]),
    ({"hidden_act": "gelou"}, {}, ["activation 'gelou' is none of", "mend it"]),
    ({"position_embedding_type": "relative_key"}, {}, ["backbones.mine", "'relative_key' positions; take a model"]),
    ({"vocab_size": 19}, {}, ["the tokenizer of 'enc' has ids up to 19", "vocabulary of 19", "belong together"]),
    ({"max_position_embeddings": 31}, {}, ["max_length: 32 tokens", "backbones.mine takes (31); lower it to 31"]),
    (ROBERTA, {}, ["max_length: 32 tokens", "backbones.mine takes (30); lower it to 30"]),
]


def write_encoder(config: Any, settings: dict[str, Any], workspace: Workspace) -> None:
    """The folder enc with a tokenizer of 20 words and a config.json, text or fields of a small BERT ("": left out)."""
    from transformers import BertTokenizerFast

    Path("enc").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(15))]
    Path("enc/vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast("enc/vocab.txt").save_pretrained("enc")
    if isinstance(config, dict):
        config = json.dumps({name: value for name, value in (BERT | config).items() if value != ""})
    if config is not None:
        Path("enc/config.json").write_text(config, encoding="utf-8")
    task = {"rows": {"train": 40, "selection": 12, "report": 12}, "max_length": 32}
    backbones = {"mine": {"hub": "enc", **settings}}
    workspace.write_params({"tasks": {"demo-sentences": task}, "backbones": backbones, **NO_LATER})


@pytest.mark.parametrize(("config", "settings", "parts"), NO_ENCODERS)
def test_a_backbone_of_which_no_encoder_can_be_made(
    workspace: Workspace, config: Any, settings: dict[str, Any], parts: list[str]
) -> None:
    from pipeline.errors import PipelineError
    from pipeline.models.encoders.encoder import build_encoder

    write_encoder(config, settings, workspace)
    line = workspace.stage("prepare", "demo-sentences").error()
    assert all(part in line for part in parts), line
    assert workspace.files() == set()
    # A folder that changed behind prepare is refused by the trial.
    if not any(words in line for words in ("max_length", "the tokenizer")):
        with pytest.raises(PipelineError) as error:
            build_encoder(load_params().backbone("mine"))
        assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize("layers", [1, 4, None])
def test_a_backbone_of_which_one_can_be_made(workspace: Workspace, layers: int | None) -> None:
    write_encoder({}, {"layers": layers}, workspace)
    done = workspace.stage("prepare", "demo-sentences")
    assert done.code == 0, done.err


# Artifacts


def prepared() -> None:
    params = load_params()
    preparing.prepared(params.task("demo-sentences"), params.backbone("demo-albert"))


def other_schema(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "early-exit-checkpoint/0"}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-64] + bytes(64))


def other_exits(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"outputs": 3}))


@pytest.mark.parametrize(
    ("file", "damage", "parts"),
    [
        ("model.json", other_schema, ["model.json", "'early-exit-checkpoint/0'", "'early-exit-checkpoint/1'"]),
        ("model.json", cut, ["outputs/models/demo-sentences/k", "unreadable or cut short"]),
        ("model.json", other_exits, ["outputs/models/demo-sentences/k", "weights do not fit"]),
        ("model.safetensors", cut, ["outputs/models/demo-sentences/k", "its weights are not the selected ones"]),
        ("model.safetensors", noise, ["outputs/models/demo-sentences/k", "its weights are not the selected ones"]),
        ("model.safetensors", Path.unlink, ["outputs/models/demo-sentences/k", "no such file"]),
    ],
    ids=["schema", "cut json", "shape", "cut weights", "other weights", "no weights"],
)
def test_checkpoints(workspace: Workspace, file: str, damage: Callable[[Path], None], parts: list[str]) -> None:
    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit, save_checkpoint

    prepared()
    encoder = build_encoder(load_params().backbone("demo-albert"), 400)
    folder = HERE.model("demo-sentences", "k")
    save_checkpoint(MultiExit(encoder, range(1, 13), 2), folder)
    select("demo-sentences", "demo-albert", {"joint": {1: "k"}})
    damage(folder / file)
    before = workspace.files()
    line = workspace.stage("trace", "demo-sentences").error()
    assert all(part in line for part in parts), line
    assert "dvc repro" in line
    assert workspace.files() == before


def one_trace() -> Trace:
    ones = np.ones(4)
    return Trace("classification", np.ones((4, 3, 2), np.float32), ones, np.arange(4), np.arange(1.0, 4),
                 np.ones((4, 3)), ones)  # fmt: skip


def other_trace_schema(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b"early-exit-trace/1") == 1
    path.write_bytes(content.replace(b"early-exit-trace/1", b"early-exit-trace/0"))


def other_trace(path: Path) -> None:
    save_trace(replace(one_trace(), labels=np.zeros(4)), path)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (other_trace_schema, ["'early-exit-trace/0'", "'early-exit-trace/1'"]),
        (cut, ["unreadable or cut short"]),
        (Path.unlink, ["no such trace"]),
        (other_trace, ["not the trace that the index names"]),
    ],
    ids=["schema", "cut", "missing", "other"],
)
def test_traces(workspace: Workspace, damage: Callable[[Path], None], parts: list[str]) -> None:
    folder = Path("outputs/traces/demo-sentences")
    entries = []
    for split in ("selection", "validation"):
        sha256 = save_trace(one_trace(), folder / f"k.{split}.safetensors")
        entries.append(
            TraceEntry(
                backbone="demo-albert",
                method="joint",
                multi_exit=True,
                seed=1,
                key="k",
                weights_sha256="",
                split=split,
                file=f"k.{split}.safetensors",
                sha256=sha256,
                rows=4,
            )
        )
    TraceIndex(task="demo-sentences", traces=tuple(entries), unlabelled=()).write(folder / "index.json")
    assert workspace.stage("evaluate", "demo-sentences").code == 0
    for path in Path("outputs/evaluate").iterdir():
        path.unlink()
    damage(folder / "k.validation.safetensors")
    before = workspace.files()
    line = workspace.stage("evaluate", "demo-sentences").error()
    assert all(part in line for part in (*parts, "k.validation.safetensors", "dvc repro")), line
    assert workspace.files() == before


def test_resources_of_an_attack_are_missed_before_training(workspace: Workspace) -> None:
    prepared()
    Path("encoder").mkdir()
    Path("vectors.npz").touch()
    resources = {"word_vectors": "vectors.npz", "sentence_encoder": "encoder"}
    workspace.write_params({"methods": ["single_exit", "joint"], **ATTACKED, "attack.resources": resources})
    line = workspace.stage("finetune").error()
    assert "attack.resources.sentence_encoder: 'encoder' has no config.json" in line
    assert not HERE.trials.exists()


@pytest.mark.parametrize(
    ("stage", "instance", "parts"),
    [
        ("finetune", "", ["data/demo-sentences/manifest.json", "dvc repro prepare@demo-sentences"]),
        ("trace", "demo-sentences", ["data/demo-sentences/manifest.json", "dvc repro prepare@demo-sentences"]),
        ("evaluate", "demo-sentences", ["index.json", "dvc repro trace@demo-sentences"]),
        ("latency", "demo-sentences", ["outputs/evaluate/demo-sentences.json", "dvc repro evaluate@demo-sentences"]),
        ("report", "", ["outputs/", "dvc repro"]),
    ],
)
def test_a_stage_whose_input_is_not_there(workspace: Workspace, stage: str, instance: str, parts: list[str]) -> None:
    line = workspace.stage(stage, instance).error()
    assert all(part in line for part in (*parts, "no such file")), line
    assert workspace.files() == set()


def test_an_attack_whose_input_is_not_there(workspace: Workspace) -> None:
    workspace.write_params({"methods": ["single_exit", "joint"], **ATTACKED})
    line = workspace.stage("attack", "demo-sentences").error()
    assert all(part in line for part in ("outputs/evaluate/demo-sentences.json", "no such file", "dvc repro evaluate@"))
    assert workspace.files() == set()


@pytest.mark.parametrize("content", ["", '{"schema": 1, "tra', '{"schema": 0, "traces": []}', "[]"])
def test_a_result_of_another_schema_or_cut_short(workspace: Workspace, content: str) -> None:
    folder = Path("outputs/traces/demo-sentences")
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(content)
    line = workspace.stage("evaluate", "demo-sentences").error()
    assert all(part in line for part in ("index.json", "dvc repro trace@demo-sentences")), line


# Services


@pytest.mark.slow
def test_nobody_answers_at_the_ray_address(workspace: Workspace) -> None:
    prepared()
    line = workspace.command("-m", "stages.finetune", RAY_ADDRESS="127.0.0.1:1").error()
    assert all(part in line for part in ("no Ray cluster at '127.0.0.1:1'", "ray start --head", "RAY_ADDRESS")), line
    assert not list(HERE.trials.glob("*"))


@pytest.mark.slow
def test_nobody_answers_at_the_mlflow_address(workspace: Workspace) -> None:
    address = "http://ann:hunter2@127.0.0.1:1"
    done = workspace.command("-m", "stages.simulate", MLFLOW_TRACKING_URI=address)
    line = done.error()
    assert all(part in line for part in ("MLflow at http://127.0.0.1:1", "start the server", "MLFLOW_TRACKING_URI"))
    assert "hunter2" not in done.out + done.err
    assert workspace.files() == set()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (
            "./mlruns",
            ["'./mlruns' is a folder", "sqlite:///mlflow.db", "http://host:5000", "unset MLFLOW"],
        ),
        ("file:///tmp/mlruns", ["'file:///tmp/mlruns' is a folder", "unset MLFLOW_TRACKING_URI"]),
        ("mlflow.db", ["'mlflow.db' is a folder", "sqlite:///mlflow.db"]),
        ("localhost:5000", ["'localhost:5000' is no address", "http://host:5000", "unset MLFLOW_TRACKING_URI"]),
        ("ftp://ann:hunter2@host/x", ["'ftp://host/x' is no address", "http://host:5000"]),
        ("sqlite:///folder", ["database folder cannot be used (unable to open", "move the file away"]),
        (
            "sqlite:///params.yaml",
            ["database params.yaml cannot be used (file is not a database)", "move the"],
        ),
        ("sqlite:///params.yaml/x.db", ["params.yaml: File exists; move it away"]),
        (
            "postgresql://ann:hunter2@127.0.0.1:1/x",
            ["MLflow at postgresql://127.0.0.1:1/x", "unset MLFLOW"],
        ),
    ],
)
def test_an_address_that_mlflow_cannot_use(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, address: str, parts: list[str]
) -> None:
    Path("folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    line = workspace.stage("simulate").error()
    assert all(part in line for part in parts), line
    assert "hunter2" not in line
    assert workspace.files() == set()


def test_a_database_of_mlflow_that_is_broken(workspace: Workspace) -> None:
    Path("mlflow.db").write_bytes(b"no database, but as long as the head of one would be" * 40)
    line = workspace.stage("simulate").error()
    assert "MLflow's database" in line
    assert "(file is not a database); make it and its folder writable, free the disk, or move the file away" in line


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("outputs/simulate/simulate.json")

    def write() -> None:
        with exit_with_one_line("simulate"), whole_file(file) as partial:
            partial.symlink_to("/dev/full")
            partial.write_text("x", encoding="utf-8")

    with pytest.raises(SystemExit):
        write()
    line = f"simulate: {file}: No space left on device; free some space, then run it again\n"
    assert capsys.readouterr().err == line
    assert not list(file.parent.iterdir())


@pytest.mark.cluster
@pytest.mark.parametrize("file", [".locks/folder-id", "outputs/simulate/simulate.json"])
def test_a_stage_on_a_full_disk(workspace: Workspace, file: str) -> None:
    """On a disk of one page, which is taken, in a mount namespace."""
    disk = Path(file).parts[0]
    script = (
        f'mkdir -p {disk} && mount -t tmpfs -o size=4k none {disk} && head -c 4096 /dev/zero > {disk}/full; exec "$@"'
    )
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-m",
        "stages.simulate",
    ]
    done = subprocess.run(
        command, cwd=workspace.folder, env=workspace.environment, capture_output=True, text=True, check=False
    )
    line = f"simulate: {file}: No space left on device; free some space, then run it again"
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (1, [line])


@pytest.mark.parametrize("file", [".locks", "outputs", "mlartifacts"])
def test_a_file_where_a_folder_belongs(workspace: Workspace, file: str) -> None:
    Path(file).touch()
    line = workspace.stage("simulate").error()
    assert f"{file}" in line
    assert "; move" in line


def test_a_second_driver_in_one_folder(workspace: Workspace) -> None:
    from filelock import FileLock

    Path(".locks").mkdir()
    with FileLock(".locks/simulate.lock"):
        line = workspace.stage("simulate").error()
    assert "another simulate runs in this folder; wait for it or end it" in line


def test_good_input_is_none_of_this(workspace: Workspace) -> None:
    done = workspace.stage("simulate")
    assert done.code == 0, done.err
    assert workspace.files() == {"outputs/simulate/simulate.json"}
    assert yaml.safe_load(Path("params.yaml").read_text()) == small_params()
