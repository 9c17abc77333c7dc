"""The blocks `grid`, `training` and `images` of params.yaml."""

from typing import Annotated

from pydantic import Field, field_validator

from pipeline.evaluation.settings import ascending
from pipeline.settings import Block, Distinct, NonNegativeFloat, PositiveFloat, PositiveInt, Share, Size


class Grid(Block):
    """The grid of every (task, backbone, method), searched with the first seed; the default is the paper's (4.3)."""

    batch_size: Annotated[list[Size], Distinct] = Field(default=[16, 32, 128], min_length=1)
    learning_rate: Annotated[list[PositiveFloat], Distinct] = Field(default=[1e-5, 2e-5, 3e-5, 5e-5], min_length=1)


class Training(Block):
    """Texts: AdamW with linear warm-up and decay; early stopping on the selection score."""

    epochs: Size = 3
    stop_after: PositiveInt = 2
    """Epochs without a better selection score before training stops."""
    warmup: Share = 0.1
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 1.0
    micro_batch: PositiveInt | None = None
    """Rows per pass through the model, where a batch does not fit into memory; gradients are accumulated. None: the
    whole batch, halved whenever a GPU runs out of memory."""
    compile: bool = False
    """Whether torch.compile compiles the model's forward pass: some minutes at the start of a trial, and faster steps.
    Methods that do not train with it (berxit, layer_drop, theseus, patient_distillation) gain nothing."""


class ImageTraining(Block):
    """Images: SGD with momentum and a stepped learning rate; no early stopping, but the best epoch is kept."""

    epochs: Size = 100
    weight_decay: NonNegativeFloat = 1e-4
    augment: bool = True
    """Whether training images are cropped and mirrored at random (He et al. 2016, 4.2)."""
    micro_batch: PositiveInt | None = None
    """As for texts."""


class Images(Block):
    """Settings of image tasks; the defaults are the paper's (Appendix A)."""

    grid: Grid = Grid(batch_size=[128], learning_rate=[0.1])
    training: ImageTraining = ImageTraining()
    window: tuple[PositiveFloat, PositiveFloat] = (1.20, 1.40)
    """As `evaluate.window`."""

    _check_window = field_validator("window")(ascending)
