"""A check that the hub answers, once per process."""

import functools
import sys
from pathlib import Path


def prepare_for(where: str) -> None:
    """Call this before loading a name from the hub: where the hub does not answer, its libraries use their caches only.

    Otherwise they print lines and try six times over half a minute before they look into the cache.
    """
    if not Path(where).is_dir():
        _offline_unless_reachable()


@functools.cache
def _offline_unless_reachable() -> None:
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # errors of requests or httpx, by the library's version
        constants.HF_HUB_OFFLINE = True
        # Libraries that are already imported have copied the flag.
        for module, flag in (("datasets.config", "HF_HUB_OFFLINE"), ("transformers.utils.hub", "_is_offline_mode")):
            if module in sys.modules:
                setattr(sys.modules[module], flag, True)
