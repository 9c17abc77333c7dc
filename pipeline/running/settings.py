"""Where and how to run: a block of params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.running.address import parse_address
from pipeline.settings import Block, NonNegativeFloat, PositiveFloat, Size


class Runtime(Block):
    """Where and how to run. Never a DVC dependency: nothing here may change a result on one device."""

    workers: Size | None = None
    """Trials side by side when Ray is our own; None: as many as cores / threads, or GPUs / gpus_per_trial."""
    threads: Size = 1
    gpus_per_trial: NonNegativeFloat | None = None
    """Share of a GPU per trial: 0.25 packs four trials on one, 2 gives each two. None: as many as fit at `gpu_memory`
    each. A trial may allocate no more than its share of the memory; one that would takes fewer rows per pass
    (`micro_batch`)."""
    gpu_memory: PositiveFloat = 12.0
    """GiB of GPU memory that a trial may need, CUDA's own 0.75 GiB among them, until one of its backbone, method, data
    and batch size was seen to need another amount (`runs/gpu-memory.json`)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    retries: Annotated[int, Field(ge=0, le=100, strict=True)] = 2
    ray_address: str | None = None
    """A running cluster to join; the environment's RAY_ADDRESS comes first."""
    tracking_uri: str | None = None
    """MLflow server or database; the environment's MLFLOW_TRACKING_URI comes first."""
    hub_mirror: Path | None = None
    """Folder in the hub's layout; the environment's HUB_MIRROR comes first."""
    storage: str | None = None
    """Where trials, prepared data, traces and records of attacks live: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a
    folder; nodes then share nothing else. None: this project's folder, which every node must see. The environment's
    EARLY_EXIT_STORAGE comes first."""
    progress: bool = True
    """Whether long stages print a line for each trial, shard and model, and show a bar on a terminal (never in CI)."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _check_share(cls, value: float | None) -> float | None:
        """Check that Ray can count it: in ten-thousandths, and in whole GPUs from one on."""
        if value and (value < 0.0001 or (value > 1 and value != int(value))):
            raise ValueError("give 0, a share of one GPU from 0.0001 on, or a whole number of GPUs")
        return value

    @field_validator("storage")
    @classmethod
    def _check_storage(cls, value: str | None) -> str | None:
        """Refuse in words of our own, which do not repeat a key that the address holds."""
        if value is not None:
            parse_address(value)
        return value

    @model_validator(mode="after")
    def _check_device(self) -> "Runtime":
        if self.device == "cpu" and self.gpus_per_trial:
            raise ValueError("device cpu leaves GPUs unused, and gpus_per_trial reserves them; take one of them out")
        if self.device == "cuda" and self.gpus_per_trial == 0:
            raise ValueError("device cuda needs a GPU, and gpus_per_trial 0 gives none; take one of them out")
        return self
