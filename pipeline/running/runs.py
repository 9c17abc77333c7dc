"""One tracked run: what is logged to it, and what of that MLflow still lacks."""

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import redacted
from pipeline.layout import HERE
from pipeline.results import LoggedData, LoggedMetric, RunStatus, UnsentRun
from pipeline.running.signals import held

LONGEST = 6000
"""Characters of a parameter that MLflow keeps."""


class TrackedRun:
    """One run. Whatever is logged is sent at once where the server answers, else kept on disk until it does.

    Args:
        unsent: what MLflow lacks of it.
        send: sends what the run lacks, and says whether it could.
    """

    def __init__(self, unsent: UnsentRun, send: Callable[["TrackedRun"], bool]) -> None:
        self.unsent = unsent
        self.steps: set[int] = set()
        """A trial's run: steps whose metrics are logged. A trial that goes on reports its earlier epochs again."""
        self.retag = False
        """Whether it has tags that came after MLflow made it."""
        self._send = send

    @property
    def id(self) -> str:
        """Its identity, which it has before MLflow knows of it."""
        return self.unsent.id

    @property
    def run_id(self) -> str | None:
        """MLflow's id; None while MLflow does not know of it."""
        return self.unsent.run_id

    @property
    def ended(self) -> bool:
        return self.unsent.status != "RUNNING"

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._log(params={**self.unsent.params, **_texts(params)})

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tags that are known only now, and that hold no secret: a link's `...Key=` would be taken for one."""
        self.retag = True
        self._log(tags={**self.unsent.tags, **{name: text[:LONGEST] for name, text in tags.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """One batch; values that are not finite are left out, since a missing metric says more than a plotted 0."""
        now = _now()
        entries = tuple(
            LoggedMetric(name=name, value=float(value), time=now, step=step)
            for name, value in metrics.items()
            if math.isfinite(value)
        )
        with held():
            if self.unsent.key is not None:
                if step in self.steps:
                    return
                self.steps.add(step)
            self._log(metrics=(*self.unsent.metrics, *entries))

    def log_series(self, name: str, values: Mapping[int, float]) -> None:
        """One metric at several steps, in one batch."""
        now = _now()
        entries = (LoggedMetric(name=name, value=value, time=now, step=step) for step, value in values.items())
        self._log(metrics=(*self.unsent.metrics, *entries))

    def log_artifact(self, path: Path) -> None:
        """Keep a file, which MLflow may get later, from another folder of the project."""
        named = os.path.relpath(path.absolute(), HERE.home.absolute())
        self._log(artifacts=(*self.unsent.artifacts, named))

    def log_dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Record a data set as this run's input."""
        data = LoggedData(name=name, digest=digest[:36], source=source, context=context)
        self._log(data=(*self.unsent.data, data))

    def end(self, status: RunStatus = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED."""
        self._log(status=status, ended=_now())

    def change(self, **fields: Any) -> None:
        """Replace fields of what is unsent."""
        self.unsent = self.unsent.model_copy(update=fields)

    def _log(self, **fields: Any) -> None:
        self.change(**fields)
        self.deliver()

    def deliver(self) -> None:
        """Send what MLflow lacks; keep it on disk where that fails."""
        path = unsent_file(self.id)
        with held():  # else what was sent, and not yet noted as sent, would be sent again
            if self._send(self):
                path.unlink(missing_ok=True)
            else:
                self.unsent.write(path)


def new_run(
    name: str, id: str, key: str | None, parent: TrackedRun | None, tags: Mapping[str, str], params: Mapping[str, Any]
) -> UnsentRun:
    """A run of which MLflow lacks all."""
    return UnsentRun(
        id=id,
        name=name,
        key=key,
        parent=parent.id if parent else None,
        run_id=None,
        started=_now(),
        ended=None,
        status="RUNNING",
        tags=_texts(tags),
        params=_texts(params),
        metrics=(),
        artifacts=(),
        data=(),
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: redacted(str(value))[:LONGEST] for name, value in values.items()}


def unsent_file(id: str) -> Path:
    """Where what MLflow lacks of a run is kept."""
    return HERE.unsent / f"{id}.json"


def _now() -> int:
    return int(time.time() * 1000)
