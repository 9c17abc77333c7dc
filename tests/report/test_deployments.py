"""The sentence on what to ship, out of timed deployments."""

from dataclasses import replace

import pytest

from pipeline.layout import Workspace
from pipeline.report.collect import collect
from pipeline.report.sections.latency import Latency
from pipeline.report.stored import Stored
from pipeline.results import LatencyRow
from tests.report.pages import small
from tests.stored_results import write_all

MS = {("pytorch", "float32"): 4.0, ("onnx", "float32"): 2.0, ("onnx", "int8"): 1.0}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    workspace, params = Workspace(tmp_path_factory.mktemp("timed")), small("albert-base", ("sst2",))
    write_all(workspace, params)
    return collect(params, workspace)


def shipped(stored: Stored, score: float, exact: bool) -> list[str]:
    """The sentence where the int8 model with all layers has this score.

    Args:
        exact: whether repeats are alike; otherwise each deployment varies by more than early exit gains.
    """
    (task,) = stored.tasks
    assert task.latency is not None
    rows = []
    for row in task.latency.rows:
        for (engine, precision), ms in MS.items():
            took = ms / row.own_layer_speedup
            early = row.point.criterion is not None
            values = (took, took, took) if exact or early else (took, took, 0.5 * took)
            own = {"engine": engine, "precision": precision, "ms_per_example": took, "repeats_ms": values}
            own["score"] = score if precision == "int8" and not early else 0.8
            rows.append(LatencyRow.model_validate({**dict(row), **own}))
    measured = task.latency.model_copy(update={"rows": tuple(rows)})
    timed = replace(stored, tasks=(replace(task, latency=measured),))
    found = Latency().findings(timed)
    assert Latency().plots(timed)
    (table,) = (one for one in Latency().tables(timed) if one.slug == "shipping")
    settings = [tuple(cell.text.replace("\xa0", " ") for cell in row.cells[1:3]) for row in table.rows]
    assert settings == [("batch 1", "1"), ("batch 32", "1"), ("batch 1", "2"), ("batch 32", "2")]
    early = {row.cells[8].text for row in table.rows}
    assert early == ({"yes"} if exact and score <= 0.8 else {"no"} if exact else {"not told"})
    return [one.text for one in found if one.subject.startswith("What to ship")]


def test_one_engine_has_no_sentence_on_what_to_ship(stored: Stored) -> None:
    assert not [one for one in Latency().findings(stored) if one.subject.startswith("What to ship")]


def test_the_fastest_deployment_and_whether_early_exit_is_part_of_it(stored: Stored) -> None:
    (text,) = shipped(stored, 0.8, exact=True)
    assert "within 0.5 points of the best score is confidence of albert-base, joint in ONNX Runtime, int8 (0.5" in text
    assert text.startswith("Of 9 deployments timed one row at a time on 1 thread, the fastest within")
    assert "; early exit is part of it. In 3 of 3 other settings of batch and threads" in text
    assert "by its median" not in text


def test_a_faster_one_that_scores_less_is_named_as_such(stored: Stored) -> None:
    (text,) = shipped(stored, 0.9, exact=True)
    assert "the fastest by its median is confidence of albert-base, joint in ONNX Runtime, int8 (0.5" in text
    assert "within 0.5 points of the best score is all layers of albert-base, joint in ONNX Runtime, int8 (1.0" in text
    assert "; early exit is not part of it. In 0 of 3 other settings" in text


def test_what_the_repeats_do_not_tell_apart_is_said(stored: Stored) -> None:
    (text,) = shipped(stored, 0.8, exact=False)
    assert "not told apart by the repeats from all layers of albert-base, joint in ONNX Runtime, int8" in text
    assert "whether early exit is part of it, these repeats do not tell. In 0 of 3 other settings" in text
    assert text.endswith("is part of the best, and the repeats do not tell in 3.")


def test_the_roof_stands_beside_what_engines_reach(stored: Stored) -> None:
    tables = {table.slug: table for table in Latency().tables(stored)}
    assert "shipping" not in tables, "one engine"
    rate = tables["matrix-rate"]
    assert rate.columns[-2:] == ("float32, 1e9/s", "Reached: PyTorch, float32")
    assert [tuple(cell.text for cell in row.cells[3:]) for row in rate.rows] == [
        (threads, "24", f"{threads}00", "62%") for threads in "1122"
    ]
    (memory,) = tables["memory"].rows
    assert [cell.text for cell in memory.cells[2:]] == ["PyTorch, float32", "32", "450", "300"]
