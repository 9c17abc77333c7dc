"""How an exported model is served: the arguments of the command and of the application on Ray Serve."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.errors import ArtifactError, UnsupportedError, unknown
from pipeline.models.deploy.folder import FLOAT32, read_description
from pipeline.serving.pool import Policy
from pipeline.serving.requests import Limits
from pipeline.settings import Block, NonNegativeFloat, Size

Few = Annotated[int, Field(ge=1, le=1024, strict=True)]


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

    def check(self) -> None:
        """Look at the folder before anything starts.

        Raises:
            ArtifactError: it is no export, or was changed.
            ParamsError: the precision was not exported.
            UnsupportedError: what answers is not installed.
        """
        if not self.folder.is_dir():
            raise ArtifactError(f"{self.folder}: no such folder; name one that `python -m pipeline export` wrote")
        description = read_description(self.folder)
        if self.precision not in description["precisions"]:
            raise unknown("precision", self.precision, description["precisions"], key=f"{self.folder}: precision")
        try:
            import onnxruntime  # noqa: F401
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise UnsupportedError(f"{error.name} is not installed; `pip install -e '.[deploy,serve]'`") from None
