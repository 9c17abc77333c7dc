"""Mutated params.yaml files: single settings of every profile, replaced, removed, renamed, added; and mutated text."""

import contextlib
import copy
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.params import Params, load_params
from pipeline.running.tracked import stage_settings
from pipeline.storage import read_yaml
from tools.fuzz.bytes import mutated
from tools.fuzz.outcome import Tally

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 2**31, 2**32, 2**63, 10**12, 10**40, 0.0, -0.5, 0.5, 1.0, 1.5, 1e-9, 1e308,
    float("inf"), float("-inf"), float("nan"), "", " ", "no", "yes", "1", "1e-5", "010", "1:30", "..", "../up", "/",
    "a;b", "a b", "ä", "\0", "\n", "x" * 100_000, "-x", "${tasks}", "%s", [], [[]], [None], [1, 1], ["a"], ["a", "a"],
    [0.5],
    [True], {}, {"a": 1}, {"": {}}, {"a": {"b": []}}, {1: 2}, [2.0, 1.0], [1.0, 2.0, 3.0], "2020-01-01",
)  # fmt: skip
OWN = {
    "source": {"train": "rows.csv", "report": {"held": "rows.csv"}, "test": {"new": "rows.csv"}},
    "text": ["sentence"],
    "label": "label",
    "label_names": ["bad", "good"],
    "metrics": ["accuracy"],
    "test": True,
    "drop_label": -1,
    "rows": {"train": 4, "selection": 2, "report": 2, "seed": 1},
    "max_length": 32,
}


def bases() -> Iterator[tuple[str, dict[str, Any]]]:
    """The profiles, and one with every setting of own data and of the blocks that they leave out."""
    for path in sorted((ROOT / "profiles").glob("*.yaml")):
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(raw["attack"]["resources"], dict):  # paths that are not below the fuzzer's folder
            raw["attack"]["resources"] = "stock"
        yield path.stem, raw
    runtime: dict[str, Any] = {
        "workers": 1,
        "threads": 1,
        "gpus_per_trial": 0.5,
        "gpu_memory": 8.0,
        "device": "cpu",
        "retries": 1,
    }
    runtime |= {"ray_address": None, "tracking_uri": None, "hub_mirror": None, "progress": False}
    hub: dict[str, Any] = {"source": {"hub": "a/b", "config": "c", "train": "t", "report": {"v": "v"}, "test": {}}}
    hub |= {"text": ["a", "b"], "label": "l", "kind": "regression", "metrics": ["pearson"]}
    files = {"train": "rows.csv", "report": {"v": "rows.csv"}}
    image = {"source": files, "image": "i", "label": "l", "label_names": ["a", "b"]}
    yield (
        "own",
        {
            "tasks": {"own": OWN, "hub": hub, "picture": image},
            "backbones": {
                "minilm": {"pooling": "first", "layers": 2, "dropout": 0.1},
                "mine": {"hub": "x/y"},
                "resnet8": {"width": 4, "exits": "six"},
            },
            "methods": ["single_exit", "joint"],
            "evaluate": {
                "criteria": {"patience": {"tau": 0.5}, "confidence": {}},
                "choose": {"rule": "risk", "epsilon": 0.02, "delta": 0.1, "loss": "gap", "tolerance": 0.5},
            },
            "attack": {
                "tasks": {"own": {"examples": 3, "source": {"hub": "a/b"}, "text": ["t"]}},
                "criteria": ["confidence"],
                "resources": {
                    "nltk_data": "n",
                    "word_vectors": "w",
                    "sentence_encoder": "s",
                    "sentence_threshold": 0.5,
                },
                "max_queries": 10,
            },
            "runtime": runtime,
        },
    )


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all settings in a file, blocks included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        yield (*at, key)
        yield from places(entry, (*at, key))


Change = tuple[str, tuple[Any, ...], Any]
"""What is done to a file (set, remove, rename, double), where, and with which value."""


def changes(raw: dict[str, Any]) -> Iterator[Change]:
    """Every change of one setting of a file."""
    for place in places(raw):
        yield from (("set", place, value) for value in VALUES)
        yield "remove", place, None
        key = place[-1]
        if isinstance(key, str):
            yield from (("rename", place, other) for other in (key[:-1], key[1:] + key[:1], key.upper(), "", "a/b", 3))
        else:
            yield "double", place, None


def changed(raw: dict[str, Any], change: Change) -> dict[str, Any]:
    """The file after a change."""
    kind, place, value = change
    out = copy.deepcopy(raw)
    holder = _holder(out, place)
    if kind == "set":
        holder[place[-1]] = copy.deepcopy(value)
        return out
    taken = holder.pop(place[-1])
    if kind == "rename":
        holder[value] = taken
    elif kind == "double":
        holder += [taken, taken]
    return out


def _holder(raw: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        raw = raw[key]
    return raw


def _differs(path: Path, place: tuple[Any, ...], params: Params) -> str | None:
    """How the value at a place differs from what was read; one that its block's type coerced is a silent change."""
    given = read_yaml(path)
    read: Any = params.model_dump(mode="json")
    for key in place:
        try:
            read = read[key] if isinstance(read, (dict, list)) else None
        except (KeyError, IndexError, TypeError):
            return f"{key!r} is not in what was read"
    value = _holder(given, place)[place[-1]]
    return None if _same(value, read) else f"{value!r} was read as {read!r}"


def _same(given: Any, read: Any) -> bool:
    if isinstance(given, dict):  # defaults are filled in
        return isinstance(read, dict) and all(key in read and _same(value, read[key]) for key, value in given.items())
    if isinstance(given, list):
        return isinstance(read, list) and len(read) == len(given) and all(map(_same, given, read))
    if isinstance(read, str) and not isinstance(given, str) and given is not None:  # class names, paths
        return read in (str(given), str(given).lower())
    if isinstance(given, bool) != isinstance(read, bool):  # yes and no are truth values where one is due
        return given in ("yes", "no", "1", "0", "true", "false", 1, 0, 1.0, 0.0) and isinstance(read, bool)
    if isinstance(given, int) and isinstance(read, float):
        given = float(given)
    return bool(given == read) or (isinstance(given, str) and isinstance(read, str) and Path(given) == Path(read))


def fuzz(count: int, seed: int = 0) -> Tally:
    """Try `count` mutated files, a sample of all mutations, and half as many mutated texts."""
    generator, tally = random.Random(seed), Tally("params")
    every = [(name, base, change) for name, base in bases() for change in changes(base)]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        path = Path("params.yaml")
        for name in ("rows.csv", "n", "w", "s"):
            Path(name).touch()

        def read() -> Params:
            params = load_params(path)
            for _ in stage_settings(params, Workspace()):
                pass
            return params

        for name, base, change in generator.sample(every, min(count, len(every))):
            kind, place, value = change
            raw = changed(base, change)
            path.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
            label = f"{name}: {kind} {'.'.join(map(str, place))} {str(value)[:60]!r}"
            asked = partial(_differs, path, place) if kind == "set" else lambda params: None
            tally.run(label, read, asked)
        text = (ROOT / "profiles/demo.yaml").read_bytes()
        for i in range(count // 2):
            path.write_bytes(mutated(text, generator))
            tally.run(f"mutated text {i} of seed {seed}", read)
    return tally
