"""The multi-exit model, a backbone with classifiers after its layers, and its checkpoint on disk."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.errors import ArtifactError, shown
from pipeline.storage import file_hash, whole_file, write_text

SCHEMA = "early-exit-checkpoint/1"


class RowState(Protocol):
    """The state of a backbone between layers."""

    def select(self, index: Tensor) -> Any:
        """Keep the rows in `index`."""


class Backbone(Protocol):
    """A network as a chain of layers, such as a text encoder or a residual network; also an nn.Module."""

    layers: int
    full_layers: int

    def embed(self, batch: Mapping[str, Tensor]) -> Any: ...
    def layer(self, index: int, state: Any) -> Any: ...
    def pool(self, index: int, state: Any) -> Tensor: ...
    def widths(self) -> list[int]: ...
    def parts_of_exits(self, exits: Sequence[int]) -> list[nn.Module]: ...
    def exit_places(self) -> tuple[int, ...]: ...
    def flops(
        self, sizes: np.ndarray, outputs: int, exits: Sequence[int], *, against_itself: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def description(self) -> dict[str, Any]: ...


class MultiExit(nn.Module):
    """Exit e reads the pooled output of layer `exits[e]`, through dropout and one linear layer (the paper, 3.2).

    Args:
        backbone: the network.
        exits: layers with a classifier, counted from 1, ascending; the last one is the backbone's last.
        outputs: classes, or 1 for regression.
        dropout: before each linear layer, in training only.
        channels: names of further heads, each one linear layer on the pooled vector and a sigmoid, shared by all
            exits; a criterion reads them by name (BERxiT's "lte").
        head_bias: initial bias of a regression's heads.
    """

    def __init__(
        self,
        backbone: Any,
        exits: Sequence[int],
        outputs: int,
        dropout: float = 0.0,
        channels: Sequence[str] = (),
        head_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if list(exits) != sorted(set(exits)) or exits[-1] != backbone.layers or exits[0] < 1:
            raise ValueError(f"exits {list(exits)} do not ascend to the last layer {backbone.layers}")
        self.backbone = backbone
        self.exits = tuple(exits)
        self.outputs = outputs
        self.dropout = nn.Dropout(dropout)
        widths = backbone.widths()
        self.heads = nn.ModuleList(nn.Linear(widths[layer - 1], outputs) for layer in exits)
        if outputs == 1:
            for bias in (p for name, p in self.heads.named_parameters() if name.endswith("bias")):
                nn.init.constant_(bias, head_bias)
        # The heads' weights without their modules, which at batch 1 cost three times the product.
        self.head_tables: list[Any] = [head._parameters for head in self.heads]
        if channels and len({widths[layer - 1] for layer in exits}) > 1:
            raise ValueError(f"channel heads {list(channels)} are shared by exits of different widths")
        self.channels = nn.ModuleDict({name: nn.Linear(widths[exits[0] - 1], 1) for name in channels})

    def answer(self, exit_index: int, state: Any) -> Tensor:
        """Logits of one exit, (n, outputs), for the state after its layer."""
        return self._logits(exit_index, self._pooled(exit_index, state))

    def read(self, exit_indexes: Sequence[int], states: Sequence[Any], channel: str) -> list[tuple[Tensor, Tensor]]:
        """Logits of some exits, (n, outputs) each, and their values of a channel, (n,); for "logits" the same object
        twice.

        Args:
            states: behind the layer of each exit.
        """
        if len(states) > 1 and hasattr(self.backbone, "pool_together"):
            every = self.backbone.pool_together([self.exits[index] - 1 for index in exit_indexes], states)
        else:
            every = [self._pooled(index, state) for index, state in zip(exit_indexes, states, strict=True)]
        read = []
        for index, pooled in zip(exit_indexes, every, strict=True):
            logits = self._logits(index, pooled)
            read.append((logits, logits if channel == "logits" else self._channel(channel, pooled)))
        return read

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits of all exits, (n, exits, outputs)."""
        return self.record(batch, ())[0]

    def record(self, batch: Mapping[str, Tensor], channels: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of all exits, (n, exits, outputs), and the channels, (n, exits) each, in one pass."""
        state = self.backbone.embed(batch)
        answers: list[Tensor] = []
        values_by_channel: dict[str, list[Tensor]] = {name: [] for name in channels}
        for index in range(self.backbone.layers):
            state = self.backbone.layer(index, state)
            if index + 1 == self.exits[len(answers)]:
                pooled = self._pooled(len(answers), state)
                answers.append(self._logits(len(answers), pooled))
                for name, values in values_by_channel.items():
                    values.append(self._channel(name, pooled))
        return torch.stack(answers, dim=1), {
            name: torch.stack(values, dim=1) for name, values in values_by_channel.items()
        }

    def _pooled(self, exit_index: int, state: Any) -> Tensor:
        pooled: Tensor = self.backbone.pool(self.exits[exit_index] - 1, state)
        return pooled

    def _logits(self, exit_index: int, pooled: Tensor) -> Tensor:
        if self.training:
            trained: Tensor = self.heads[exit_index](self.dropout(pooled))
            return trained
        table = self.head_tables[exit_index]
        return linear(pooled, table["weight"], table["bias"])

    def _channel(self, name: str, pooled: Tensor) -> Tensor:
        return torch.sigmoid(self.channels[name](pooled)[:, 0])

    def on(self, backbone: Any) -> "MultiExit":
        """A model of another backbone with this model's last head; both keep sharing their modules."""
        model = MultiExit(backbone, (backbone.layers,), self.outputs, self.dropout.p)
        model.heads = nn.ModuleList([self.heads[-1]])
        model.head_tables = [model.heads[0]._parameters]
        return model

    def early_exits(self) -> list[nn.Module]:
        """What only the exits before the last have: classifiers, and poolers that are not shared."""
        return [*list(self.heads)[:-1], *self.backbone.parts_of_exits(self.exits[:-1])]

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters: all, and those of early exits (the paper's Table 3) with their channels."""
        early = sum(p.numel() for part in [*self.early_exits(), self.channels] for p in part.parameters())
        return {"parameters": sum(p.numel() for p in self.parameters()), "early_exit_parameters": early}


def save_checkpoint(model: MultiExit, directory: Path) -> None:
    """Write model.safetensors, then its description model.json, each atomically."""
    with whole_file(directory / "model.safetensors") as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, partial)
    description = {
        "schema": SCHEMA,
        "exits": list(model.exits),
        "outputs": model.outputs,
        "dropout": model.dropout.p,
        "channels": list(model.channels),
        "backbone": model.backbone.description(),
    }
    write_text(directory / "model.json", json.dumps(description, indent=1, sort_keys=True))


def backbone_of(description: Mapping[str, Any]) -> Any:
    """The backbone that a checkpoint describes, with random weights."""
    if description.get("family") == "resnet":
        from pipeline.models.residual import resnet_from_description

        return resnet_from_description(description)
    from pipeline.models.encoders.encoder import encoder_from_description

    return encoder_from_description(description)


def load_checkpoint(
    directory: Path, build: Callable[[Mapping[str, Any]], Any] = backbone_of, sha256: str | None = None
) -> MultiExit:
    """Build the model that a checkpoint describes and load its weights.

    Args:
        build: makes the backbone from its description.
        sha256: hash of the weights that are meant; None takes any.

    Raises:
        ArtifactError: missing, cut short, of another schema version, or with other weights.
    """
    remedy = f"remove {directory} and run `dvc repro` again"
    try:
        description = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        schema = description.get("schema") if isinstance(description, dict) else None
        if schema != SCHEMA:
            raise ArtifactError(f"{directory}/model.json: schema {shown(schema)} is not {SCHEMA!r}; {remedy}")
        if sha256 is not None and file_hash(directory / "model.safetensors") != sha256:
            raise ArtifactError(f"{directory}/model.safetensors: its weights are not those that were trained; {remedy}")
        weights = load_file(directory / "model.safetensors")
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ArtifactError(f"{directory}: unreadable or cut short checkpoint ({error}); {remedy}") from None
    try:
        model = MultiExit(
            build(description["backbone"]),
            description["exits"],
            description["outputs"],
            description["dropout"],
            description.get("channels", []),  # older checkpoints lack the key
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ArtifactError(f"{directory}/model.json: describes no model ({reason}); {remedy}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(
            f"{directory}: weights do not fit model.json ({str(error).splitlines()[0]}); {remedy}"
        ) from None
    return model.eval()
