"""Memory of a model in an engine: a fresh process loads the engine's libraries, opens the model, and answers a batch.

    python -m pipeline.models.memory ENGINE PLACE BATCH THREADS DEVICE

It imports Torch for PyTorch alone, as what is deployed does.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UnsupportedError
from pipeline.identity.imports import ROOT

STATUS = Path("/proc/self/status")
"""Where Linux has a process's memory. What `getrusage` has includes that of the process that started it."""
MIB = 2**20


def measure_memory(
    engine: str, place: Path, batch: Mapping[str, np.ndarray], threads: int, device: str
) -> tuple[float, float] | None:
    """Memory in MiB with the libraries alone, and at most; None on a system without /proc.

    Args:
        engine: as `latency.engines` names it.
        place: the checkpoint's folder for PyTorch, else the exported model's.
        batch: inputs of one batch.

    Raises:
        UnsupportedError: the process died, for which its last line stands.
    """
    if not STATUS.exists():
        return None
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batch.npz"
        arrays: dict[str, Any] = dict(batch)
        np.savez(file, **arrays)
        command = [sys.executable, "-m", "pipeline.models.memory", engine, str(place), str(file), str(threads), device]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths}
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UnsupportedError(f"latency: the process that measures {engine}'s memory ended: {last}; free some memory")
    libraries, peak = json.loads(done.stdout.splitlines()[-1])
    return libraries, peak


def resident(what: str) -> float:
    """Resident memory of this process in MiB: VmRSS, what it is now, or VmHWM, the most it was."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _in_torch(place: Path, threads: int, device: str, precision: str) -> Callable[[Mapping[str, np.ndarray]], object]:
    import torch

    from pipeline.models.live import LiveEngine
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.models.packed import ready

    torch.set_num_threads(threads)
    model = ready(load_checkpoint(place), device, torch.bfloat16 if precision == "bf16" else torch.float32)
    run = LiveEngine(model, None)
    return lambda batch: run({name: torch.from_numpy(values).to(device) for name, values in batch.items()})


def _in_onnx(place: Path, threads: int, precision: str) -> Callable[[Mapping[str, np.ndarray]], object]:
    from pipeline.models.deploy.engine import GraphEngine
    from pipeline.models.deploy.folder import read_description
    from pipeline.models.deploy.segments import Segments

    return GraphEngine(Segments.open(place, read_description(place), precision, threads), None)


def main(engine: str, place: str, file: str, threads: str, device: str) -> None:
    """Print both numbers as JSON."""
    kind, _, precision = engine.partition("-")
    with np.load(file, allow_pickle=False) as stored:
        batch = {name: stored[name] for name in stored.files}
    if kind == "pytorch":
        import torch

        from pipeline.models import live, multi_exit  # noqa: F401

        libraries = resident("VmRSS")
        _in_torch(Path(place), int(threads), device, precision)(batch)
        if device == "cuda":
            print(json.dumps([0.0, torch.cuda.max_memory_allocated() / MIB]))
            return
    else:
        import onnxruntime  # noqa: F401

        from pipeline.models.deploy import engine as _engine  # noqa: F401

        libraries = resident("VmRSS")
        _in_onnx(Path(place), int(threads), precision)(batch)
    print(json.dumps([libraries, resident("VmHWM")]))


if __name__ == "__main__":
    main(*sys.argv[1:])
