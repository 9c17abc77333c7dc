"""What of a trial travels between its worker, the storage and the driver, and when.

The state after each epoch goes up before the driver hears of the epoch, and the marker goes last, so that what the
storage has is whole at every moment. Only the weights of selected trials come home.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.layout import HERE
from pipeline.models.names import BackboneSpec
from pipeline.params import Params
from pipeline.results import TrialResult
from pipeline.running.ledger import Observer
from pipeline.running.local_files import model_files
from pipeline.running.shared_folder import Inputs, Storage
from pipeline.storage import KnownHashes, file_hash
from pipeline.tasks.stores import files_of, manifest_of
from pipeline.training.code import FILE as CODE
from pipeline.training.plan import HISTORY, RESULT, RESUME, WEIGHTS, Trial, read_result
from pipeline.training.progress import Progress

ERROR = "error.txt"
SMALL = ("settings.json", CODE, "decision.json", HISTORY, "model.json", RESULT, ERROR)
"""Files of a trial that come home from every trial."""


# On the worker


class Travel:
    """A trial's files on its worker; does nothing where all nodes see the project's folder.

    Args:
        directory: the trial's folder, below the working folder.
    """

    def __init__(self, storage: Storage, directory: Path) -> None:
        self.storage, self.directory = storage, directory
        self._sent: dict[str, tuple[int, int]] = {}

    def fetch(self, parent: str | None) -> None:
        """Bring what an earlier attempt left, wherever it ran, and the trial that this one starts from."""
        if not self.storage.travels:
            return
        shutil.rmtree(self.directory, ignore_errors=True)  # another node may have gone further
        self.storage.fetch(*self.storage.names(self.directory))
        self._sent = self._states()
        if parent is not None:
            with FileLock(HERE.runs / "parents.lock"):  # workers of a node share the folder
                fetch_model(self.storage, self.directory.with_name(parent))

    def publish(self) -> None:
        """Send what is new, the state before the weights and both before the marker, and remove what is gone.

        The state is whole without the weights of its own epoch, from which a resumed trial makes them again.
        """
        if not self.storage.travels:
            return
        states = self._states()
        if RESULT not in states:  # an old one must not stand beside new weights
            self.storage.remove(self.directory / RESULT)
        new = sorted((name for name, state in states.items() if self._sent.get(name) != state), key=_order)
        for name in new:
            self.storage.publish(self.directory / name)
        self._sent = states
        there = {path.name for path in self.storage.names(self.directory)}
        self.storage.remove(*(self.directory / name for name in there - states.keys()))

    def _states(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of each file."""
        files = [path for path in self.directory.glob("*") if path.is_file() and path.suffix != ".partial"]
        return {path.name: ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in files}

    def leave(self) -> None:
        """Give the node's disk back."""
        if self.storage.travels:
            shutil.rmtree(self.directory, ignore_errors=True)


def _order(name: str) -> int:
    """Tensors of a state, the state, the rest, the weights, the marker."""
    if name.startswith("resume"):
        return 1 if name == RESUME else 0
    return {WEIGHTS: 3, RESULT: 4}.get(name, 2)


def fetch_model(storage: Storage, directory: Path) -> None:
    """Bring a finished trial's model, unless it is here."""
    storage.fetch(directory / RESULT, directory / "model.json")
    result, weights = read_result(directory), directory / WEIGHTS
    if result is None or not weights.is_file() or file_hash(weights) != result.weights_sha256:
        storage.fetch(weights)


def inputs_of_trials(params: Params, storage: Storage) -> dict[str, Any]:
    """What workers need to find their inputs, for a runner's context: by task/backbone the data and the weights."""
    if not storage.travels:
        return {}
    mirror, inputs, hubs = params.runtime.hub_mirror, {}, {}
    for task in map(params.task, params.tasks):
        manifest = manifest_of(task.name)
        for spec in params.backbones_for(task.modality):
            files = {path: path for path in files_of(manifest, spec.name, ("train", "selection"))}
            weights = model_files(spec, mirror)
            if spec.hub and weights:
                hubs[spec.hub] = _hub_name(spec, mirror)
                files |= {HERE.mirror / "models" / hubs[spec.hub] / path.name: path for path in weights.values()}
            inputs[f"{task.name}/{spec.name}"] = storage.share(files)
    return {"storage": storage.text, "inputs": inputs, "hubs": hubs, "mirror": str(HERE.mirror)}


def _hub_name(spec: BackboneSpec, mirror: Path | None) -> str:
    """The name under which a worker finds a local model: the mirror's, or the folder's path without its root."""
    assert spec.hub is not None
    if mirror is not None and (mirror / "models" / spec.hub).is_dir():
        return spec.hub
    return str(Path(spec.hub).resolve()).lstrip("/")


def take_inputs(storage: Storage, context: Mapping[str, Any], names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put a trial's inputs where its runner looks for them; return the names as they are here."""
    inputs: Inputs = context.get("inputs", {}).get(f"{names.get('task')}/{names.get('backbone')}", {})
    storage.take(inputs)
    hub = context.get("hubs", {}).get(names.get("hub"))
    return names if hub is None else {**names, "hub": hub}


# On the driver


class Home:
    """The driver's copy of trials: what workers stored comes home, and what only this folder has goes up.

    Args:
        root: parent folder of the trial folders.
    """

    def __init__(self, storage: Storage, root: Path) -> None:
        self.storage, self.root, self.decisions = storage, root, root.with_name("searches")
        self.hashes = FetchedHashes(storage)
        self._there = storage.names(root)
        storage.fetch(*storage.names(self.decisions))
        markers = [path for path in self._there if path.name == RESULT and not path.is_file()]
        storage.fetch(*(path.with_name(name) for path in markers for name in (RESULT, HISTORY, "settings.json")))

    def offer(self, trials: Iterable[Trial]) -> None:
        """Send what only this folder has of trials, finished or not."""
        for trial in trials if self.storage.travels else ():
            folder = self.root / trial.key
            if folder.is_dir() and folder / RESULT not in self._there:
                Travel(self.storage, folder).publish()

    def bring(self, *keys: str) -> None:
        """Bring all of trials but states and weights."""
        self.storage.fetch(*(self.root / key / name for key in keys for name in SMALL))

    def send_decisions(self) -> None:
        """Send what searches stopped, so that another driver goes on with it."""
        if self.storage.travels:
            self.storage.publish(*self.decisions.glob("*"))

    def settle(self, progress: Progress) -> None:
        """Bring the selected models."""
        reused = [trial.key for trial in progress.trials() if not (self.root / trial.key / "model.json").is_file()]
        self.bring(*reused)
        for group in progress.plan.groups:
            for trial in progress.selected(group).values() if self.storage.travels else ():
                if progress.results.get(trial.key) is not None:
                    fetch_model(self.storage, self.root / trial.key)

    def drop(self, progress: Progress) -> None:
        """Drop the weights of trials that were not selected, here and there."""
        dropped = set(progress.prune())
        self.storage.remove(*(path for path in self.storage.names(self.root) if _is_dropped(path, dropped)))


def _is_dropped(path: Path, keys: set[str]) -> bool:
    return path.parent.name in keys and (path.name == WEIGHTS or path.name.startswith("resume"))


class FetchedHashes(KnownHashes):
    """Hashes of weights that come home when they are asked for."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(HERE.hashes)
        self.storage = storage

    def of(self, file: Path) -> str | None:
        if not file.is_file():
            self.storage.fetch(file, file.with_name("model.json"))
        return super().of(file)


class Homecoming:
    """An observer who finds in the trial's folder what its worker wrote elsewhere."""

    def __init__(self, observer: Observer, home: Home) -> None:
        self.observer, self.home = observer, home

    def started(self, trial: Trial) -> None:
        self.observer.started(trial)

    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        self.observer.epoch(trial, metrics)

    def stopped(self, trial: Trial) -> None:
        self.home.bring(trial.key)
        self.home.send_decisions()
        self.observer.stopped(trial)

    def ended(self, trial: Trial, result: TrialResult | None) -> None:
        self.home.bring(trial.key)
        self.home.send_decisions()
        self.observer.ended(trial, result)
