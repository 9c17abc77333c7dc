"""A trial that learns nothing in no time, for tests of what is run and what is not; Ray workers import it.

One that was interrupted goes on after its last epoch.
"""

import json
import os
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.results import TrialResult
from pipeline.storage import file_hash
from pipeline.training.code import trial_code
from pipeline.training.plan import HISTORY, RESUME, WEIGHTS, read_history, run_trial

RUNNER = "tests.toy_trials:train"
POISON = 1.0
"""From this learning rate on a trial fails, each time with one error."""
REFUSED, KILLED, CHANGING, HUNGRY, CONFINED = 3.0, 4.0, 5.0, 6.0, 7.0
"""Learning rates of a user's error, of a worker that dies, of another error each time, of one that lacks memory, and of
one that exceeds the limit of the control group that the file `group` names."""
LOST_SEED = 13
"""The seed of which a trial without a parent fails."""


def _fail(learning_rate: float, attempt: int) -> None:
    if learning_rate == REFUSED:
        raise DataError("the rows are gone; put them back")
    if learning_rate == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if learning_rate == HUNGRY:
        before = resource.getrlimit(resource.RLIMIT_AS)
        with Path("/proc/self/statm").open(encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, before[1]))
        try:
            bytearray(2**32)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    if learning_rate == CONFINED:
        Path(Path("group").read_text(encoding="utf-8")).write_text(str(os.getpid()), encoding="utf-8")
        assert not b"x" * 2**30
    if learning_rate == CHANGING:
        raise RuntimeError(f"out of {'abcdef'[attempt]}")
    raise FloatingPointError(f"training loss is nan in epoch {attempt}; lower the learning rate")


def train(
    settings: Mapping[str, Any],
    names: Mapping[str, Any],
    directory: Path,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> TrialResult:
    assert context["gpu_share"] >= 0.0  # a trial must know what it may take

    def work(folder: Path) -> TrialResult:
        with (folder / "attempts").open("a", encoding="utf-8") as file:
            file.write("x")
        if settings.get("parent"):
            assert (directory.parent / settings["parent"] / "model.safetensors").is_file()
        if settings["learning_rate"] >= POISON:
            _fail(settings["learning_rate"], (folder / "attempts").stat().st_size)
        if settings["seed"] == LOST_SEED and not settings.get("parent"):
            raise DataError("seed 13: lost; take another")
        # The smallest learning rate is the best one.
        selection, epochs = 1 - settings["learning_rate"], settings["training"]["epochs"]
        (folder / "model.json").write_text("{}", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"toy")
        history = read_history(folder) if (folder / RESUME).is_file() else []
        for row in history:
            report(row)
        for epoch in range(len(history) + 1, epochs + 1):
            history.append({"epoch": epoch, "selection": selection})
            (folder / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
            (folder / RESUME).touch()
            with (folder / "epochs").open("a", encoding="utf-8") as file:
                file.write("x")
            report(history[-1])
        return TrialResult(
            best_epoch=1,
            epochs_run=epochs,
            selection=selection,
            train_seconds=0.0,
            train_seconds_to_best=0.0,
            micro_batch=None,
            metrics={},
            parameters=1,
            early_exit_parameters=0,
            layers=1,
            exits=(1,),
            weights_sha256=file_hash(folder / WEIGHTS),
            code=trial_code(settings["modality"], settings["method"]).hash,
        )

    return run_trial(settings, directory, work)
