"""A backbone with a classifier after some or all of its layers, and its checkpoint on disk."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import ArtifactError

SCHEMA = "early-exit-checkpoint/1"


class RowState(Protocol):
    """What a backbone hands from layer to layer."""

    def select(self, index: Tensor) -> Any:
        """Keep the rows in `index`."""


class Backbone(Protocol):
    """A network as a chain of layers; text encoders and residual networks alike. Also an nn.Module."""

    layers: int

    def embed(self, batch: Mapping[str, Tensor]) -> Any: ...
    def layer(self, index: int, state: Any) -> Any: ...
    def pool(self, index: int, state: Any) -> Tensor: ...
    def widths(self) -> list[int]: ...
    def description(self) -> dict[str, Any]: ...


class MultiExit(nn.Module):
    """Exit e reads the pooled output of layer `exits[e]`, through dropout and one linear layer (the paper, 3.2).

    Args:
        backbone: the network.
        exits: layers with a classifier, counted from 1, ascending; the last one is the backbone's last.
        outputs: classes, or 1 for regression.
        dropout: before each linear layer, in training only.
    """

    def __init__(self, backbone: Any, exits: Sequence[int], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        if list(exits) != sorted(set(exits)) or exits[-1] != backbone.layers or exits[0] < 1:
            raise ValueError(f"exits {list(exits)} do not ascend to the last layer {backbone.layers}")
        self.backbone = backbone
        self.exits = tuple(exits)
        self.outputs = outputs
        self.dropout = nn.Dropout(dropout)
        widths = backbone.widths()
        self.heads = nn.ModuleList(nn.Linear(widths[layer - 1], outputs) for layer in exits)

    def answer(self, exit_index: int, state: Any) -> Tensor:
        """Logits of one exit, (n, outputs), for the state after its layer."""
        pooled = self.backbone.pool(self.exits[exit_index] - 1, state)
        logits: Tensor = self.heads[exit_index](self.dropout(pooled))
        return logits

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits of all exits, (n, exits, outputs)."""
        state = self.backbone.embed(batch)
        answers: list[Tensor] = []
        for index in range(self.backbone.layers):
            state = self.backbone.layer(index, state)
            if index + 1 == self.exits[len(answers)]:
                answers.append(self.answer(len(answers), state))
        return torch.stack(answers, dim=1)

    def parameter_counts(self) -> dict[str, int]:
        """All parameters, and those of the exits before the last (the paper's Table 3)."""
        early = sum(p.numel() for head in list(self.heads)[:-1] for p in head.parameters())
        return {"parameters": sum(p.numel() for p in self.parameters()), "early_exit_parameters": early}


def save_checkpoint(model: MultiExit, directory: Path) -> None:
    """Write model.safetensors, then model.json that describes it; each atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "model.safetensors.partial"
    save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, partial)
    os.replace(partial, directory / "model.safetensors")
    about = {
        "schema": SCHEMA,
        "exits": list(model.exits),
        "outputs": model.outputs,
        "dropout": model.dropout.p,
        "backbone": model.backbone.description(),
    }
    partial = directory / "model.json.partial"
    partial.write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(partial, directory / "model.json")


def load_checkpoint(directory: Path, build: Callable[[Mapping[str, Any]], Any]) -> MultiExit:
    """Build the model that a checkpoint describes and load its weights.

    Args:
        build: makes the backbone from its description, such as `encoder_from_description`.

    Raises:
        ArtifactError: missing, cut short, or of another schema version.
    """
    remedy = f"remove {directory} and run `dvc repro` again"
    try:
        about = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        if about.get("schema") != SCHEMA:
            raise ArtifactError(f"{directory}/model.json: schema {about.get('schema')!r} is not {SCHEMA!r}; {remedy}")
        weights = load_file(directory / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{directory}: unreadable or cut short checkpoint ({error}); {remedy}") from None
    model = MultiExit(build(about["backbone"]), about["exits"], about["outputs"], about["dropout"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(
            f"{directory}: weights do not fit model.json ({str(error).splitlines()[0]}); {remedy}"
        ) from None
    return model.eval()
