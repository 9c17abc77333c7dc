"""How trials are trained: blocks of params.yaml."""

from pydantic import Field, field_validator

from pipeline.evaluation.settings import ordered
from pipeline.settings import Block, NonNegativeFloat, PositiveFloat, PositiveInt, Share


class Grid(Block):
    """The grid that every (task, backbone, method) searches with the first seed; the paper's (4.3) where left out."""

    batch_size: list[PositiveInt] = Field(default=[16, 32, 128], min_length=1)
    learning_rate: list[PositiveFloat] = Field(default=[1e-5, 2e-5, 3e-5, 5e-5], min_length=1)


class Training(Block):
    """Texts: AdamW with linear warm-up and decay; early stopping on the selection score."""

    epochs: PositiveInt = 3
    stop_after: PositiveInt = 2
    """Epochs without a better selection score before training stops."""
    warmup: Share = 0.1
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 1.0
    micro_batch: PositiveInt | None = None
    """Rows that go through a model at a time, where a batch does not fit into memory; gradients are added up. None:
    the whole batch, and half as many rows again and again on a GPU that runs out of memory."""
    compile: bool = False
    """Whether torch.compile makes the model's forward pass: some minutes per trial at its start, less per step. Recipes
    that do not train on it (berxit, layer_drop, theseus, patient_distillation) gain nothing."""


class ImageTraining(Block):
    """Images: SGD with momentum, the learning rate stepped down; no early stopping, but the best epoch is kept."""

    epochs: PositiveInt = 100
    weight_decay: NonNegativeFloat = 1e-4
    augment: bool = True
    """Whether training images are cropped and mirrored at random (He et al. 2016, 4.2)."""
    micro_batch: PositiveInt | None = None
    """As for texts."""


class Images(Block):
    """What image tasks have of their own; left out, the paper's settings (Appendix A)."""

    grid: Grid = Grid(batch_size=[128], learning_rate=[0.1])
    training: ImageTraining = ImageTraining()
    window: tuple[PositiveFloat, PositiveFloat] = (1.20, 1.40)
    """As `evaluate.window`."""

    _ordered = field_validator("window")(ordered)
