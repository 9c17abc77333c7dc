"""A trial that trains beside a number of others and says where, for tests of shares of GPUs; Ray workers import it."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.results import TrialResult
from tests import steady_trials

RUNNER = "tests.sharing_trials:train"
PLACE = "place.json"
"""File in a trial's folder: its node's address, its share of a GPU, and when it began and ended."""
BEGUN, TOGETHER = "begun", "together"
"""Files in a trial's folder, when it begins, and in the working folder: how many trials wait for each other."""


def train(
    settings: Mapping[str, Any],
    names: Mapping[str, Any],
    directory: Path,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> TrialResult:
    import ray

    directory.mkdir(parents=True, exist_ok=True)
    began, end, count = time.time(), time.monotonic() + 120, int(Path(TOGETHER).read_text(encoding="utf-8"))
    (directory / BEGUN).touch()
    while len(list(directory.parent.glob(f"*/{BEGUN}"))) < count:
        assert time.monotonic() < end, f"fewer than {count} trials fit at once"
        time.sleep(0.1)
    result = steady_trials.train(settings, names, directory, context, report)
    place = [ray.util.get_node_ip_address(), context["gpu_share"], began, time.time()]
    (directory / PLACE).write_text(json.dumps(place), encoding="utf-8")
    return result
