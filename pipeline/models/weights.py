"""The identity of pretrained weights: a hash of tensors and configuration, whatever their folder or name."""

import hashlib
import json
import mmap
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, DataError
from pipeline.layout import HERE
from pipeline.models.names import hub_path
from pipeline.storage import claimed, content_key, read_json, write_json
from pipeline.tasks.hub import prepare_for

CANDIDATES = ("model.safetensors", "model.safetensors.index.json")
"""Files that may hold a model's weights, in Transformers' order. Pickles (pytorch_model.bin) are never opened: to
unpickle a file is to run what its author put there."""
_PICKLES = "pytorch_model*.bin"
_CONVERT = (
    'python -c "import glob, torch; from safetensors.torch import save_file; '
    f"save_file({{k: v.clone().contiguous() for p in glob.glob('{_PICKLES}') "
    "for k, v in torch.load(p, weights_only=True).items()}, "
    f"'{CANDIDATES[0]}', {{'format': 'pt'}})\""
)
"""A command that writes a folder's pickled weights as safetensors. It needs no class of the model, and `weights_only`
unpickles tensors alone."""
IGNORED = frozenset(
    {
        *("_name_or_path", "_commit_hash", "architectures", "transformers_version", "finetuning_task"),
        *("id2label", "label2id", "problem_type", "task_specific_params"),
        *("dtype", "torch_dtype", "use_cache", "gradient_checkpointing"),
    }
)
"""Fields of a configuration that name the model, describe an unused head, or are set on loading."""
SCHEMA = 1


def weights_identity(name: str, mirror: Path | None, cache: Path = HERE.weights) -> str:
    """A hash of pretrained weights: names, shapes, types and bytes of all tensors, and the configuration.

    It does not depend on whether the weights come from a folder, a mirror or the hub, in one file or in shards. Missing
    weights are downloaded from the hub, as a trial would do.

    Args:
        name: hub name or local folder.
        cache: JSON file with the hashes of unchanged files, so that each file is read once.

    Returns:
        16 hex digits.

    Raises:
        DataError: the weights cannot be loaded, or are pickled.
    """
    with _one_line(name):
        config = json.loads(_files_of(name, mirror)("config.json").read_text(encoding="utf-8"))
        fields = {key: value for key, value in config.items() if key not in IGNORED and value is not None}
        return content_key({"config": fields, "tensors": _cached(weight_files(name, mirror), cache)})


def weight_files(name: str, mirror: Path | None) -> list[Path]:
    """The safetensors that Transformers would load.

    Raises:
        DataError: there are none, or the index names another kind of file.
    """
    fetch, absent = _files_of(name, mirror), FileNotFoundError()
    with _one_line(name):
        for candidate in CANDIDATES:
            try:
                path = fetch(candidate)
            except FileNotFoundError as error:
                absent = error
                continue
            if not candidate.endswith(".json"):
                return [path]
            shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
            if shards and all(shard.endswith(".safetensors") for shard in shards):
                return [fetch(shard) for shard in shards]
        if type(absent) is not FileNotFoundError:  # the hub's: it does not answer, and the file is not in the cache
            raise absent
    raise _refusal(name, mirror)


def _refusal(name: str, mirror: Path | None) -> DataError:
    """The error for a model without safetensors, with a command that makes them and runs no code of the author."""
    start = f"backbones: {name!r} has no safetensors ({CANDIDATES[0]} or its index), and "
    folder = Path(hub_path(name, mirror))
    if not folder.is_dir():
        fetch = f"hf download {shlex.quote(name)} --local-dir FOLDER"
        remedy = f"convert them once with `{fetch} && (cd FOLDER && {_CONVERT})`, and give hub: FOLDER"
    elif any(folder.glob(_PICKLES)):
        remedy = f"convert them once, beside them, with `(cd {shlex.quote(str(folder))} && {_CONVERT})`"
    else:
        return DataError(f"{start}no pickled weights to convert either; put its weights into {str(folder)!r}")
    return DataError(f"{start}pickled weights are never opened; if you trust them, {remedy}")


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn the errors of a missing or damaged file, name or network into DataError."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"backbones: no weights of {name!r} ({reason}); check the name and the network, or name a mirror on disk "
            "with HUB_MIRROR"
        ) from None


def _files_of(name: str, mirror: Path | None) -> Callable[[str], Path]:
    """A function from a file name of the model to its local path; it raises FileNotFoundError where there is no such
    file, and a subclass where the hub does not answer and the file is not in the cache."""
    where = hub_path(name, mirror)
    folder = Path(where)
    if folder.is_dir():
        return lambda file: (folder / file).resolve(strict=True)
    prepare_for(where)
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    offline = constants.HF_HUB_OFFLINE  # said again: a session that is open already would try for half a minute

    def fetch(file: str) -> Path:
        try:
            return Path(hf_hub_download(where, file, local_files_only=offline))
        except EntryNotFoundError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise FileNotFoundError(f"{where} has no {file}") from None

    return fetch


def _cached(files: list[Path], cache: Path) -> str:
    """The hash of weight files, from the cache where no file has changed."""
    # ctime changes with every edit and, unlike mtime, cannot be set back.
    stats = [(str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for p in files for s in [p.stat()]]
    state = content_key({"files": stats})
    try:
        hashes: dict[str, str] = read_json(cache, SCHEMA, "")["hashes"]
    except (ArtifactError, KeyError):
        hashes = {}
    if state not in hashes:
        hashes[state] = content_key({tensor: entry for path in files for tensor, entry in _tensors(path)})
        with claimed(cache.parent / "locks", cache.stem):
            write_json(cache, {"schema": SCHEMA, "hashes": hashes})
    return hashes[state]


def _tensors(path: Path) -> Iterator[tuple[str, tuple[str, list[int], str]]]:
    """Name, type, shape and SHA-256 of each tensor of a safetensors file, by mapping it.

    The library's readers need Torch for types that NumPy lacks, such as bfloat16, so the format is read here: eight
    bytes with the length of a JSON header, the header, the tensors' bytes
    (https://huggingface.co/docs/safetensors).
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        length = int.from_bytes(data[:8], "little")
        header: Any = json.loads(data[8 : 8 + length])
        if not isinstance(header, dict):
            raise ValueError(f"{path} has no header")
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            if end > len(data):
                raise ValueError(f"{path} is cut short")
            yield name, (entry["dtype"], entry["shape"], hashlib.sha256(memoryview(data)[start:end]).hexdigest())
