"""A trial of many short epochs that goes on after its last one, for tests of what is lost; Ray workers import it.

It counts what it trains, and its weights tell whether every epoch was trained once and in order.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.results import TrialResult
from pipeline.storage import file_hash, write_json, write_text
from pipeline.training.code import trial_code
from pipeline.training.plan import HISTORY, WEIGHTS, run_trial

RUNNER = "tests.steady_trials:train"
SECONDS = 0.3
"""What an epoch takes."""
TRAINED = "trained"
"""File in a trial's folder with a letter for each epoch that was begun."""


def weights_after(settings: Mapping[str, Any], epochs: int) -> bytes:
    """What an undisturbed trial leaves."""
    weights = f"{settings['seed']} {settings['learning_rate']} {settings['batch_size']}".encode()
    for epoch in range(1, epochs + 1):
        weights = _epoch(weights, epoch)
    return weights


def _epoch(weights: bytes, epoch: int) -> bytes:
    return hashlib.sha256(weights + bytes([epoch])).digest()


def train(
    settings: Mapping[str, Any],
    names: Mapping[str, Any],
    directory: Path,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> TrialResult:
    epochs, selection = settings["training"]["epochs"], 1 - settings["learning_rate"]

    def work(folder: Path) -> TrialResult:
        state = folder / "resume.json"
        saved = (
            json.loads(state.read_text())
            if state.exists()
            else {"epoch": 0, "weights": weights_after(settings, 0).hex()}
        )
        history: list[dict[str, float]] = []

        def tell(epoch: int) -> None:
            history.append({"epoch": epoch, "selection": selection})
            write_text(folder / HISTORY, "".join(json.dumps(row) + "\n" for row in history))
            report(history[-1])

        for epoch in range(1, saved["epoch"] + 1):
            tell(epoch)
        weights = bytes.fromhex(saved["weights"])
        for epoch in range(saved["epoch"] + 1, epochs + 1):
            with (folder / TRAINED).open("a", encoding="utf-8") as file:
                file.write("x")
            time.sleep(SECONDS)
            weights = _epoch(weights, epoch)
            write_json(state, {"epoch": epoch, "weights": weights.hex()})
            tell(epoch)
        (folder / "model.json").write_text("{}")
        (folder / WEIGHTS).write_bytes(weights)
        return TrialResult(
            best_epoch=epochs, epochs_run=epochs, selection=selection, train_seconds=epochs * SECONDS,
            train_seconds_to_best=epochs * SECONDS, micro_batch=None, metrics={}, parameters=1,
            early_exit_parameters=0, layers=1, exits=(1,), weights_sha256=file_hash(folder / WEIGHTS),
            code=trial_code(settings["modality"], settings["method"]).hash,
        )  # fmt: skip

    return run_trial(settings, directory, work)
