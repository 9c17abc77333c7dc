"""The identity of weights and of data: their content, whatever holds it."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pipeline.errors import DataError
from pipeline.identity.imports import ROOT
from pipeline.models.weights import weights_identity
from pipeline.tasks.content import array_content_hash, data_identity, table_content_hash
from tests.workspace import NO_NETWORK

CONFIG = {
    "model_type": "bert",
    "hidden_size": 4,
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-12,
    "_name_or_path": "here",
}


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "embeddings.weight": rng.normal(size=(5, 4)).astype(np.float32),
        "encoder.layer.0.weight": rng.normal(size=(4, 4)).astype(np.float16),
        "encoder.layer.0.bias": np.zeros(4, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }


def save_model(folder: Path, config: dict[str, Any] = CONFIG, **changed: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors() | changed, folder / "model.safetensors", metadata={"format": "pt", "from": folder.name})
    return folder


@pytest.fixture
def hash_of(tmp_path: Path) -> Callable[..., str]:
    """The identity of a model, with a cache of its own."""
    return lambda name, mirror=None: weights_identity(str(name), mirror, tmp_path / "runs/weights.json")


def test_the_same_weights_are_the_same_wherever_they_lie(tmp_path: Path, hash_of: Callable[..., str]) -> None:
    one = hash_of(save_model(tmp_path / "one"))
    assert hash_of(save_model(tmp_path / "mirror/models/org/other-name")) == one
    assert hash_of("org/other-name", tmp_path / "mirror") == one
    sharded = save_model(tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    every = tensors()
    shards = {"b.safetensors": list(every)[:1], "a.safetensors": list(every)[1:]}
    for file, names in shards.items():
        save_file({name: every[name] for name in names}, sharded / file)
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert hash_of(sharded) == one
    named = {
        **CONFIG,
        "_name_or_path": "there",
        "architectures": ["X"],
        "transformers_version": "9",
        "torch_dtype": "x",
    }
    assert hash_of(save_model(tmp_path / "named", named | {"id2label": {"0": "a"}, "unset": None})) == one


OTHER = tensors()["encoder.layer.0.bias"].copy()
OTHER[3] = 1e-7
CHANGED: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {
    "a value": (CONFIG, {"encoder.layer.0.bias": OTHER}),
    "a shape": (CONFIG, {"encoder.layer.0.bias": np.zeros((1, 4), np.float32)}),
    "a type": (CONFIG, {"encoder.layer.0.bias": np.zeros(4, np.int32)}),
    "a further tensor": (CONFIG, {"more": np.zeros(1)}),
    "the activation": (CONFIG | {"hidden_act": "relu"}, {}),
    "dropout": (CONFIG | {"hidden_dropout_prob": 0.2}, {}),
    "the normalisation": (CONFIG | {"layer_norm_eps": 1e-5}, {}),
}


@pytest.mark.parametrize("what", CHANGED)
def test_other_weights_are_others(tmp_path: Path, hash_of: Callable[..., str], what: str) -> None:
    config, changed = CHANGED[what]
    one, other = save_model(tmp_path / "one"), save_model(tmp_path / "other", config, **changed)
    assert hash_of(one) != hash_of(other)


PICKLE = b"cos\nsystem\n(S'touch opened'\ntR."
REMEDY = r"has no safetensors .*, and pickled weights are never opened; if you trust them, convert them once"
"""The command behind it is run in tests/test_elasticbert.py."""


def pickled(folder: Path, shards: str) -> Path:
    """A model whose weights are pickled: in one file, in shards, or in shards that an index of safetensors names."""
    save_model(folder)
    (folder / "model.safetensors").unlink()
    if shards:
        (folder / "pytorch_model-00001-of-00001.bin").write_bytes(PICKLE)
        index = {"weight_map": {"encoder.layer.0.weight": "pytorch_model-00001-of-00001.bin"}}
        (folder / f"{shards}.index.json").write_text(json.dumps(index), encoding="utf-8")
    else:
        (folder / "pytorch_model.bin").write_bytes(PICKLE)
    return folder


@pytest.mark.parametrize("shards", ["", "pytorch_model.bin", "model.safetensors"])
def test_pickled_weights_are_refused_and_not_opened(
    tmp_path: Path, hash_of: Callable[..., str], shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.names import BackboneSpec

    monkeypatch.chdir(tmp_path)
    folder = pickled(tmp_path / "models/org/tiny", shards)
    for name, mirror in ((str(folder), None), ("org/tiny", tmp_path)):
        with pytest.raises(DataError, match=f"^backbones: '{name}' {REMEDY}"):
            hash_of(name, mirror)
        with pytest.raises(DataError, match=f"^backbones: '{name}' {REMEDY}"):
            build_encoder(BackboneSpec("mine", name), mirror=mirror)
    assert not Path("opened").exists()


def test_safetensors_are_read_where_pickles_lie_beside_them(tmp_path: Path, hash_of: Callable[..., str]) -> None:
    both = save_model(tmp_path / "both")
    (both / "pytorch_model.bin").write_bytes(PICKLE)
    assert hash_of(both) == hash_of(save_model(tmp_path / "plain"))


def test_weights_are_read_again_only_when_a_file_changed(tmp_path: Path, hash_of: Callable[..., str]) -> None:
    folder, other = save_model(tmp_path / "one"), save_model(tmp_path / "two", **{"encoder.layer.0.bias": OTHER})
    file, cache = folder / "model.safetensors", tmp_path / "runs/weights.json"
    before = hash_of(folder)
    stored = cache.read_text(encoding="utf-8")
    assert hash_of(folder) == before
    assert cache.read_text(encoding="utf-8") == stored
    # The cache is believed: it is what answers.
    (known,) = json.loads(stored)["hashes"].values()
    cache.write_text(stored.replace(known, "0" * 16), encoding="utf-8")
    assert hash_of(folder) != before
    cache.write_text(stored, encoding="utf-8")
    # Same size, same time, other content: cp -p over it.
    times = file.stat()
    file.write_bytes((other / "model.safetensors").read_bytes().replace(b"two", b"one"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert hash_of(folder) == hash_of(other) != before
    cache.write_text("{", encoding="utf-8")  # cut short: written anew
    assert hash_of(folder) == hash_of(other)


def test_a_hub_name_is_looked_up_in_the_library_s_cache(tmp_path: Path, hash_of: Callable[..., str]) -> None:
    model = save_model(tmp_path / "plain")
    repository = tmp_path / "hf/hub/models--org--tiny"
    shutil.copytree(model, repository / "snapshots/0123abc")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123abc", encoding="utf-8")
    code = (
        "from pathlib import Path; from pipeline.models.weights import weights_identity; import sys\n"
        "print(weights_identity('org/tiny', None, Path('w.json')))\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    environment = os.environ | NO_NETWORK | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hash_of(model)


class Hub(BaseHTTPRequestHandler):
    """A model hub that has the files of a folder."""

    folder: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        _, _, name = self.path.partition("/resolve/main/")
        content = (self.folder / name).read_bytes() if name and (self.folder / name).is_file() else b""
        self.send_response(200 if content or not name else 404)
        headers = {"Content-Length": str(len(content)), "X-Repo-Commit": "0" * 40, "ETag": f'"{len(content)}"'}
        for key, value in (headers | ({} if content else {"X-Error-Code": "EntryNotFound"})).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    handler = type("Here", (Hub,), {"folder": tmp_path / "served"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("kept", ["shards", "pickle", "nothing"])
def test_a_hub_without_a_single_file(tmp_path: Path, hash_of: Callable[..., str], hub: str, kept: str) -> None:
    """Its shards are found; pickles are refused, and not even downloaded; a silent hub is not accused of them."""
    folder, plain = pickled(tmp_path / "served", ""), save_model(tmp_path / "plain")
    if kept == "shards":
        shutil.copy(plain / "model.safetensors", folder / "part.safetensors")
        index = {"weight_map": dict.fromkeys(tensors(), "part.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    code = (
        "from pathlib import Path; from pipeline.models.weights import weights_identity\n"
        "from pipeline.errors import exit_with_one_line\n"
        "with exit_with_one_line(): print(weights_identity('org/tiny', None, Path('w.json')))"
    )
    environment = os.environ | NO_NETWORK | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    environment |= {} if kept == "nothing" else {"HF_ENDPOINT": hub}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    if kept == "shards":
        assert done.stdout.strip() == hash_of(plain), done.stderr
        return
    (line,) = done.stderr.splitlines()
    expected = (
        REMEDY if kept == "pickle" else r"backbones: no weights of 'org/tiny' \(.*\); check the name and the netw"
    )
    assert re.search(expected, line), line
    assert not [path for path in (tmp_path / "hf").rglob("*") if "bin" in path.name]


def test_weights_that_are_not_there_or_not_readable_are_one_line(tmp_path: Path, hash_of: Callable[..., str]) -> None:
    folder = save_model(tmp_path / "one")
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (whole[:-8], whole[:20], b"", struct.pack("<Q", 2) + b"[]"):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match=rf"^backbones: no weights of '{folder}' \(.+\); check the name"):
            hash_of(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"has no safetensors .*, and no pickled .* either; put its weights into '.*'$"):
        hash_of(folder)


# Data


def table(rows: int = 7) -> pa.Table:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 100, n).tolist() for n in rng.integers(0, 5, rows)]
    return pa.table(
        {
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "label": pa.array([*range(rows - 2), None, float("nan")], pa.float64()),
            "text": pa.array([f"row {i} é" for i in range(rows - 1)] + [None], pa.string()),
            "flag": pa.array([i % 3 == 0 for i in range(rows)]),
            "group": pa.array(["a", "b", "a", None, "b", "a", "c"][:rows]),
        }
    )


def test_a_table_s_container_makes_no_difference(tmp_path: Path) -> None:
    whole, expected = table(), table_content_hash(table())
    pyarrow.parquet.write_table(whole, tmp_path / "t.parquet", row_group_size=2, compression="gzip")
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        for batch in whole.to_batches(max_chunksize=3):
            writer.write_batch(batch)
    padded = pa.concat_tables([table().slice(5), whole, table().slice(2)]).slice(2, 7)
    large = {"input_ids": pa.large_list(pa.int32()), "text": pa.large_string()}
    wide = whole.cast(pa.schema([pa.field(f.name, large.get(f.name, f.type)) for f in whole.schema]))
    coded = whole.set_column(4, "group", whole["group"].dictionary_encode())
    others = {
        "Parquet": pyarrow.parquet.read_table(tmp_path / "t.parquet"),
        "Arrow": pa.ipc.open_file(pa.memory_map(str(tmp_path / "t.arrow"))).read_all(),
        "a slice": padded,
        "64 bits for offsets": wide,
        "a dictionary": coded,
        "metadata": whole.replace_schema_metadata({"made": "today"}),
        "columns in another order": whole.select(whole.column_names[::-1]),
        "what lies under a null": whole.set_column(1, "label", under_a_null(whole["label"])),
    }
    assert {name: table_content_hash(other) for name, other in others.items()} == dict.fromkeys(others, expected)


def under_a_null(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    values = np.frombuffer(array.buffers()[1], np.float64).copy()
    values[5] = 17.0
    return pa.Array.from_buffers(array.type, len(array), [array.buffers()[0], pa.py_buffer(values)])


def test_a_table_s_content_makes_all_the_difference() -> None:
    whole = table()
    ids = whole["input_ids"].to_pylist()
    at = next(i for i, row in enumerate(ids) if len(row) > 1)
    moved = [*ids]
    moved[at : at + 2] = [ids[at][:-1], [ids[at][-1], *ids[at + 1]]]  # the same numbers, cut elsewhere
    empty_for_null = [row if row is not None else "" for row in whole["text"].to_pylist()]
    others = [
        whole.take([1, 0, 2, 3, 4, 5, 6]),
        whole.slice(1),
        whole.rename_columns(["ids", *whole.column_names[1:]]),
        whole.set_column(0, "input_ids", pa.array(moved, pa.list_(pa.int32()))),
        whole.set_column(0, "input_ids", pa.array(ids, pa.list_(pa.int64()))),
        whole.set_column(1, "label", pa.array([*range(5), 0.0, float("nan")])),
        whole.set_column(2, "text", pa.array(empty_for_null)),
        whole.set_column(2, "text", whole["text"].cast(pa.binary())),
        whole.set_column(3, "flag", pa.array([True] * 7)),
        whole.drop_columns(["flag"]),
    ]
    hashes = [table_content_hash(other) for other in [whole, *others]]
    assert len(set(hashes)) == len(hashes)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=3)), max_size=6),
    st.data(),
)
def test_two_tables_have_one_hash_if_and_only_if_they_are_equal(rows: list[Any], data: st.DataObject) -> None:
    kind = pa.list_(pa.string())
    cut = data.draw(st.integers(0, len(rows)))
    parts = pa.chunked_array([pa.array(rows[:cut], kind), pa.array(rows[cut:], kind)])
    assert table_content_hash(pa.table({"x": parts})) == table_content_hash(pa.table({"x": pa.array(rows, kind)}))
    other = data.draw(st.permutations(rows))
    same = table_content_hash(pa.table({"x": pa.array(other, kind)})) == table_content_hash(pa.table({"x": parts}))
    assert same == (list(other) == rows)


def test_arrays_are_their_names_types_shapes_and_values(tmp_path: Path) -> None:
    images = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    labels = np.arange(4)
    expected = array_content_hash({"images": images, "labels": labels})
    np.save(tmp_path / "images.npy", images)
    same = [
        {"labels": labels, "images": np.load(tmp_path / "images.npy", mmap_mode="r")},
        {"images": np.asfortranarray(images), "labels": labels.astype(">i8")},
        {"images": np.repeat(images, 2, axis=0)[::2], "labels": labels},
    ]
    assert {array_content_hash(arrays) for arrays in same} == {expected}
    others = [
        {"images": images.reshape(4, 2, 6), "labels": labels},
        {"images": images.astype(np.int16), "labels": labels},
        {"images": images[::-1], "labels": labels},
        {"pixels": images, "labels": labels},
    ]
    hashes = {expected, *map(array_content_hash, others)}
    assert len(hashes) == 5
    with pytest.raises(TypeError, match="an array of object"):
        array_content_hash({"x": np.array([None])})


def test_a_trial_depends_on_the_rows_that_it_learns_from_alone() -> None:
    splits = {name: table().append_column("row_id", pa.array(range(7))) for name in ("train", "selection", "test")}
    expected = data_identity(splits)
    moved = splits["train"].set_column(5, "row_id", pa.array(range(7, 14)))
    assert data_identity(splits | {"train": moved, "test": moved.slice(2)}) == expected
    for name in ("train", "selection"):
        assert data_identity(splits | {name: splits[name].slice(1)}) != expected
    arrays = {
        name: {"images": np.zeros(3), "labels": np.ones(3), "rows": np.arange(3)} for name in ("train", "selection")
    }
    again = {name: parts | {"rows": np.arange(3, 6)} for name, parts in arrays.items()}
    assert data_identity(arrays) == data_identity(again)
    assert data_identity(arrays) != data_identity(arrays | {"train": arrays["train"] | {"labels": np.zeros(3)}})
