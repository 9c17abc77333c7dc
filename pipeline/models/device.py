"""The device that computes."""

import ctypes
import os

from pipeline.errors import DataError
from pipeline.identity.versions import processor


def device_of(setting: str) -> str:
    """The device of a setting; "auto" is the GPU where there is one.

    Raises:
        DataError: the setting is "cuda" and there is no GPU.
    """
    import torch

    if setting == "cuda" and not torch.cuda.is_available():
        raise DataError("runtime.device: 'cuda' and no GPU is visible; set it to auto or cpu")
    return setting if setting != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def give_back_memory(device: str) -> None:
    """Give what freed tensors held back to the GPU or the system, for the next trial here and for its neighbours.

    glibc keeps what a thread has freed for that thread, and each of a worker's trials has one of its own.
    """
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def cores() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """This machine's processor, with the number of CPUs that this process may use."""
    return f"{processor()}, {cores()} CPU{'s' * (cores() != 1)}"
