"""Where the files of a pretrained model or a data set are to be had from: a mirror, a cache, or the hub."""

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


def is_cached(name: str, data: bool = False) -> bool:
    """Whether the hub's cache on this machine has some of a model or, with `data`, a data set."""
    from huggingface_hub import constants

    kind = "datasets" if data else "models"
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())


def hub_has(name: str, data: bool = False) -> bool:
    """Whether the hub answers, and has a model or, with `data`, a data set of this name."""
    return _answers(f"api/{'datasets' if data else 'models'}/{name}")


def hub_answers() -> bool:
    """Whether the hub answers at all."""
    return _answers("")


def _answers(path: str) -> bool:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        return bool(get_session().head(f"{constants.ENDPOINT}/{path}", timeout=SECONDS).status_code < 400)
    except Exception:  # errors of requests or httpx, by the library's version
        return False
