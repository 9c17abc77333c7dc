"""What the settings need from outside, asked for real: reachable, or the remedy."""

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.errors import (
    ClusterError,
    DataError,
    PipelineError,
    StorageError,
    TrackingError,
    UnsupportedError,
    one_line,
    redacted,
)
from pipeline.layout import HERE
from pipeline.params import Params, load_params
from pipeline.results.latency import RunsIn
from pipeline.tasks.task import FileSource, HubSource, Task

State = Literal["ok", "failed", "unused"]
ONNX = ("onnx", "onnxruntime", "onnxscript")
LITTLE = 5
"""GiB of free disk below which a warning is due: a pretrained model, its trials and traces."""


class UnusedError(Exception):
    """What the settings do not ask for; the text says how to."""


@dataclass(frozen=True)
class Finding:
    """One thing that was asked for."""

    what: str
    state: State
    text: str

    def __str__(self) -> str:
        mark = {"ok": "ok", "failed": "FAILED", "unused": "-"}[self.state]
        return f"{mark:<7} {self.what:<22} {self.text}"


def examine() -> Iterator[Finding]:
    """Ask for everything that params.yaml and the environment name; each finding as it is known.

    Nothing is written that a run would not write: a probe in the storage is removed again.
    """
    found, params = _asked("settings", _settings), None
    yield found
    if found.state == "ok":
        params = load_params()
    yield _asked("disk", _disk)
    if params is None:
        return
    for what, check in _checks(params):
        yield _asked(what, check)


def _asked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", redacted(check()))
    except UnusedError as unused:
        return Finding(what, "unused", redacted(str(unused)))
    except PipelineError as error:
        return Finding(what, "failed", one_line(error))
    except OSError as error:  # a disk or a network that refuses in words of its own
        return Finding(what, "failed", one_line(error))


def _checks(params: Params) -> Iterator[tuple[str, Callable[[], str]]]:
    mirror = params.runtime.hub_mirror
    yield "hub", partial(_hub, mirror)
    for name in params.tasks:
        yield f"data {name}", partial(_data, params.task(name), mirror)
    for name in params.backbones:
        yield f"model {name}", partial(_model, params, name, mirror)
    yield "device", partial(_device, params)
    yield "onnx", partial(_onnx, params)
    yield "ray", partial(_ray, params)
    yield "storage", partial(_storage, params)
    yield "mlflow", partial(_mlflow, params)
    yield "dvc remote", _remote
    yield "attack resources", partial(_attack, params)


def _settings() -> str:
    params = load_params()
    return f"{HERE.params}: {', '.join(params.tasks)} on {', '.join(params.backbones)} by {', '.join(params.methods)}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < LITTLE:
        raise StorageError(f"{free:.1f} GiB free in {Path.cwd()}; a run needs some {LITTLE}: free some space")
    return f"{free:.0f} GiB free in {Path.cwd()}"


def _hub(mirror: Path | None) -> str:
    from pipeline.models.at_hand import hub_answers

    if mirror is not None:
        if not mirror.is_dir():
            raise DataError(f"HUB_MIRROR {mirror}: no such folder; mend the path, or unset it")
        return f"the mirror {mirror} comes first"
    if hub_answers():
        return "answers"
    raise UnusedError("does not answer: what is not in its cache on this machine needs a mirror (HUB_MIRROR)")


def _data(task: Task, mirror: Path | None) -> str:
    from pipeline.models.at_hand import hub_has, is_cached
    from pipeline.running.local_files import source_files

    files = source_files(task, mirror)
    source = task.source
    if isinstance(source, FileSource):
        return f"{len(files)} file{'s' * (len(files) != 1)}, {sum(map(_size, files.values())) / 2**20:.1f} MiB"
    if not isinstance(source, HubSource):
        return "generated here"
    if files:
        return f"{source.hub}, in the mirror {mirror}"
    if is_cached(source.hub, data=True) or hub_has(source.hub, data=True):
        return f"{source.hub}, from the hub or its cache"
    raise DataError(f"{source.hub}: in no mirror and no cache, and the hub does not have it or answer; set HUB_MIRROR")


def _size(path: Path) -> int:
    return path.stat().st_size


def _model(params: Params, name: str, mirror: Path | None) -> str:
    from pipeline.models.at_hand import place_of_model
    from pipeline.models.names import hub_path
    from pipeline.models.weights import weight_files

    hub = params.backbone(name).hub
    if hub is None:
        return "starts from random weights"
    place = place_of_model(hub, mirror)
    if place is None:
        raise DataError(f"{hub}: in no mirror and no cache, and the hub does not have it or answer; set HUB_MIRROR")
    if Path(hub_path(hub, mirror)).is_dir():
        weight_files(hub, mirror)  # refuses pickles
    return f"{hub}, from {place}"


def _device(params: Params) -> str:
    import torch

    from pipeline.models.device import device_of

    device = device_of(params.runtime.device)
    if device == "cuda":
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"the CPU, {len(os.sched_getaffinity(0))} cores; no GPU is used here"


def _onnx(params: Params) -> str:
    """What export writes with, and what its models run in."""
    from pipeline.models.deployments import refuse_engines
    from pipeline.models.device import device_of

    timed = [*params.latency.engines] if params.latency.tasks else []
    chosen = [params.evaluate.choose.engine or "pytorch"]
    attacked: list[RunsIn] = [params.attack.engine] if params.attack.tasks else []
    engines = {"latency.engines": timed, "evaluate.choose.engine": chosen, "attack.engine": attacked}
    asked = {key: [name for name in names if name.startswith("onnx-")] for key, names in engines.items()}
    key = next((key for key, names in asked.items() if names), "export.tasks")
    if key == "export.tasks" and not params.export.tasks:
        raise UnusedError("no task is exported; add one to export.tasks for ONNX models")
    lacking = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if lacking:
        raise UnsupportedError(
            f"{key}: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed; "
            "`pip install -e '.[deploy]'`, or take it out"
        )
    for name, names in asked.items():
        refuse_engines(names, device_of(params.runtime.device), key=name)
    return f"ONNX Runtime {importlib.metadata.version('onnxruntime')}, for {key}"


def _ray(params: Params) -> str:
    from pipeline.running.ray.cluster import resources_of
    from pipeline.running.ray.resources import parallel, refuse_on_machine

    runtime = params.runtime
    if runtime.ray_address is None:
        refuse_on_machine(runtime)
        return f"a cluster of our own on this machine, {parallel(runtime, 0.0)} trials side by side"
    nodes, resources = resources_of(runtime)
    if not nodes:
        raise ClusterError(f"{runtime.ray_address}: has no node that is alive; see `ray status` there")
    amounts = ", ".join(f"{count:g} {kind}" for kind, count in resources.items())
    return f"{runtime.ray_address}: {nodes} node{'s' * (nodes != 1)}, {amounts}"


def _storage(params: Params) -> str:
    from pipeline.running.storage import open_storage

    if params.runtime.storage is None:
        raise UnusedError(
            "this project's folder, which all nodes must see; or set EARLY_EXIT_STORAGE=s3://BUCKET/PREFIX"
        )
    storage = open_storage(params.runtime.storage)
    storage.check()
    return f"{storage.name}: written, read and removed a probe"


def _mlflow(params: Params) -> str:
    from pipeline.running.mlflow.client import Client
    from pipeline.running.store import database_of, database_uri, shown

    uri = params.runtime.tracking_uri or database_uri(HERE.tracking_store)
    database = database_of(uri)
    if database is not None and not database.exists():
        if not os.access(database.absolute().parent, os.W_OK):
            raise TrackingError(f"{database}: its folder cannot be written; make it writable, or name another place")
        return f"the database {database} will be made"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    Client(uri).search_experiments(max_results=1)
    return f"{shown(uri)} answers"


def _remote() -> str:
    from dvc.config import NoRemoteError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            remote = repo.cloud.get_remote()
            there = remote.fs.exists(remote.path)
    except NoRemoteError:
        raise UnusedError("none; `dvc remote add --default NAME ADDRESS` lets others take results over") from None
    except DvcException as error:
        raise StorageError(f"{one_line(error)}; mend .dvc/config") from None
    except Exception as error:  # each kind of remote has errors of its own
        raise StorageError(f"{one_line(error)}; check its address (`dvc remote list`) and credentials") from None
    return f"{remote.path} {'answers' if there else 'answers, and holds nothing yet'}"


def _attack(params: Params) -> str:
    from pipeline.attacks.needs import check

    attack = params.attack
    if not attack.tasks:
        raise UnusedError("no task is attacked")
    check(attack.resources, attack.recipe)
    return f"all that {attack.recipe} needs"
