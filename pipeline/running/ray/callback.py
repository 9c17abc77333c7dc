"""What Ray Tune tells of trials, brought to the driver's book."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, StorageError, redacted
from pipeline.results import TrialResult
from pipeline.running.ledger import Ledger
from pipeline.running.ray.deaths import Watch, death_of_worker, lost_its_node
from pipeline.running.ray.resources import Wait
from pipeline.running.ray.shares import Shares
from pipeline.running.ray.worker import SPARE


def ledger_callback(ledger: Ledger, wait: Wait, shares: Shares) -> Any:
    """A Tune callback that keeps the ledger and what trials need of GPUs, and says what is waited for."""
    from ray import tune

    actors: dict[str, str] = {}  # Tune's id of a trial to that of the actor that runs it

    class LedgerCallback(tune.Callback):
        def __init__(self) -> None:
            self.error: PipelineError | None = None
            """What ended the run from here; Tune itself passes on the text of its traceback."""
            self.watch = Watch()

        @contextmanager
        def _kept(self) -> Iterator[None]:
            try:
                yield
            except PipelineError as error:
                self.error = error
                raise

        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            with self._kept():
                self.watch.refuse_dead_ray()
                (wait.goes_on if ledger.idle else wait.over)()

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            actors[trial.trial_id] = trial.temporary_state.ray_actor._actor_id.hex()
            with self._kept():
                ledger.begin(trial.config["key"])

        def stops(self, trial: Any, result: Any) -> bool:
            """Whether the trial's search stops it after this epoch; asked before the epoch is told."""
            if "epoch_metrics/epoch" not in result:  # the scheduler has nested results flat
                return False
            key, epoch = trial.config["key"], int(result["epoch_metrics/epoch"])
            with self._kept():
                return ledger.progress.stops(key, epoch, result["selection"])

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            key = trial.config["key"]
            with self._kept():
                if "epoch_metrics" in result:
                    ledger.epoch(key, result["epoch_metrics"])
                if "gpu_gib" in result:
                    shares.see(trial.config["settings"], result["gpu_gib"])
                if result.get("disk"):  # all trials share it
                    raise StorageError(result["fault"])
                if "fault" in result:
                    ledger.fault(key, result["fault"], certain=result["certain"])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            key, last = trial.config["key"], trial.last_result
            actors.pop(trial.trial_id, None)
            with self._kept():
                if "trial_result" in last:
                    ledger.end(key, TrialResult.model_validate(last["trial_result"], strict=False))
                else:
                    ledger.stop(key)
            for kept in (trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps):
                kept.clear()  # most of what Tune keeps of a trial, for choices that it does not make here

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            key, actor = trial.config["key"], actors.pop(trial.trial_id, None)
            with self._kept():
                self.watch.refuse_dead_ray(now=True)
                if ledger.told(key):
                    ledger.failed(key)
                    return
                text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
                if actor is not None and lost_its_node(actor, text):
                    ledger.lost(key)
                else:
                    ledger.failed(key, _crash(text, ledger.progress.root / key))

    return LedgerCallback()


def _crash(text: str, directory: Path) -> str:
    """Why an attempt failed that could not say so itself; stored where it would have.

    Args:
        text: Tune's; the error itself lies beside it pickled.
    """
    said = [line for line in re.sub(r"^Failure # .*\n", "", text).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in said) or "(pid=" in text:  # raised before the trial's own code
        reason = said[-1].strip()[:300]
    else:
        death = death_of_worker(" ".join(line for line in said if not line.startswith("\t")))  # those are Ray's ids
        reason = f"its worker {death}; {SPARE}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "error.txt").write_text(redacted(f"{reason}\n\n{text}\n"), encoding="utf-8")
    return redacted(reason)
