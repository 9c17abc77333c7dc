"""The device that computes."""

from pipeline.errors import DataError


def device_of(setting: str) -> str:
    """The device of a setting; "auto" is the GPU where there is one.

    Raises:
        DataError: the setting is "cuda" and there is no GPU.
    """
    import torch

    if setting == "cuda" and not torch.cuda.is_available():
        raise DataError("runtime.device: 'cuda' and no GPU is visible; set it to auto or cpu")
    return setting if setting != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
