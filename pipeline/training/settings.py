"""The blocks `grid`, `training` and `images` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.evaluation.settings import ascending
from pipeline.settings import Block, Distinct, NonNegativeFloat, PositiveFloat, PositiveInt, Share, Size
from pipeline.training.plan import Search

Arithmetic = Literal["auto", "bf16", "float32"]


class Grid(Block):
    """The grid of every (task, backbone, method), searched with the first seed; the default is the paper's (4.3).

    `search` says how (docs/design/search.md). The further seeds train the chosen point to its end whatever it is.
    """

    batch_size: Annotated[list[Size], Distinct] = Field(default=[16, 32, 128], min_length=1)
    learning_rate: Annotated[list[PositiveFloat], Distinct] = Field(default=[1e-5, 2e-5, 3e-5, 5e-5], min_length=1)
    search: Literal["grid", "asha", "bayes"] = "grid"
    """grid: every point, each to its end, as in the paper. asha: every point, but one that is behind after an epoch may
    stop there (Li et al. 2020). bayes: points between the smallest and the largest learning rate, with any of the batch
    sizes, each suggested from the scores of others (tree-structured Parzen estimator; needs `pip install optuna`)."""
    reduction: Annotated[int, Field(ge=2, le=100, strict=True)] | None = None
    """For asha, which decides after epochs 1, r, r^2 and so on: one in r trials goes on. None: 3."""
    trials: Size | None = None
    """For bayes: number of points to try. None: as many as the grid has."""

    @model_validator(mode="after")
    def _of_its_search(self) -> "Grid":
        """Refuse what the search would ignore, and a space that is a point."""
        for name, owner in (("reduction", "asha"), ("trials", "bayes")):
            if getattr(self, name) is not None and self.search != owner:
                raise ValueError(f"{name} is of search {owner}, and search is {self.search}; take it out")
        if self.search == "bayes" and len(self.learning_rate) == 1:
            raise ValueError("search bayes needs a smallest and a largest learning_rate; name two, or set search grid")
        return self

    def rule(self) -> Search:
        """The search, with its defaults filled in."""
        points = len(self.batch_size) * len(self.learning_rate)
        return Search(self.search, self.trials or points, self.reduction or 3)


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
    precision: Arithmetic = "auto"
    """Arithmetic of matrix products; weights and all else stay float32. auto: bf16 on a GPU that has it, else float32.
    bf16: on a CPU too, where a step takes half the time or less if the processor has bf16 (lscpu: avx512_bf16 or
    amx_bf16), and longer if not. Selection scores and traces are float32's."""
    compile: bool = False
    """Whether torch.compile compiles the model's forward pass: some minutes at the start of a trial, and faster steps.
    Methods that do not train with it (berxit, layer_drop, theseus, patient_distillation, gradients: equilibrium) gain
    nothing."""


class ImageTraining(Block):
    """Images: SGD with momentum and a stepped learning rate; no early stopping, but the best epoch is kept."""

    epochs: Size = 100
    weight_decay: NonNegativeFloat = 1e-4
    augment: bool = True
    """Whether training images are cropped and mirrored at random (He et al. 2016, 4.2)."""
    precision: Arithmetic = "auto"
    """As for texts."""
    micro_batch: PositiveInt | None = None
    """As for texts, but it changes results: batch normalisation takes mean and variance of the rows of one pass. So a
    trial with it is another trial."""


class Images(Block):
    """Settings of image tasks; the defaults are the paper's (Appendix A)."""

    grid: Grid = Grid(batch_size=[128], learning_rate=[0.1])
    training: ImageTraining = ImageTraining()
    window: tuple[PositiveFloat, PositiveFloat] = (1.20, 1.40)
    """As `evaluate.window`."""

    _check_window = field_validator("window")(ascending)
