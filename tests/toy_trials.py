"""A trial that learns nothing in no time, for tests of what is run and what is not; Ray workers import it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.training.plan import run_trial

RUNNER = "tests.toy_trials:train"
POISON = 1.0
"""From this learning rate on a trial fails."""


def train(
    settings: Mapping[str, Any], directory: Path, context: Mapping[str, Any], report: Callable[[dict[str, float]], None]
) -> dict[str, Any]:
    def work(folder: Path) -> dict[str, Any]:
        with (folder / "attempts").open("a", encoding="utf-8") as file:
            file.write("x")
        if settings.get("parent"):
            assert (directory.parent / settings["parent"] / "model.safetensors").is_file()
        if settings["learning_rate"] >= POISON:
            raise FloatingPointError("training loss is nan in epoch 1; lower the learning rate")
        # The smallest learning rate is the best one.
        report({"epoch": 1, "selection": 1 - settings["learning_rate"]})
        (folder / "model.safetensors").write_bytes(b"toy")
        return {
            "selection": 1 - settings["learning_rate"],
            "best_epoch": 1,
            "epochs_run": 1,
            "train_seconds": 0.0,
            "train_seconds_to_best": 0.0,
            "layers": 1,
            "parameters": 1,
            "early_exit_parameters": 0,
        }

    return run_trial(settings, directory, work)
