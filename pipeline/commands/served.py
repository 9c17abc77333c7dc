"""A selected model as MLflow serves it: its folder has the layout of a run, and answers are those of `predict`.

MLflow calls `_load_pyfunc` of this module, whose code lies in the model's own folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.layout import Workspace
from pipeline.results import UnsentModel

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.commands.ask import Opened


class Served:
    """A model that answers tables of texts, or arrays of images, with `criterion` and `threshold` per request."""

    def __init__(self, opened: "Opened") -> None:
        self.opened = opened

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """Answer inputs.

        Args:
            model_input: a table with the task's columns, or images, (n, side, side, 3) uint8.
            params: `criterion`, as in evaluate's settings or "full", and `threshold`; None: those of the operating
                point.

        Returns:
            The columns of `predict`, and the criterion and threshold that were asked.

        Raises:
            ParamsError: an unknown criterion, or no threshold for it.
        """
        import pandas as pd

        from pipeline.commands.ask import predict

        asked = params or {}
        opened = self.opened.at(asked.get("criterion"), asked.get("threshold"))
        point = {"criterion": opened.point.name, "threshold": opened.point.threshold}
        return pd.DataFrame([answer | point for answer in predict(opened, self._inputs(model_input))])

    def _inputs(self, given: Any) -> Any:
        if self.opened.tokenizer is None:
            return np.asarray(given)
        rows = [tuple(map(str, row)) for row in given[list(self.opened.manifest.columns)].itertuples(index=False)]
        return [row[0] if len(row) == 1 else row for row in rows]


def _load_pyfunc(path: str) -> Served:
    """Open a model's folder.

    Raises:
        ArtifactError: a file is missing, or is not the one that was registered.
    """
    from pipeline.commands.ask import open_selected
    from pipeline.models.device import device_of

    here, model = Workspace(Path(path)), UnsentModel.of(Path(path))
    return Served(open_selected(here, model.task, model.backbone, model.method, model.criterion, device_of("auto")))
