"""Traces as other people may write them, through the commands replay and diagnose."""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from safetensors.numpy import save_file

from pipeline.__main__ import cli
from pipeline.evaluation.criteria import CRITERIA
from tools.fuzz.outcome import Tally

ODD = (0.0, -1.0, 1.5, 1e308, float("inf"), float("-inf"), float("nan"))
METADATA = ("", "[]", "{}", "null", "3", '"a"', '["a"]', "[1, 2]", '["a", "a"]', "{", "x" * 1000)
KINDS: tuple[Any, ...] = (np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_)


def sound(generator: random.Random) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a small trace."""
    n, exits = generator.randint(1, 8), generator.randint(1, 5)
    regression = generator.random() < 0.3
    classes = 1 if regression else generator.randint(2, 4)
    draw = np.random.default_rng(generator.randrange(2**32))
    flops = np.cumsum(draw.uniform(1, 2, (n, exits)), axis=1)
    tensors: dict[str, np.ndarray] = {
        "logits": draw.normal(size=(n, exits, classes)).astype(np.float32),
        "labels": draw.normal(size=n) if regression else draw.integers(0, classes, n).astype(np.float64),
        "row_ids": draw.permutation(n).astype(np.int64),
        "layers": np.arange(1.0, exits + 1),
        "flops": flops,
        "full_flops": flops[:, -1] * 1.01,
        "channel.lte": draw.uniform(size=(n, exits)).astype(np.float32),
    }
    if generator.random() < 0.5:
        tensors["full_layers"] = np.array(float(exits))
    names = [] if regression else [f"c{i}" for i in range(classes)]
    metadata = {"schema": "early-exit-trace/1", "kind": "regression" if regression else "classification"}
    return tensors, metadata | {"label_names": json.dumps(names), "provenance": "{}"}


def mutate(tensors: dict[str, np.ndarray], metadata: dict[str, str], generator: random.Random) -> str:
    """Change one thing; what it was."""
    name = generator.choice([*tensors, "metadata"])
    if name == "metadata":
        key = generator.choice(["schema", "kind", "label_names", "provenance"])
        if generator.random() < 0.2:
            del metadata[key]
            return f"{key} removed"
        metadata[key] = generator.choice(METADATA)
        return f"{key} = {metadata[key][:20]}"
    array = tensors[name]
    how = generator.randrange(7)
    if how == 0:
        del tensors[name]
    elif how == 1 and array.size:
        flat = array.astype(np.float64 if array.dtype.kind != "f" else array.dtype).reshape(-1).copy()
        with np.errstate(all="ignore"):
            flat[generator.randrange(flat.size)] = generator.choice(ODD)
        tensors[name] = flat.reshape(array.shape)
    elif how == 2:
        tensors[name] = array[..., :-1] if array.ndim else array.reshape(1)
    elif how == 3:
        tensors[name] = np.concatenate([array, array]) if array.ndim else array.reshape(1, 1)
    elif how == 4:
        tensors[name] = array.astype(generator.choice(KINDS))
    elif how == 5:
        tensors[name] = array[..., None]
    else:
        tensors[name] = np.zeros_like(array)
    return f"{name}, {('removed', 'odd value', 'cut', 'doubled', 'type', 'axis', 'zeros')[how]}"


def fuzz(count: int, seed: int = 0) -> Tally:
    """Try `count` traces, each with one change, through one command."""
    generator, tally = random.Random(seed), Tally("traces")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.safetensors")
        for _ in range(count):
            tensors, metadata = sound(generator)
            what = "nothing" if (whole := generator.random() < 0.1) else mutate(tensors, metadata, generator)
            with np.errstate(all="ignore"):
                save_file({name: np.array(array, order="C") for name, array in tensors.items()}, path, metadata)
            criterion = generator.choice(sorted(CRITERIA))
            arguments = generator.choice(
                [
                    ["replay", str(path), "--criterion", criterion, "--sweep"],
                    [
                        "replay",
                        str(path),
                        "--criterion",
                        criterion,
                        "--threshold",
                        generator.choice(["0", "1", "never"]),
                    ],
                    ["diagnose", str(path)],
                ]
            )
            call = _command(arguments)
            # A sound trace is refused only where the criterion has no meaning for a regression.
            sound_call = whole and (arguments[0] == "diagnose" or metadata["kind"] == "classification")
            tally.run(f"{what}: {' '.join(arguments[2:])}", call, _no_json, must_pass=sound_call)
    return tally


def _command(arguments: list[str]) -> Callable[[], str]:
    def call() -> str:
        done = CliRunner().invoke(cli, arguments, catch_exceptions=True)
        if done.exception is not None:
            raise done.exception
        return str(done.output)

    return call


def _no_json(text: str) -> str | None:
    """Whether the answer holds a number that JSON does not have."""
    return text[:200] if "Infinity" in text or "NaN" in text else None
