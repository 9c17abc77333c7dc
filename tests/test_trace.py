"""The trace file: what is written is read back, and what the format rules out is refused in one line with its row."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ArtifactError
from pipeline.evaluation.trace import Trace, load_trace, save_trace
from pipeline.identity.imports import ROOT
from pipeline.storage import file_hash
from tests.test_criteria import trace_of


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
    assert hashes == {file_hash(tmp_path / "a")}
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
    ):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ArtifactError, match=message):
            load_trace(path)


COSTS = np.tile(np.arange(1.0, 4), (5, 1))
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "labels_from_one": (
        {"labels": np.array([0.0, 1, 2, 1, 2])},
        r"label 2 of row 12 is no class index 0\.\.1; count classes from 0",
    ),
    "minus_one": (
        {"labels": np.array([-1.0, 1, 1, 1, 1])},
        r"label -1 of row 10 .* write NaN where a label is unknown",
    ),
    "half": ({"labels": np.array([np.nan, 0, 0.5, 1, 1])}, "label 0.5 of row 12 "),
    "label_inf": ({"labels": np.array([np.nan, 0, np.inf, 1, 1])}, "label inf of row 12 "),
    "one_column": ({"logits": np.zeros((5, 3, 1), np.float32)}, "found 1 per exit; write two for a binary task"),
    "no_class": ({"logits": np.zeros((5, 3, 0), np.float32)}, r"logits have shape \(5, 3, 0\); write them as \(rows"),
    "flat": ({"logits": np.zeros((5, 3), np.float32)}, r"logits have shape \(5, 3\); write them as \(rows, exits"),
    "fewer_labels": (
        {"labels": np.zeros(4)},
        r"labels has shape \(4,\), expected \(5,\) beside logits \(5, 3, 2\)",
    ),
    "descending": (
        {"layers": np.array([3.0, 2, 1])},
        r"layers \[3.0, 2.0, 1.0\] do not ascend .* the earliest exit first",
    ),
    "layers_nan": ({"layers": np.array([1.0, np.nan, 3])}, "nan, 3.0] do not ascend"),
    "endless": ({"layers": np.array([1.0, 2, np.inf])}, "inf] do not ascend from a number above 0"),
    "layers_zero": ({"layers": np.zeros(3)}, "from a number above 0"),
    "layers_from_zero": ({"layers": np.arange(3.0)}, r"layers \[0.0, 1.0, 2.0\] .* counted from 1"),
    "full_layers": ({"full_layers": np.array(0.0)}, "full_layers 0 is not above 0; write"),
    "full_layers_nan": ({"full_layers": np.array(np.nan)}, "full_layers nan is not above 0"),
    "full_layers_shape": (
        {"full_layers": np.array([12.0])},
        r"full_layers has shape \(1,\), expected \(\); write one",
    ),
    "cost_zero": (
        {"flops": COSTS - [1, 0, 0]},
        "flops of row 10 at exit 1 are 0, which is no cost; write costs in any unit",
    ),
    "cost_negative": ({"flops": -COSTS}, "flops of row 10 at exit 1 are -1"),
    "cost_nan": ({"flops": np.where(COSTS == 2, np.nan, COSTS)}, "flops of row 10 at exit 2 are nan"),
    "cost_inf": ({"flops": np.where(COSTS == 3, np.inf, COSTS)}, "flops of row 10 at exit 3 are inf"),
    "cost_overflows": ({"flops": COSTS * 5e307}, "flops of row 10 at exit 1 are "),
    "cost_falls": ({"flops": COSTS[:, [0, 2, 1]]}, "flops of row 10 fall from 3 at exit 2 to 2 at exit 3; write costs"),
    "full_cost_zero": ({"full_flops": np.array([3.0, 3, 0, 3, 3])}, "full_flops of row 12 are 0, which is no cost"),
    "full_cost_inf": ({"full_flops": np.full(5, np.inf)}, "full_flops of row 10 are inf"),
    "last_cost": ({"last_flops": np.array([3.0, -3, 3, 3, 3])}, "last_flops of row 11 are -3, which is no cost"),
    "last_cost_shape": ({"last_flops": np.ones((5, 1))}, r"last_flops has shape \(5, 1\), expected \(5,\)"),
    "row_half": (
        {"row_ids": np.arange(5) + 0.5},
        r"row_ids\[0\] is 0.5, which is no whole number .* write a whole number",
    ),
    "row_nan": ({"row_ids": np.array([0, 1, np.nan, 3, 4])}, r"row_ids\[2\] is nan, which is no whole number"),
    "row_twice": ({"row_ids": np.array([7, 8, 9, 8, 7])}, r"row_ids\[0\] and row_ids\[4\] are both 7; write"),
    "row_beyond": ({"row_ids": np.array([0, 1, 2, 3, 2**64 - 1], np.uint64)}, r"row_ids\[4\] is 18446744073709551615"),
    "names_null": ({"label_names": "null"}, "label_names None is no list of strings; write one name per class"),
    "names_number": ({"label_names": "3"}, "label_names 3 is no list of strings"),
    "names_text": ({"label_names": '"ab"'}, "label_names 'ab' is no list of strings"),
    "names_numbers": ({"label_names": "[0, 1]"}, r"label_names \(0, 1\) is no list of strings"),
    "names_three": ({"label_names": '["a", "b", "c"]'}, "label_names has 3 names for 2 outputs; write one per class"),
    "names_no_json": ({"label_names": "a, b"}, "label_names of the metadata is no JSON .* write it with json.dumps"),
    "provenance_cut": ({"provenance": "{"}, "provenance of the metadata is no JSON"),
    "names_deep": ({"label_names": "[" * 100_000}, "label_names of the metadata is no JSON"),
    "provenance_list": ({"provenance": "[1]"}, r"provenance \[1\] is no mapping; write a JSON object"),
    "provenance_null": ({"provenance": "null"}, "provenance None is no mapping"),
    "kind": ({"kind": "classify"}, "kind 'classify' is neither classification nor regression; write one of them"),
    "regression_of_two": ({"kind": "regression"}, "regression needs one output per exit, found 2; write one"),
    "channel": ({"channel.lte": np.zeros((5, 2))}, r"channel 'lte' has shape \(5, 2\), .*; write a value, or k values"),
}
"""Tensors and metadata in place of sound ones, and what the one line says."""


def write_trace(path: Path, changed: dict[str, Any]) -> None:
    """A small sound file with some of its tensors and metadata replaced."""
    from safetensors.numpy import save_file

    trace = trace_of(np.zeros((5, 3, 2)))
    sound = {n: getattr(trace, n) for n in ("logits", "labels", "layers", "flops", "full_flops")}
    parts = {**sound, "row_ids": np.arange(10, 15), "schema": "early-exit-trace/1", "kind": "classification", **changed}
    tensors = {name: np.ascontiguousarray(part) for name, part in parts.items() if isinstance(part, np.ndarray)}
    tensors = {name: part.reshape(np.shape(parts[name])) for name, part in tensors.items()}
    save_file(tensors, path, metadata={name: part for name, part in parts.items() if isinstance(part, str)})


@pytest.mark.parametrize("name", FAULTS)
def test_values_that_the_format_rules_out_are_refused(name: str, tmp_path: Path) -> None:
    changed, message = FAULTS[name]
    path = tmp_path / "t.safetensors"
    write_trace(path, changed)
    with pytest.raises(ArtifactError, match=message) as refused:
        load_trace(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    assert "dvc repro" not in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": np.array([np.nan, 0, 1, 1, 1]), "layers": np.array([1.0, 1, 2])},
        {"flops": np.ones((5, 3)), "full_flops": np.full(5, 0.5)},
        {
            "flops": np.tile(np.arange(1, 4, dtype=np.uint64), (5, 1)),
            "labels": np.array([True, False, True, True, True]),
        },
        {"row_ids": np.array([-3, 2**62, 5, 0, 1])},
        {"row_ids": np.array([4.0, 3, 2, 1, 0])},
        {"label_names": "[]", "provenance": "{}"},
        {"label_names": '["no", "yes"]', "last_flops": np.full(5, 2.5), "full_layers": np.array(12.0)},
        {
            "labels": np.array([1.5, -2, np.nan, 0, 1e30]),
            "kind": "regression",
            "logits": np.zeros((5, 3, 1), np.float32),
        },
        {"unknown": np.zeros(2)},
    ],
    ids=["ties", "equal_costs", "types", "ids", "float_ids", "empty", "all", "regression", "newer"],
)
def test_what_is_unusual_and_sound_is_read(changed: dict[str, Any], tmp_path: Path) -> None:
    write_trace(tmp_path / "t.safetensors", changed)
    trace = load_trace(tmp_path / "t.safetensors")
    save_trace(trace, tmp_path / "again.safetensors")
    again = load_trace(tmp_path / "again.safetensors")
    assert (trace.row_ids.dtype, trace.flops.dtype, trace.labels.dtype) == (np.int64, np.float64, np.float64)
    assert (again.label_names, again.full_layers) == (trace.label_names, trace.full_layers)
    np.testing.assert_array_equal(again.last_cost, trace.last_cost)
    np.testing.assert_array_equal(again.row_ids, trace.row_ids)


@pytest.mark.parametrize("name", ["logits", "channel.lte", "full_layers", "last_flops"])
def test_numbers_that_numpy_lacks_are_refused(name: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    trace = trace_of(np.zeros((5, 3, 2)))
    names = ("logits", "labels", "row_ids", "layers", "flops", "full_flops")
    tensors = {n: torch.from_numpy(getattr(trace, n)) for n in names} | {"channel.lte": torch.zeros(5, 3)}
    tensors |= {"full_layers": torch.tensor(3.0), "last_flops": torch.ones(5)}
    path = tmp_path / "t.safetensors"
    tensors[name] = tensors[name].bfloat16()
    save_file(tensors, path, metadata={"schema": "early-exit-trace/1", "kind": "classification"})
    with pytest.raises(ArtifactError, match=f"tensor '{name}' holds BF16, not F32; write it as float32"):
        load_trace(path)
