"""The identity of pretrained weights: a hash of tensors and configuration, whatever their folder or name."""

import hashlib
import json
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, DataError
from pipeline.layout import HERE
from pipeline.models.names import hub_path
from pipeline.storage import content_key, file_hash, read_json, write_json
from pipeline.tasks.hub import prepare_for

CANDIDATES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files that may hold a model's weights, in Transformers' order."""
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

    It does not depend on whether the weights come from a folder, a mirror or the hub, in one file or in shards. A
    pickled checkpoint is hashed by its bytes, without unpickling, so it differs from equal tensors in safetensors.
    Missing weights are downloaded from the hub, as a trial would do.

    Args:
        name: hub name or local folder.
        cache: JSON file with the hashes of unchanged files, so that each file is read once.

    Returns:
        16 hex digits.

    Raises:
        DataError: the weights cannot be loaded.
    """
    fetch = _files_of(name, mirror)
    try:
        config = json.loads(fetch("config.json").read_text(encoding="utf-8"))
        files = _weight_files(fetch)
        tensors = _cached(files, cache)
    except (OSError, ValueError, TypeError, KeyError) as error:  # OSError also of the hub: no such name, no network
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"backbones: no weights of {name!r} ({reason}); check the name and the network, or name a mirror on disk "
            "with HUB_MIRROR"
        ) from None
    fields = {key: value for key, value in config.items() if key not in IGNORED and value is not None}
    return content_key({"config": fields, "tensors": tensors})


def _files_of(name: str, mirror: Path | None) -> Callable[[str], Path]:
    """A function from a file name of the model to its local path; it raises OSError where there is no such file."""
    where = hub_path(name, mirror)
    folder = Path(where)
    if folder.is_dir():
        return lambda file: (folder / file).resolve(strict=True)
    prepare_for(where)
    from huggingface_hub import constants, hf_hub_download

    offline = constants.HF_HUB_OFFLINE  # said again: a session that is open already would try for half a minute
    return lambda file: Path(hf_hub_download(where, file, local_files_only=offline))


def _weight_files(fetch: Callable[[str], Path]) -> list[Path]:
    """The weight files that Transformers would load."""
    for candidate in CANDIDATES:
        try:
            path = fetch(candidate)
        except FileNotFoundError:  # the hub's error is a subclass
            continue
        if path.suffix != ".json":
            return [path]
        shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        return [fetch(shard) for shard in sorted(set(shards))]
    raise FileNotFoundError(f"none of {', '.join(CANDIDATES)}")


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
        hashes[state] = _hash(files)
        write_json(cache, {"schema": SCHEMA, "hashes": hashes})
    return hashes[state]


def _hash(files: list[Path]) -> str:
    if any(path.suffix == ".bin" for path in files):
        return content_key({"files": sorted(file_hash(path) for path in files)})
    return content_key({name: entry for path in files for name, entry in _tensors(path)})


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
