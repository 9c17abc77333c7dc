"""A folder in which the real stages run on a small amount of demo data."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.identity.imports import ROOT
from pipeline.running.stage import run_stage

NO_NETWORK = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""A hub where nobody listens."""


def small_params() -> dict[str, Any]:
    """The demo's params with one task of 60 rows and one short trial."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "profiles/demo.yaml").read_text(encoding="utf-8"))
    raw["tasks"] = {"demo-sentences": {"rows": {"train": 40, "selection": 12, "report": 12}}}
    raw["backbones"] = {"demo-albert": {}}
    raw["methods"] = ["joint"]
    raw["grid"] = {"batch_size": [20], "learning_rate": [0.001]}
    raw["seeds"] = [1]
    raw["training"]["epochs"] = 1
    raw["attack"]["tasks"] = {}  # needs a model with one exit beside
    raw["simulate"] = {"layers": 4, "patiences": [1, 2], "step": 0.25, "samples": 50}
    return raw


def changed(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Params with settings replaced, by dotted name; None removes one."""
    out: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(raw)))
    for name, value in changes.items():
        *blocks, last = name.split(".")
        holder = out
        for block in blocks:
            holder = holder.setdefault(block, {})
        if value is None:
            holder.pop(last)
        else:
            holder[last] = deepcopy(value)
    return out


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line that a failed command leaves on stderr."""
        assert self.code == 1, (self.code, self.out, self.err)
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass(frozen=True)
class Workspace:
    """The folder, its environment for subprocesses, and pytest's way to what a command printed."""

    folder: Path
    environment: dict[str, str]
    printed: Callable[[], Any]

    def write_params(self, changes: Mapping[str, Any] | None = None) -> None:
        raw = changed(small_params(), changes or {})
        (self.folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def stage(self, name: str, instance: str = "") -> Done:
        """Run a stage's command in this process, in the working directory."""
        self.printed()
        before = sys.argv
        sys.argv = [name, *([instance] if instance else [])]
        code: Any = 0
        try:
            module = importlib.import_module(f"stages.{name}")
            options = {key: vars(module)[key] for key in ("unasked",) if key in vars(module)}
            run_stage(name, module.main, per_task=name not in ("finetune", "simulate", "report"), **options)
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = before
        said = self.printed()
        return Done(int(code or 0), said.out, said.err)

    def command(self, *arguments: str, **environment: str) -> Done:
        """Run `python ...` in the folder."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start `python ...` in the folder, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def files(self) -> set[str]:
        """What lies under data and outputs."""
        found = [path for top in ("data", "outputs") for path in (self.folder / top).rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix() for path in found}


def kill_group(process: "subprocess.Popen[str]") -> None:
    """SIGKILL a process and its children; wait for it and close its pipe."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
