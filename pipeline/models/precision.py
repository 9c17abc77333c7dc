"""The arithmetic of training, and of a GPU: bf16, float32 in full, equal runs with equal bits, a share of memory."""

import os

import torch
import torch.utils.deterministic

from pipeline.errors import UnsupportedError

CONTEXT_GIB = 0.75
"""Memory that CUDA and its kernels take in each process, beside what Torch allocates."""


def full_float32() -> None:
    """Compute products and convolutions of float32 in float32 from now on in this process.

    By default Torch rounds the factors of a GPU's convolutions to TF32, which has 10 bits of fraction in place of 23.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def equal_bits(device: str) -> None:
    """Compute with algorithms that give equal bits in equal runs from now on in this process.

    On a GPU an operation that has none then raises RuntimeError. Equal runs have one kind of GPU, one version of the
    libraries, and the same rows per pass.
    """
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
        # It helps to find bugs, and costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True)


def autocast_type(device: str, wanted: str = "auto") -> torch.dtype | None:
    """Type of matrix products in training; None: float32, that of the weights.

    Args:
        wanted: as in `training.precision`. auto: bf16 where the GPU has it (compute capability 8.0: A100, H100), since
            a V100 or T4 only emulates it; float32 on a CPU. bf16: on a CPU too.

    Raises:
        UnsupportedError: bf16 is wanted of a GPU without.
    """
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bf16" and device == "cuda" and not native:
        raise UnsupportedError("training.precision: 'bf16' and this GPU has no bf16; set auto, or take a newer GPU")
    return torch.bfloat16 if (native and wanted == "auto") or wanted == "bf16" else None


def limit_memory(share: float) -> None:
    """Let this process allocate its share of the GPU's memory, so that it runs out by itself and not its neighbours.

    Args:
        share: share of the GPU that the process was given; 0 or 1 and more: the whole.
    """
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(allocatable(share, gib))


def allocatable(share: float, gib: float) -> float:
    """Fraction of a GPU of `gib` GiB that Torch may allocate under a share of it, CUDA's own memory left out.

    >>> allocatable(0.25, 80.0), allocatable(0.25, 2.0), allocatable(1.0, 80.0), allocatable(0.0, 80.0)
    (0.240625, 0.125, 1.0, 1.0)
    """
    return max(share - CONTEXT_GIB / gib, share / 2) if 0 < share < 1 else 1.0
