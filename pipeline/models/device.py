"""Which device computes."""

from pipeline.errors import DataError


def device_of(wanted: str) -> str:
    """ "auto" is the GPU where there is one.

    Raises:
        DataError: a GPU is asked for and none is there.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DataError("runtime.device: 'cuda' and no GPU is visible; set it to auto or cpu")
    return wanted if wanted != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
