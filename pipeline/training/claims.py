"""Who trains a trial: one driver at a time, of those that share the cache."""

from pathlib import Path

from filelock import FileLock, Timeout


class Claims:
    """The trials that this driver alone may train; a claim ends with `drop`, or with the process.

    Args:
        folder: holds a lock file per key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, FileLock] = {}

    def take(self, key: str) -> bool:
        """Claim a trial; False where another driver holds it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{key}.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._held[key] = lock
        return True

    def drop(self, key: str) -> None:
        """Leave the trial to others."""
        self._held.pop(key).release()
