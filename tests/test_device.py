"""Memory between the trials of a worker."""

import subprocess
import sys

from pipeline.identity.imports import ROOT

TRIALS = """
import threading
import torch
from pipeline.models.device import give_back_memory
from pipeline.models.memory import resident

def trial():
    small = [torch.ones(2**18) for _ in range(300)]  # 300 MiB, none of which is large enough to be mapped by itself
    last = small[-1]
    del small[1::2]

for _ in range(3):
    thread = threading.Thread(target=trial)  # as Ray runs a trial
    thread.start()
    thread.join()
    kept = resident("VmRSS")
    give_back_memory("cpu")
    print(round(kept), round(resident("VmRSS")))
"""


def test_what_a_trial_has_freed_is_given_back() -> None:
    """With the settings of a local Ray's workers, which keep freed memory for the next step."""
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", TRIALS], env=keep, capture_output=True, text=True, check=True)
    trials = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    kept, after = zip(*trials, strict=True)
    assert kept[-1] - after[-1] > 100, "MiB: there is something to give back"
    assert max(after) - min(after) < 100, "no trial leaves much behind; one of glibc's heaps, 64 MiB, may stay"
