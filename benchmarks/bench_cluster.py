"""How much of a cluster's time is work: 24 equal trials on 2 slots, and what the driver adds to each of many.

One Ray Tune run as finetune does it, with trials that sleep and the bookkeeping alone: first 24 of six seconds on two
slots, then plans of 500 and 2,000 empty ones (`--trials 10000` for more). What a run of MLflow costs is in
bench_stages, the plan's own share in bench_plan.

Prints the figures; exit code 1 when a promise is broken.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from pipeline.results import TrialResult
from pipeline.running.ray.tune import run_plan
from pipeline.running.settings import Runtime
from pipeline.storage import file_hash
from pipeline.training.plan import WEIGHTS, Group, Plan, Trial, run_trial

EQUAL, SLOTS, SECONDS, EPOCHS, SMALL = 24, 2, 6.0, 3, 500
BUSY, GROWTH = 0.9, 1.5
"""The promises: least share of busy time, and the largest ratio of the driver's CPU time per trial in the large plan to
that in the small one."""


def sleep(
    settings: Mapping[str, Any],
    names: Mapping[str, Any],
    directory: Path,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> TrialResult:
    """A trial that sleeps, in a worker; it says when it ran."""

    def work(folder: Path) -> TrialResult:
        began = time.time()
        for epoch in range(1, EPOCHS + 1):
            time.sleep(settings["seconds"] / EPOCHS)
            report({"epoch": epoch, "selection": settings["learning_rate"]})
        (folder / WEIGHTS).write_bytes(b"toy")
        (folder / "ran.json").write_text(json.dumps([began, time.time()]))
        return TrialResult(
            best_epoch=1, epochs_run=EPOCHS, selection=settings["learning_rate"], train_seconds=settings["seconds"],
            train_seconds_to_best=0.0, micro_batch=None, metrics={}, parameters=1, early_exit_parameters=0, layers=1,
            exits=(1,), weights_sha256=file_hash(folder / WEIGHTS), code="",
        )  # fmt: skip

    return run_trial(settings, directory, work)


class Silent:
    """No MLflow; what a run of it costs is in bench_stages."""

    def started(self, trial: Trial) -> None: ...
    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None: ...
    def ended(self, trial: Trial, result: TrialResult | None) -> None: ...
    def stopped(self, trial: Trial) -> None: ...


def plan_of(trials: int, seconds: float) -> Plan:
    """Groups of a grid of 4 x 6 points with one seed, and of what is left."""
    points = [24] * (trials // 24) + [trials % 24] * bool(trials % 24)
    return Plan(
        tuple(
            Group(
                f"group-{i}",
                {"seconds": seconds, "group": i},
                batch_sizes=(16,),
                learning_rates=tuple((n + 1) / 1000 for n in range(count)),
            )
            for i, count in enumerate(points)
        ),
        (1,),
    )


def run(trials: int, seconds: float) -> tuple[float, ...]:
    """Run a plan.

    Returns:
        Wall seconds with Ray's start; from the first trial's start to the last one's end: wall seconds, and the share
        of the slots' time in which a trial ran; the driver's CPU seconds and its peak MiB.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "trials"
        began, cpu = time.time(), time.process_time()
        run_plan(
            plan_of(trials, seconds),
            runner="benchmarks.bench_cluster:sleep",
            root=root,
            runtime=Runtime(workers=SLOTS, progress=False),
            context={"folder": str(Path(__file__).resolve().parent.parent)},
            observer=Silent(),
        )
        wall, cpu = time.time() - began, time.process_time() - cpu
        spans = [json.loads(path.read_text()) for path in root.glob("*/ran.json")]
    busy = sum(end - begin for begin, end in spans)
    span = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return wall, span, busy / SLOTS / span, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(trials: int, seconds: float) -> tuple[float, ...]:
    """As `run`, in a process of its own, whose memory no other plan has touched."""
    command = [sys.executable, __file__, "--only", str(trials), "--seconds", str(seconds)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(json.loads(said.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2_000, help="trials of the large plan")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        print(json.dumps(run(options.only, options.seconds)))
        return 0
    wall, span, busy, *_ = apart(EQUAL, SECONDS)
    print(
        f"{EQUAL} trials of {SECONDS:g} s on {SLOTS} slots: busy {busy:.3f} of {span:.1f} s; Ray included {wall:.1f} s"
    )
    empty = {trials: apart(trials, 0.0) for trials in (SMALL, options.trials)}
    base = apart(1, 0.0)
    each = {}
    for trials, (_, span, _, cpu, peak) in empty.items():
        each[trials] = (1000 * span / trials, 1000 * (cpu - base[3]) / trials, 1024 * (peak - base[4]) / trials)
        print("{:,} empty trials: {:.1f} ms wall, {:.2f} ms CPU, {:.1f} KiB each".format(trials, *each[trials]))
    growth = each[options.trials][1] / each[SMALL][1]
    print(f"promised: busy at least {BUSY} ({busy:.3f}), CPU per trial at most {GROWTH} times ({growth:.2f})")
    return int(busy < BUSY or growth > GROWTH)


if __name__ == "__main__":
    raise SystemExit(main())
