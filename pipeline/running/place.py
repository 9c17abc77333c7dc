"""The identity of the project's folder, by which its runs are known on a store that others use too.

A folder that was moved keeps its identity; a copy gets another one, so that it does not end the original's runs, and
remembers the former, whose runs trained what it reuses. An experiment of DVC in a temporary folder has its project's.
"""

import json
import re
import socket
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.layout import HERE
from pipeline.storage import write_json


@dataclass(frozen=True)
class Place:
    """A folder's identity.

    Attributes:
        id: tags its runs.
        former: ids of the folders that it was copied from, the latest first.
        path, inode, host: where it was when a stage last ran.
    """

    id: str
    former: tuple[str, ...]
    path: str
    inode: int
    host: str


def this_place() -> Place:
    """The identity of the project's folder; made, or made anew for a copy, and stored. Not safe beside another call."""
    here = HERE.home.absolute()
    stored = _read(HERE.folder_id)
    place = Place(uuid.uuid4().hex[:16], (), str(here), here.stat().st_ino, socket.gethostname())
    if stored is not None and _moved(stored, place):
        place = replace(place, id=stored.id, former=stored.former)
    elif stored is not None:
        place = replace(place, former=(stored.id, *stored.former))
    if place != stored:
        write_json(HERE.folder_id, asdict(place))
    return place


def _moved(stored: Place, here: Place) -> bool:
    """Whether the stored folder is this one, moved or not, and not its original.

    It is a copy where the original is still there. Where it is not, it was moved, unless that place is on another
    machine: a move within a disk keeps the inode, and all machines see the same inode on a shared disk.
    """
    if not stored.path:  # from before places were stored
        return True
    original = _read(Path(stored.path) / HERE.folder_id.relative_to(HERE.home))
    if stored.path != here.path and original is not None and original.id == stored.id:
        return Path(here.path).samefile(stored.path)  # one folder under two paths
    return stored.inode == here.inode or stored.host == here.host


def _read(path: Path) -> Place | None:
    try:
        text = path.read_text(encoding="utf-8")
        if re.fullmatch(r"[0-9a-f]{16}", text):
            return Place(text, (), "", 0, "")
        raw: dict[str, Any] = json.loads(text)
        return Place(**raw | {"former": tuple(raw["former"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
