"""What latency times: a model at its operating points, in PyTorch or as the graphs that export left."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError, UnsupportedError
from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.point import criterion_of, read_with_points
from pipeline.layout import HERE
from pipeline.models.deploy.engine import GraphEngine
from pipeline.models.deploy.folder import read_description
from pipeline.models.deploy.segments import Segments
from pipeline.models.device import cores
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.precision import autocast_type
from pipeline.results import Evaluated, Exported, ModelGroup, OperatingPoint, Row
from pipeline.results.latency import Engine as EngineName
from pipeline.results.latency import Precision, RunsIn

if TYPE_CHECKING:
    from pipeline.models.bf16 import InBf16

Batch = Mapping[str, Any]
Scored = Sequence[tuple[OperatingPoint, float | None]]
"""Operating points, each with its score; all layers first."""
ONNX = "onnx-"
"""What the names of exported models' engines begin with."""
BF16: RunsIn = "pytorch-bf16"
PYTORCH: RunsIn = "pytorch"


@dataclass(frozen=True)
class Deployment:
    """A model at an operating point in an engine.

    Attributes:
        score: on the whole report split.
        answer: answers a batch of the store, and returns each row's exit, from 0, once the device is done, (n,).
    """

    engine: EngineName
    precision: Precision
    point: OperatingPoint
    score: float | None
    answer: Callable[[Batch], np.ndarray]

    @property
    def runs_in(self) -> tuple[EngineName, Precision]:
        """The engine with its precision."""
        return self.engine, self.precision


def parts_of(engine: RunsIn) -> tuple[EngineName, Precision]:
    """An engine's name, and its precision.

    >>> parts_of("pytorch"), parts_of("onnx-int8")
    (('pytorch', 'float32'), ('onnx', 'int8'))
    """
    if not engine.startswith(ONNX):
        return "pytorch", "bf16" if engine == BF16 else "float32"
    return "onnx", "int8" if engine == "onnx-int8" else "float32"


def refuse_engines(engines: Sequence[RunsIn], device: str, key: str = "latency.engines") -> None:
    """Raise UnsupportedError where an engine is not installed, or does not run on the device.

    Args:
        key: the setting that names them.
    """
    for engine in engines:
        if engine == BF16 and device == "cuda" and autocast_type(device) is None:
            raise UnsupportedError(f"{key}: {engine!r} and this GPU has no bf16; take it out, or take a newer GPU")
        if not engine.startswith(ONNX):
            continue
        if importlib.util.find_spec("onnxruntime") is None:
            raise UnsupportedError(
                f"{key}: {engine!r} needs ONNX Runtime, which is not installed; `pip install -e "
                "'.[deploy]'`, or take pytorch"
            )
        if device != "cpu":
            raise UnsupportedError(
                f"{key}: {engine!r} runs on the CPU, and runtime.device comes to {device}; set it to cpu, or "
                "take pytorch"
            )


def refuse_threads(threads: Sequence[int]) -> None:
    """Raise UnsupportedError for more compute threads than this process has cores."""
    for count in threads:
        if count > cores():
            raise UnsupportedError(
                f"latency.threads: {count} and this machine has {cores()} core{'s' * (cores() != 1)}; take it out"
            )


def place_of(task: str, group: ModelGroup, engine: RunsIn) -> Path:
    """The folder of a group's first model as an engine reads it."""
    if not engine.startswith(ONNX):
        return HERE.model(task, group.trials[0].key)
    return HERE.exported(task, group.backbone, group.method).parent


def files_left(task: str, group: ModelGroup, engines: Sequence[RunsIn]) -> list[Path]:
    """The files of export that the engines read of a group's model; raises as `deployments`."""
    if not any(engine.startswith(ONNX) for engine in engines):
        return []
    path = _exported(task, group)[0]
    return [path, *(path.parent / name for name in read_description(path.parent)["files"])]


def deployments(
    task: str,
    group: ModelGroup,
    model: MultiExit,
    evaluated: Evaluated,
    split: str,
    engines: Sequence[RunsIn],
    threads: int,
    bf16: "InBf16 | None" = None,
) -> list[Deployment]:
    """The first seed's model of a group at each of its operating points, in each engine; bounds are left out.

    Args:
        model: the model, on the device, for PyTorch.
        evaluated: its points and scores in PyTorch; those of other engines are export's.
        split: the report split whose points and scores count.
        bf16: the model in bf16, where it is among the engines.

    Raises:
        ArtifactError: no points of this model; export did not run, or left another model.
        ParamsError: export left it without the precision.
    """
    found: list[Deployment] = []
    for engine in engines:
        name, precision = parts_of(engine)
        if name == "pytorch":
            rows: Sequence[Row] = evaluated.rows
            live = model
            if engine == BF16:
                assert bf16 is not None  # its caller made it
                rows, live = bf16.rows, bf16.model
            for point, score in _scored(rows, group, split):
                found.append(Deployment(name, precision, point, score, partial(_exits, LiveEngine.at(live, point))))
            continue
        path, exported = _exported(task, group)
        segments = Segments.open(path.parent, read_description(path.parent), precision, threads)
        for point, score in _scored(exported.precisions[precision].rows, group, split):
            engine_of = GraphEngine(segments, criterion_of(point), point.limit)
            found.append(Deployment(name, precision, point, score, partial(_exits, engine_of)))
    return found


def _exits(engine: LiveEngine | GraphEngine, batch: Batch) -> np.ndarray:
    return engine(batch).exit_index


def _scored(rows: Sequence[Row], group: ModelGroup, split: str) -> Scored:
    """Points that can run, with their scores, of one model; all layers first."""
    key = group.trials[0].key
    own = [row for row in rows if (row.backbone, row.method, row.split) == (group.backbone, group.method, split)]
    live = [row for row in own if row.criterion is None or CRITERIA[row.criterion].causal]
    ordered = sorted(live, key=lambda row: row.criterion is not None)
    return [(row.point(key), row.score.values[row.keys.index(key)]) for row in ordered]


def _exported(task: str, group: ModelGroup) -> tuple[Path, Exported]:
    """The description that export left of a group's model, with its path."""
    path, remedy = HERE.exported(task, group.backbone, group.method), f"run `dvc repro export@{task}`"
    exported, trial = read_with_points(Exported, path, remedy), group.trials[0]
    if (exported.key, exported.weights_sha256) != (trial.key, trial.weights_sha256):
        raise ArtifactError(f"{path}: is of trial {exported.key}, and {trial.key} is selected; {remedy}")
    return path, exported
