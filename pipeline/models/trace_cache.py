"""The cache of traces: each is stored under a key of its contents and is never recorded twice."""

from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.evaluation.trace import load_trace, save_trace
from pipeline.layout import Workspace
from pipeline.models.recording import record_trace
from pipeline.results import Manifest, ModelGroup, SelectedTrial, TraceEntry
from pipeline.storage import content_key, file_hash, link_or_copy
from pipeline.tasks.stores import inputs_hash


class Recorder:
    """Records the selected models of one task, or takes their traces from the cache.

    Args:
        code: identity of the code that records.

    Attributes:
        recorded: number of traces that were recorded; the others came from the cache.
    """

    def __init__(self, manifest: Manifest, workspace: Workspace, device: str, code: str) -> None:
        self.manifest, self.workspace, self.device, self.code = manifest, workspace, device, code
        self.recorded = 0

    def entry(self, group: ModelGroup, trial: SelectedTrial, split: str, folder: Path) -> TraceEntry:
        """Put the trace of one model and split into `folder`.

        Raises:
            ArtifactError: the model's file is missing, or its weights are not the selected ones.
        """
        stored = self.workspace.recorded / f"{self._key(group, trial, split)}.safetensors"
        rows = _rows(stored)
        if rows is None:
            checkpoint = self.workspace.model(self.manifest.task, trial.key)
            _check_weights(checkpoint / "model.safetensors", trial.weights_sha256)
            trace = record_trace(checkpoint, self.manifest, group.backbone, split, self.device)
            save_trace(trace, stored)
            rows, self.recorded = trace.rows, self.recorded + 1
        path = link_or_copy(stored, folder / self.workspace.trace(self.manifest.task, trial.key, split).name)
        return TraceEntry(
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

    def _key(self, group: ModelGroup, trial: SelectedTrial, split: str) -> str:
        """The key of a trace: a hash of model, rows, metadata, device and code."""
        manifest = self.manifest
        return content_key(
            {
                "weights": trial.weights_sha256,
                "trial": trial.key,
                "rows": inputs_hash(manifest, group.backbone, split),
                "task": manifest.task,
                "split": split,
                "kind": manifest.kind,
                "label_names": list(manifest.label_names),
                "device": self.device,
                "code": self.code,
            }
        )


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
