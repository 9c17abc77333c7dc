"""What each stage of a finished demo takes, and how much of that is start-up: interpreter, imports, MLflow, exit.

Run where `make demo` has run. Every stage runs once more, with nothing left to train, record or attack, so that a
stage's own work is small and what every run pays stands out. CPU seconds are those of the stage's process.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from pipeline.layout import HERE
from pipeline.running.stage import Stage, run_stage

LIBRARIES = ("torch", "transformers", "mlflow", "sqlalchemy", "ray", "scipy", "sklearn", "pandas", "matplotlib")
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
_MARK = re.compile(r"mark (\w+) ([\d.]+)")


def mark(name: str) -> None:
    print(f"mark {name} {time.monotonic()}", file=sys.stderr, flush=True)


def run_here(name: str, instance: str) -> None:
    """Run a stage in this process and say when its work began and ended."""
    module = importlib.import_module(f"stages.{name}")

    def main(stage: Stage) -> None:
        mark("begin")
        module.main(stage)
        mark("end")

    main.__module__ = "__main__"
    sys.argv = [name, *([instance] if instance else [])]
    run_stage(name, main, **{key: vars(module)[key] for key in ("unasked",) if key in vars(module)})


def measured(name: str, instance: str) -> dict[str, Any]:
    """Seconds of a stage in a process of its own, and of the libraries that it imported."""
    command = [sys.executable, "-X", "importtime", __file__, "--stage", name, instance]
    before, start = os.times(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    after, end = os.times(), time.monotonic()
    if done.returncode:
        raise SystemExit(f"{name} {instance}: {done.stderr.splitlines()[-1]}")
    marks = {match[1]: float(match[2]) for match in _MARK.finditer(done.stderr)}
    begin, finish = marks.get("begin", end), marks.get("end", end)
    _, _, inside = done.stderr.partition("mark begin")
    late = sum(int(micro) for micro, _ in _IMPORT.findall(inside)) / 1e6
    libraries: Counter[str] = Counter()
    for micro, module in _IMPORT.findall(done.stderr):
        libraries[module.partition(".")[0]] += int(micro)
    work = finish - begin - late
    return {
        "stage": f"{name} {instance}".strip(),
        "wall": end - start,
        "CPU": after.children_user + after.children_system - before.children_user - before.children_system,
        "before main": begin - start,
        "imports in main": late,
        "work": work,
        "exit": end - finish,
        "start-up share": f"{1 - work / (end - start):.0%}",
        "libraries": ", ".join(f"{lib} {libraries[lib] / 1e6:.1f}" for lib in LIBRARIES if libraries[lib] > 5e4),
    }


def stages() -> list[tuple[str, str]]:
    """Every stage of the graph with its instances, in their order."""
    graph = yaml.safe_load(Path(__file__).resolve().parent.parent.joinpath("dvc.yaml").read_text(encoding="utf-8"))[
        "stages"
    ]
    tasks = list(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["tasks"])
    tracked = {name: stage for name, stage in graph.items() if name != "settings"}
    return [(name, task) for name, stage in tracked.items() for task in (tasks if "foreach" in stage else [""])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", nargs=2, metavar=("NAME", "TASK"), help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", help="stages to run; all")
    given = parser.parse_args()
    if given.stage:
        return run_here(*given.stage)
    if not (HERE.report / "index.html").is_file():
        print("no finished demo here: run `make demo` first")
        return None
    from benchmarks.common import table  # imports Torch, which not every stage does

    rows = [measured(name, task) for name, task in stages() if not given.only or name in given.only]
    table(list(rows[0]), [list(row.values()) for row in rows])
    return None


if __name__ == "__main__":
    main()
