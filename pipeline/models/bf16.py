"""A model with weights and activations in bf16 in PyTorch, for a GPU or a CPU that has it, at points of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pipeline.identity.versions import processor
from pipeline.layout import HERE
from pipeline.models.multi_exit import MultiExit, load_checkpoint
from pipeline.models.own_traces import Choosing, own_points, own_traces, torch_traces
from pipeline.models.packed import ready
from pipeline.models.recording import record
from pipeline.results import Manifest, ModelGroup, Row


@dataclass(frozen=True)
class InBf16:
    """The first seed's model of a group.

    Attributes:
        rows: its operating points with their scores, through bf16.
    """

    model: MultiExit
    rows: Sequence[Row]

    @classmethod
    def of(
        cls, manifest: Manifest, group: ModelGroup, choosing: Choosing, threads: int, device: str, code: str
    ) -> "InBf16":
        """Load the model, record what is not in the cache, and choose its points.

        Args:
            device: "cuda", or "cpu", where it is slow without instructions for bf16.
            code: identity of the code that records.

        Raises:
            ArtifactError: the model or its traces are missing.
        """
        model, trial = load_bf16(manifest.task, group, device), group.trials[0]
        where = torch.cuda.get_device_name() if device == "cuda" else processor()
        arithmetic = {
            **{"engine": "pytorch bf16", "weights": trial.weights_sha256, "version": torch.__version__},
            **{"processor": where, "threads": str(threads), "code": code},
        }
        torch.set_num_threads(threads)
        traces = torch_traces(manifest, group)
        own = own_traces(manifest, group, traces, partial(record, model, device=device), arithmetic, device)
        costs = None
        if choosing.chooser.reads_costs:
            from pipeline.models.costs import costs_in_torch

            costs = costs_in_torch(model, manifest, group, "pytorch-bf16", threads, device)
        return cls(model, own_points(manifest, group, own, choosing, costs)[0])


def load_bf16(task: str, group: ModelGroup, device: str) -> MultiExit:
    """The first seed's model of a group in bf16; raises ArtifactError where it is missing."""
    trial = group.trials[0]
    model = load_checkpoint(HERE.model(task, trial.key), sha256=trial.weights_sha256)
    return ready(model, device, torch.bfloat16)
