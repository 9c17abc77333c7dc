"""How an exported model is served: the arguments of the command and of the application on Ray Serve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.errors import ArtifactError, ParamsError, UnsupportedError, unknown
from pipeline.models.deploy.folder import FLOAT32, read_description
from pipeline.serving.pool import Policy
from pipeline.serving.requests import Limits
from pipeline.settings import Block, NonNegativeFloat, PositiveFloat, Size

Few = Annotated[int, Field(ge=1, le=1024, strict=True)]


class WatchSettings(Block):
    """How closely a served model is watched."""

    check_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    """Share of rows that run to the end, once they are answered, to compare the last exit's answer."""
    drift_alarm: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 1e-3
    """Probability of a false warning in a window of rows, at most, for each operating point."""
    drift_window: Annotated[int, Field(ge=10, le=10**6, strict=True)] = 1000
    """Rows after which the comparison with the selection rows begins anew."""
    extra_layers_per_minute: PositiveFloat | None = None
    """Layers beyond the promised mean that the rows of a minute may run; then they leave at the deepest exit within the
    promised mean, until the minute has passed. Replicas share it evenly. None: no cap."""

    def refuse_without(self, promises: Sequence[object]) -> None:
        """Raise ParamsError for a cap where nothing was promised, since it would hold nothing back."""
        if self.extra_layers_per_minute is not None and not promises:
            raise ParamsError(
                f"watch.extra_layers_per_minute (--extra-layers): {self.extra_layers_per_minute:g}, but the model was "
                "exported without operating points, so that nothing was promised; leave it out"
            )


class Serving(Block):
    """How a model is served."""

    folder: Path
    """Folder of `python -m pipeline export`; every node that runs a replica must see it."""
    precision: str = FLOAT32
    """float32 or int8, as exported."""
    replicas: Few = 1
    """Processes that answer."""
    threads: Few = 1
    """Compute threads of each."""
    batch: Few = 8
    """Most rows that run a layer together; int8 rows run one by one."""
    policy: Policy = "deepest"
    """Which rows run next; see docs/design/serving.md."""
    wait: NonNegativeFloat = 0.5
    """Seconds after which a row comes first that the policy would leave waiting."""
    waiting_rows: Size = 1024
    """Rows of a replica, beyond which requests are refused until others are answered."""
    limits: Limits = Limits()
    watch: WatchSettings = WatchSettings()

    def own_watch(self) -> WatchSettings:
        """The watch of one replica, which has its part of the cap."""
        cap = self.watch.extra_layers_per_minute
        return self.watch.model_copy(update={"extra_layers_per_minute": None if cap is None else cap / self.replicas})

    def check(self) -> None:
        """Look at the folder before anything starts.

        Raises:
            ArtifactError: it is no export, or was changed.
            ParamsError: the precision was not exported; or a cap, and nothing was promised.
            UnsupportedError: what answers is not installed.
        """
        if not self.folder.is_dir():
            raise ArtifactError(f"{self.folder}: no such folder; name one that `python -m pipeline export` wrote")
        description = read_description(self.folder)
        if self.precision not in description["precisions"]:
            raise unknown("precision", self.precision, description["precisions"], key=f"{self.folder}: precision")
        self.watch.refuse_without(description["precisions"][self.precision]["promises"])
        try:
            import onnxruntime  # noqa: F401
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise UnsupportedError(f"{error.name} is not installed; `pip install -e '.[deploy,serve]'`") from None
