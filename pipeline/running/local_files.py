"""The local files that a run reads, so that DVC sees their changes: own data, local models, the hub mirror.

DVC watches paths that dvc.yaml names, and these stand in params.yaml and the environment. So the stage `settings`
writes links to them, as an output that DVC hashes and does not keep: where a file's content changed, the output did,
and the stage runs again. Their hashes go into the settings of the stages that read them (docs/design/graph.md).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

from pipeline.attacks.settings import AttackResources
from pipeline.errors import ArtifactError, DataError, shown
from pipeline.layout import Workspace
from pipeline.models.names import BackboneSpec, hub_path
from pipeline.models.weights import weights_identity
from pipeline.params import Params
from pipeline.results import Attack, Manifest, Trials
from pipeline.storage import file_hash, whole_folder
from pipeline.tasks.task import FileSource, HubSource, Task

Files = Mapping[str, Path]
"""Role of each file, such as source/train.csv, to its path."""
_WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt")


def source_files(task: Task, mirror: Path | None) -> dict[str, Path]:
    """The files of a task's source; none where it is generated or comes from the hub.

    Raises:
        DataError: a file that params.yaml names is missing.
    """
    source = task.source
    if isinstance(source, FileSource):
        files: dict[str, Path] = {}
        for key, path in _named(task, source).items():
            if not _exists(path):
                raise DataError(
                    f"tasks.{task.name}.source.{key}: {shown(str(path))}: no such file; check the path in params.yaml"
                )
            split = key.rpartition(".")[2]
            if path.is_file():
                files[f"source/{split}{path.suffix}"] = path
                pictures = _pictures(task, source, path) if task.modality == "image" else ()
                files |= {f"source/{split}/{row}{at.suffix}": at for row, at in pictures}
            elif task.modality == "text":  # Parquet in parts
                files |= {f"source/{split}/{part}": at for part, at in _below(path)}
            elif task.modality == "image":
                classes = [(name, path / name) for name in task.label_names]
                files |= {f"source/{split}/{name}/{part}": at for name, of in classes for part, at in _below(of)}
        return files
    if not isinstance(source, HubSource) or mirror is None:
        return {}
    folder = mirror / "datasets" / source.hub
    if not folder.is_dir() and task.torchvision:
        folder = mirror / "torchvision" / task.torchvision[1]
    return {f"source/{part}": path for part, path in _below(folder)} if folder.is_dir() else {}


def _pictures(task: Task, source: FileSource, table: Path) -> Iterator[tuple[int, Path]]:
    """The files that a table of images names, by row; none where it holds their bytes, or is refused later."""
    import pyarrow as pa

    from pipeline.tasks.files import read_file
    from pipeline.tasks.sources import label_column

    column = task.image or ""
    try:
        with redirect_stdout(StringIO()):  # prepare says how it is read
            values = read_file(table, (column, task.label), source.quoted, label_column(task))[column]
    except (DataError, KeyError):
        return
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return  # bytes: not made Python's for nothing
    for row, name in enumerate(values.to_pylist()):
        picture = table.parent / name if isinstance(name, str) else table.parent
        if _exists(picture) and picture.is_file():
            yield row, picture


def _named(task: Task, source: FileSource) -> dict[str, Path]:
    """The source's paths by their keys in params.yaml."""
    report = {f"report.{split}": path for split, path in source.report.items()}
    test = {f"test.{split}": source.test[split] for split in task.unlabelled}
    return {"train": source.train, **report, **test}


def _below(path: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder with their paths in it, sorted."""
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            at = Path(folder, name)
            if _is_seen(at):
                yield at.relative_to(path).as_posix(), at


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file system takes
        return False


def _is_seen(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def model_files(spec: BackboneSpec, mirror: Path | None) -> dict[str, Path]:
    """The files of a backbone's local folder; none where it comes from the hub or has no pretrained weights."""
    folder = Path(hub_path(spec.hub, mirror)) if spec.hub else None
    if folder is None or not (folder / "config.json").is_file():
        return {}
    return {f"{spec.name}/{path.name}": path for path in sorted(folder.iterdir()) if _is_seen(path)}


def tokenizer_files(spec: BackboneSpec, mirror: Path | None) -> dict[str, Path]:
    """The files of a backbone's local folder that hold no weights: its tokenizer and configuration."""
    return {role: path for role, path in model_files(spec, mirror).items() if path.suffix not in _WEIGHTS}


def attack_files(params: Params, task: Task) -> dict[str, Path]:
    """The files that an attack on a task reads: its resources, and an attack set of the hub mirror.

    Raises:
        DataError: a path that params.yaml names is missing.
    """
    chosen = params.attack.tasks.get(task.name)
    files: dict[str, Path] = {}
    if chosen is None:
        return {}
    if chosen.source is not None and params.runtime.hub_mirror is not None:
        folder = params.runtime.hub_mirror / "datasets" / chosen.source.hub
        files |= {f"examples/{part}": path for part, path in _below(folder)} if folder.is_dir() else {}
    if isinstance(params.attack.resources, AttackResources):
        for name, path in params.attack.resources:
            if isinstance(path, Path):
                if not _exists(path):
                    raise DataError(
                        f"attack.resources.{name}: {shown(str(path))}: no such file or folder; check the path"
                    )
                files |= {
                    f"{name}/{part}": at for part, at in ([(path.name, path)] if path.is_file() else _below(path))
                }
    return files


def refuse_lost_files(params: Params, here: Workspace) -> None:
    """Refuse what the run would remove: DVC empties a stage's output before the stage runs.

    Raises:
        DataError: a task's folder of prepared data holds other files, or a source lies where the run writes.
    """
    places = [here.data(name).absolute() for name in params.tasks]
    places += [here.outputs.absolute(), here.runs.absolute()]
    for task in map(params.task, params.tasks):
        folder = here.data(task.name)
        if folder.exists() and not here.manifest(task.name).is_file() and (folder.is_file() or any(folder.iterdir())):
            raise DataError(
                f"{folder}: holds files that no run made, and task {task.name!r} writes its data there; move them, or "
                "rename the task"
            )
        for key, path in _named(task, task.source).items() if isinstance(task.source, FileSource) else ():
            place = next((place for place in places if path.absolute().is_relative_to(place)), None)
            if place is not None:
                raise DataError(
                    f"tasks.{task.name}.source.{key}: {path} lies in {place.name}, which the run writes anew; move it"
                )


def hashes(files: Files) -> dict[str, str]:
    """SHA-256 of each file's content by its role."""
    return {role: file_hash(path) for role, path in files.items()}


def prepared_from(params: Params, task: Task, here: Workspace) -> dict[str, str]:
    """Hashes of the local files that `prepare` reads for a task.

    Where none of a source or model is on this machine, as in a clone that pulled the prepared data, they are those that
    the prepared data were made from.
    """
    mirror = params.runtime.hub_mirror
    specs = params.backbones_for("text") if task.modality == "text" else []
    recorded = _recorded(task, here)
    known = recorded.files if recorded else {}
    parts = {"source": lambda: source_files(task, mirror)}
    parts |= {spec.name: partial(tokenizer_files, spec, mirror) for spec in specs}
    out: dict[str, str] = {}
    for name, files in parts.items():
        out |= hashes(_found(files, bool(known))) or {r: h for r, h in known.items() if r.startswith(f"{name}/")}
    return out


def attacked_with(params: Params, task: Task, here: Workspace) -> dict[str, str]:
    """Hashes of the local files that `attack` reads for a task; where none is here, of those that it was made with."""
    try:
        attacked = Attack.read(here.attack(task.name), "").attacked
    except ArtifactError:
        attacked = ()
    known = attacked[0].files if attacked else {}
    return hashes(_found(lambda: attack_files(params, task), bool(known))) or known


def _found(files: Callable[[], Files], known: bool) -> Files:
    """The files; none where a path is missing and its hash is known."""
    try:
        return files()
    except DataError:
        if known:
            return {}
        raise


def _recorded(task: Task, here: Workspace) -> Manifest | None:
    """The manifest of the task's prepared data, where they come from the same source."""
    try:
        manifest = Manifest.read(here.manifest(task.name), "")
    except ArtifactError:
        return None
    return manifest if manifest.source == task.source.model_dump(mode="json") else None


def weights_of(params: Params, here: Workspace) -> dict[str, str]:
    """The identity of each backbone's pretrained weights that are on this machine; of others, as they were trained."""
    mirror, out = params.runtime.hub_mirror, {}
    for spec in map(params.backbone, params.backbones):
        if spec.hub and model_files(spec, mirror):
            out[spec.name] = weights_identity(spec.hub, mirror, here.weights)
        elif spec.hub and (trained := _trained(spec.name, here)):
            out[spec.name] = trained
    return out


def _trained(backbone: str, here: Workspace) -> str | None:
    """The identity of the weights from which the backbone's trials started; None where there are none."""
    try:
        trials = Trials.read(here.trials_table, "").trials
    except ArtifactError:
        return None
    return next((str(trial.settings["weights"]) for trial in trials if trial.group.split("/")[1] == backbone), None)


def write_links(params: Params, here: Workspace) -> None:
    """Write a link to each local file, for DVC to watch; none to what is not on this machine."""
    mirror = params.runtime.hub_mirror
    links: dict[str, Path] = {}
    for task in map(params.task, params.tasks):
        for stage, files in (
            ("prepare", partial(source_files, task, mirror)),
            ("attack", partial(attack_files, params, task)),
        ):
            links |= {f"{stage}/{task.name}/{role}": path for role, path in _found(files, True).items()}
    for spec in map(params.backbone, params.backbones):
        links |= {f"backbones/{role}": path for role, path in model_files(spec, mirror).items()}
    root = here.root.resolve()
    with whole_folder(here.local_files) as folder:
        for role, path in links.items():
            link, target = folder / role, path.absolute()
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent.resolve()) if target.is_relative_to(root) else target)
