"""A selected model as MLflow serves it: the graphs of `export` where the task has them, else PyTorch.

MLflow calls `_load_pyfunc` of this module, whose code lies in the model's own folder. Both answer in one form, and
`pipeline.serving.requests` reads requests and refuses them.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import ParamsError, PipelineError, unknown
from pipeline.layout import Workspace
from pipeline.models.deploy.folder import FLOAT32
from pipeline.results import UnsentModel
from pipeline.serving.requests import (
    Asked,
    Identity,
    Limits,
    Said,
    answer,
    check_request,
    images_of,
    said_of,
    texts_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.commands.ask import Opened
    from pipeline.models.deploy.runtime import Deployed


SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
"""MLflow's server sets it; without it a process asks with a table of its own, which may be large."""
OWN_TABLE = Limits(rows=1_000_000, characters=1_000_000)


class Engine(Protocol):
    """What answers a request in one of its precisions."""

    precisions: tuple[str, ...]

    def __call__(self, asked: Asked, precision: str, started: float) -> Said:
        """Answer a request that came at `started` (`time.perf_counter`); raises PipelineError."""


class Graphs:
    """The graphs that `export` left, one precision opened as it is asked for."""

    def __init__(self, folder: Path, precisions: tuple[str, ...]) -> None:
        self.folder, self.precisions = folder, precisions
        self._open: dict[str, Deployed] = {}
        self._model(precisions[0])  # checks the files now

    def __call__(self, asked: Asked, precision: str, started: float) -> Said:
        return answer(self._model(precision), asked, started)

    def _model(self, precision: str) -> "Deployed":
        from pipeline.models.deploy.runtime import Deployed

        if precision not in self._open:
            self._open[precision] = Deployed.open(self.folder, precision)
        return self._open[precision]


class PyTorch:
    """The live engine, as `predict` asks it."""

    precisions: tuple[str, ...] = (FLOAT32,)

    def __init__(self, opened: "Opened") -> None:
        self.opened = opened

    def __call__(self, asked: Asked, precision: str, started: float) -> Said:
        from pipeline.commands.ask import predict

        opened = self.opened.at(asked.criterion, asked.threshold, asked.settings)
        columns = len(opened.manifest.columns)
        rows = images_of(asked.rows) if opened.tokenizer is None else texts_of(asked.rows, columns)
        answers, group, trial = predict(opened, rows), opened.group, opened.group.trials[0]
        model = Identity(
            task=opened.manifest.task,
            backbone=group.backbone,
            method=group.method,
            seed=trial.seed,
            key=trial.key,
            weights_sha256=trial.weights_sha256,
        )
        return said_of(asked, opened.decision, answers, precision, model, time.perf_counter() - started)


class Served:
    """A model that answers tables of texts, or arrays of images."""

    def __init__(self, engine: Engine, columns: tuple[str, ...], criterion: str) -> None:
        self.engine, self.columns, self.criterion = engine, columns, criterion

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """Answer inputs.

        Args:
            model_input: a table with the task's columns, or images, (n, 32, 32, 3) uint8.
            params: `criterion`, as in evaluate's settings or "full"; `threshold`, None: the operating point's;
                `precision`. What is left out is the selected point's.

        Returns:
            For each row its label, probabilities, exit and layers, and criterion, threshold, precision and seconds of
            the request.

        Raises:
            MlflowException: a request that cannot be answered, which is status 400 of HTTP.
        """
        import pandas as pd

        from pipeline.running.mlflow.refusing import refusal

        started, given = time.perf_counter(), params or {}
        try:
            asked = check_request(
                {
                    "rows": self._rows(model_input),
                    "criterion": given.get("criterion") or self.criterion,
                    "threshold": given.get("threshold"),
                },
                Limits() if os.environ.get(SERVING) else OWN_TABLE,
            )
            said = self.engine(asked, self._precision(given.get("precision")), started)
        except PipelineError as error:
            raise refusal(error) from None
        request = said.model_dump(include={"criterion", "threshold", "precision", "seconds"})
        return pd.DataFrame([answer.model_dump() | request for answer in said.answers])

    def _precision(self, name: str | None) -> str:
        precisions = self.engine.precisions
        if name is not None and name not in precisions:
            raise unknown("precision", name, precisions, key="precision")
        return name or precisions[0]

    def _rows(self, given: Any) -> list[Any]:
        if not self.columns:
            return list(np.asarray(given))
        missing = [column for column in self.columns if column not in given]
        if missing:
            raise ParamsError(f"{missing[0]}: this column is missing; give {', '.join(self.columns)}")
        rows = given[list(self.columns)].itertuples(index=False, name=None)
        return [row[0] if len(row) == 1 else list(row) for row in rows]


def _load_pyfunc(path: str) -> Served:
    """Open a model's folder.

    Raises:
        ArtifactError: a file is missing, or is not the one that was registered.
    """
    here, model = Workspace(Path(path)), UnsentModel.of(Path(path))
    if model.precisions:
        folder = here.exported(model.task, model.backbone, model.method).parent
        return Served(Graphs(folder, model.precisions), model.columns, model.criterion)
    from pipeline.commands.ask import open_selected
    from pipeline.models.device import device_of

    opened = open_selected(here, model.task, model.backbone, model.method, model.criterion, device_of("auto"))
    return Served(PyTorch(opened), model.columns, model.criterion)
