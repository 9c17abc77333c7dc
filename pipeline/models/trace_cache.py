"""The cache of traces: each is stored under a key of its contents and is never recorded twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.evaluation.trace import load_trace, save_trace
from pipeline.layout import HERE
from pipeline.models.device import device_of
from pipeline.models.recording import record_traces
from pipeline.results import Manifest, ModelGroup, SelectedTrial, TraceEntry
from pipeline.storage import claimed, content_key, file_hash, link_or_copy
from pipeline.tasks.stores import files_of, inputs_hash, manifest_of

RUNNER = "pipeline.models.trace_cache:record_model"


@dataclass(frozen=True)
class Recording:
    """All traces of one selected model, recorded by one worker, which loads the model once.

    Attributes:
        splits: names of the splits.
        device, threads: of the worker, as in `runtime`.
        code: identity of the code that records.
    """

    task: str
    group: ModelGroup
    trial: SelectedTrial
    splits: tuple[str, ...]
    device: str
    threads: int
    code: str

    def paths(self, device: str) -> dict[str, Path]:
        """Where the trace of each split lies that is recorded on a device, "cpu" or "cuda".

        A key is a hash of model, rows, metadata, device and code.
        """
        manifest = self.manifest
        common = {
            "weights": self.trial.weights_sha256,
            "trial": self.trial.key,
            "task": manifest.task,
            "kind": manifest.kind,
            "label_names": list(manifest.label_names),
            "device": device,
            "code": self.code,
        }
        rows = {split: inputs_hash(manifest, self.group.backbone, split) for split in self.splits}
        keys = {split: content_key({**common, "split": split, "rows": hash}) for split, hash in rows.items()}
        return {split: HERE.recorded / f"{key}.safetensors" for split, key in keys.items()}

    def reads(self) -> dict[Path, Path]:
        """What its worker reads: where it lies there, and where it lies here."""
        model = HERE.model(self.task, self.trial.key)
        data = files_of(self.manifest, self.group.backbone, self.splits)
        return {path: path for path in (*data, model / "model.json", model / "model.safetensors")}

    def writes(self) -> list[Path]:
        """What its worker stores, on whichever device it has."""
        return [*self.paths("cpu").values(), *self.paths("cuda").values()]

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the prepared data."""
        return manifest_of(self.task)

    def recorded_on(self, devices: Sequence[str]) -> str | None:
        """The first of the devices on which all traces are recorded."""
        return next((device for device in devices if not missing(self.paths(device))), None)

    def entries(self, device: str, folder: Path) -> list[TraceEntry]:
        """Put the traces that were recorded on a device into `folder`.

        Raises:
            ArtifactError: one is not there.
        """
        group, trial, out = self.group, self.trial, []
        for split, stored in self.paths(device).items():
            rows = _rows(stored)
            if rows is None:
                raise ArtifactError(f"{stored}: gone or cut short; run `dvc repro trace@{self.task}`")
            path = link_or_copy(stored, folder / HERE.trace(self.task, trial.key, split).name)
            out.append(
                TraceEntry(
                    backbone=group.backbone,
                    method=group.method,
                    multi_exit=group.multi_exit,
                    seed=trial.seed,
                    key=trial.key,
                    weights_sha256=trial.weights_sha256,
                    split=split,
                    file=path.name,
                    sha256=file_hash(path),
                    rows=rows,
                )
            )
        return out


def record_model(recording: Recording) -> tuple[str, int]:
    """Record what is missing of a model's traces, in a worker.

    Returns:
        The device, and the number of traces that were recorded.

    Raises:
        ArtifactError: the model's file is missing, or its weights are not the selected ones.
    """
    import torch

    torch.set_num_threads(recording.threads)
    device = device_of(recording.device)
    with claimed(HERE.claims, f"traces-{recording.trial.key}"):  # another experiment may record them meanwhile
        todo = missing(recording.paths(device))
        if todo:
            checkpoint = HERE.model(recording.task, recording.trial.key)
            _check_weights(checkpoint / "model.safetensors", recording.trial.weights_sha256)
            traces = record_traces(checkpoint, recording.manifest, recording.group.backbone, tuple(todo), device)
            for trace, path in zip(traces, todo.values(), strict=True):
                save_trace(trace, path)
    return device, len(todo)


def missing(paths: dict[str, Path]) -> dict[str, Path]:
    """The traces that are not there or unreadable."""
    return {split: path for split, path in paths.items() if _rows(path) is None}


def _check_weights(path: Path, sha256: str) -> None:
    """Raise ArtifactError where a selected model's file is missing or has other weights."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; run `dvc repro finetune`")
    if file_hash(path) != sha256:
        raise ArtifactError(f"{path}: its weights are not the selected ones; run `dvc repro -f finetune`")


def _rows(path: Path) -> int | None:
    """Number of rows of a trace; None where it is missing or unreadable."""
    try:
        return load_trace(path).rows
    except ArtifactError:
        return None
