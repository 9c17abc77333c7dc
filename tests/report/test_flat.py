"""The flat files behind DVC's own views say what the stored results say."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.criteria import CRITERIA
from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.flat import ALL_TASKS, headlines, operating_points, tables
from pipeline.report.stored import Stored
from tests.report.pages import CUT
from tests.stored_results import params_for, write_all


def stored_of(root: Path, tasks: dict[str, Any], **changes: Any) -> Stored:
    params = params_for(tasks, "albert-base", **changes)
    write_all(Workspace(root), params)
    return collect(params, Workspace(root))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored_of(tmp_path_factory.mktemp("results"), {"mnli": {}, "mrpc": CUT, "stsb": {}, "cifar10": {}})


def test_a_headline_is_a_row_of_the_task_and_the_full_model_beside_it(stored: Stored) -> None:
    files = {name: json.loads(text) for name, text in headlines(stored).items()}
    assert set(files) == {f"{name}.json" for name in ("mnli", "mrpc", "stsb", "cifar10", ALL_TASKS)}
    for task in stored.tasks:
        numbers = files[f"{task.name}.json"]
        assert list(numbers) == ["score", "low", "high", "speedup", "all_layers", "learned", "by"]
        assert numbers["learned"] == 1.0
        words = numbers["by"].split()
        rows = [row for row in task.rows if row.split == task.splits[0] and row.method in words]
        (row,) = [row for row in rows if row.criterion in words]
        (full,) = [row for row in rows if row.criterion is None]
        assert (numbers["score"], numbers["low"], numbers["high"]) == (row.score.median, row.score.low, row.score.high)
        assert (numbers["speedup"], numbers["all_layers"]) == (row.layer_speedup.median, full.score.median)
        assert row.criterion is not None
        assert CRITERIA[row.criterion].causal
        early = [other for other in task.rows if other.criterion and CRITERIA[other.criterion].causal]
        assert row.in_window or not any(other.in_window for other in early if other.split == task.splits[0])
    means = files[f"{ALL_TASKS}.json"]
    scores = [files[f"{task.name}.json"]["score"] for task in stored.tasks]
    assert means["mean_score"] == pytest.approx(sum(scores) / 4, abs=1e-6)
    assert sorted(headlines(stored))[0] == f"{ALL_TASKS}.json", "its columns are the first of `dvc exp show`"


def test_one_task_has_no_means_and_no_early_exit_has_the_full_model(tmp_path: Path) -> None:
    alone = stored_of(tmp_path, {"sst2": {}}, methods=["single_exit"])
    (text,) = headlines(alone).values()
    (row,) = alone.tasks[0].rows
    assert json.loads(text)["score"] == row.score.median
    assert json.loads(text)["learned"] == 1.0
    assert tables(alone) == {}


def test_a_headline_says_on_which_share_of_the_seeds_the_model_has_learned(stored: Stored) -> None:
    for name, seeds, share in (("mrpc", (2,), 0.666667), ("mrpc", (1, 2, 3), 0.0), ("stsb", (1, 3), 0.333333)):
        task = next(task for task in stored.tasks if task.name == name)
        method = json.loads(headlines(stored)[f"{name}.json"])["by"].split()[0]
        models = tuple(
            model.model_copy(update={"constant": model.constant.model_copy(update={"p": 0.05})})
            if (model.method, model.seed in seeds) == (method, True)
            else model
            for model in task.evaluated.diagnosis
        )
        changed = replace(task, evaluated=task.evaluated.model_copy(update={"diagnosis": models}))
        (text,) = headlines(replace(stored, tasks=(changed,))).values()
        assert json.loads(text)["learned"] == share


def test_every_row_is_an_operating_point(stored: Stored) -> None:
    files = operating_points(stored)
    assert len(files) == sum(len(task.rows) for task in stored.tasks)
    row = next(row for row in stored.tasks[0].rows if row.criterion == "patience" and row.split == "mismatched")
    numbers = json.loads(files[f"mnli/mismatched/{row.backbone}/{row.method}/patience.json"])
    assert numbers == {
        "score": row.score.median, "low": row.score.low, "high": row.score.high, "speedup": row.layer_speedup.median,
    }  # fmt: skip


def test_tables_hold_the_stored_curves(stored: Stored) -> None:
    files = {name: list(csv.DictReader(io.StringIO(text))) for name, text in tables(stored).items()}
    assert {name.partition("/")[0] for name in files} == {"speed", "exits", "patience"}
    (task,) = [task for task in stored.tasks if task.name == "mrpc"]
    lines = {(row["model"], row["criterion"]) for row in files["speed/mrpc.csv"]}
    methods = {entry.method for entry in task.evaluated.exits if len(entry.layers) > 1}
    names = {curve.criterion for curve in task.curves}
    assert lines == {(method, name) for method in methods for name in {*names, "fixed exit"}}
    # At speed-up 1 every criterion is the full model.
    (full,) = [row for row in task.rows if row.criterion is None and row.method == "joint"]
    first = [row for row in files["speed/mrpc.csv"] if row["model"] == "joint" and float(row["speedup"]) == 1.0]
    assert {float(row["score"]) for row in first} == {full.score.median}
    exits = [row for row in files["exits/mrpc.csv"] if row["model"] == "joint"]
    assert float(exits[-1]["score"]) == full.score.median
    patience = [row for row in files["patience/mrpc.csv"] if row["model"] == "joint"]
    speeds = [float(row["speedup"]) for row in patience]
    assert [int(row["patience"]) for row in patience] == list(range(len(patience)))
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] == 12.0
    assert {row["model"].split()[-1] for row in files["exits/mnli.csv"]} == {"matched", "mismatched"}
