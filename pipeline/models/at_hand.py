"""Where the files of a pretrained model are to be had from: a mirror, a cache, or the hub."""

from pathlib import Path

SECONDS = 5
"""How long the hub has to answer."""


def place_of_model(name: str, mirror: Path | None) -> str | None:
    """Where a model of the hub, or a local folder, would be loaded from; None where it cannot be had."""
    if Path(name).is_dir():
        return f"the folder {name}"
    if mirror is not None and (mirror / "models" / name).is_dir():
        return f"the mirror {mirror}"
    if is_cached(name):
        return "the hub's cache on this machine"
    return "the hub" if hub_has(name) else None


def is_cached(name: str) -> bool:
    """Whether the hub's cache on this machine has a model."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def hub_has(name: str) -> bool:
    """Whether the hub answers, and has a model of this name."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        address = f"{constants.ENDPOINT}/{name}/resolve/main/config.json"
        return bool(get_session().head(address, timeout=SECONDS).status_code < 400)
    except Exception:  # errors of requests or httpx, by the library's version
        return False
