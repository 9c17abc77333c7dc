"""Whether the hub answers, asked once."""

import functools
import sys
from pathlib import Path


def prepare_for(where: str) -> None:
    """Call before a name is loaded from the hub: where nobody answers there, its libraries use their caches only.

    Left alone they try six times over half a minute, with lines of their own, before they look into the cache.
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
    except Exception:  # requests' or httpx's own kinds, by the library's version
        constants.HF_HUB_OFFLINE = True
        # Libraries copy the flag when they are imported, which may have been before.
        for module, flag in (("datasets.config", "HF_HUB_OFFLINE"), ("transformers.utils.hub", "_is_offline_mode")):
            if module in sys.modules:
                setattr(sys.modules[module], flag, True)
