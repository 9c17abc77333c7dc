"""Storage without a disk in common: an object store, or a folder beside the project."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import Selected
from pipeline.running.address import parse_address
from pipeline.running.shared_folder import Storage
from pipeline.running.storage import ObjectStorage
from pipeline.storage import file_hash
from pipeline.training.groups import plan_of
from pipeline.training.plan import read_history
from pipeline.training.trial import train
from tests import steady_trials
from tests.prepared import CONTEXT
from tests.ray_cluster import Cluster, hiding, ray_cluster
from tests.s3 import s3_server
from tests.test_finetune import counted, prepared
from tests.test_lost_machines import STEADY
from tests.workspace import Workspace, kill_group


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server("bucket") as variables:
        yield variables


@pytest.fixture(params=["s3", "folder"])
def storage(request: Any, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    place = f"s3://bucket/{tmp_path.name}" if request.param == "s3" else str(tmp_path / "store")
    return ObjectStorage(parse_address(place))


def test_files_go_and_come(storage: Storage) -> None:
    storage.check()
    assert storage.names(Path("runs")) == set()
    one, other, absent = (Path("runs/trials/k") / name for name in ("a.json", "b.bin", "c"))
    for path, content in ((one, b"{}"), (other, os.urandom(20 * 2**20))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = file_hash(other)
    storage.publish(one, other, absent)
    assert storage.names(Path("runs")) == {one, other}
    one.unlink()
    other.unlink()  # what is linked is never written in place
    other.write_bytes(b"cut")
    storage.fetch(one, other, absent)
    assert (one.read_bytes(), file_hash(other), absent.exists()) == (b"{}", before, False)
    assert not list(Path("runs").rglob("*.partial"))
    storage.remove(one, absent)
    assert storage.names(Path("runs/trials")) == {other}


def test_two_drivers_store_the_same_at_once(storage: Storage) -> None:
    """Each with tasks of its own, and the same pretrained weights."""
    assert isinstance(storage, ObjectStorage)
    name = Path("content/0a")

    def slowly() -> Iterator[bytes]:
        yield b"one, "
        storage._write(name, iter([b"one, ", b"two"]))
        yield b"two"

    storage._write(name, slowly())
    assert b"".join(storage._read(name)) == b"one, two"
    assert storage.names(Path("content")) == {name}


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_is_interrupted_on_its_way_is_not_there(storage: Storage, error: BaseException) -> None:
    """Else each worker would refuse it for its hash, and no driver store it anew for a week."""
    assert isinstance(storage, ObjectStorage)

    def cut() -> Iterator[bytes]:
        yield b"one, "
        raise error

    name = Path("content/0a")
    with pytest.raises(type(error)):
        storage._write(name, cut())
    assert storage.names(Path("content")) == set()
    storage._write(name, iter([b"one, two"]))
    with pytest.raises(type(error)):
        storage._write(name, cut())
    assert b"".join(storage._read(name)) == b"one, two", "what was whole, and others may read, stays"
    assert storage.names(Path("content")) == {name}


def test_inputs_go_by_content(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a").write_text("same")
    Path("b").write_text("same")
    inputs = storage.share({Path("data/a"): Path("a"), Path("data/b"): Path("b")})
    assert len(storage.names(Path("content"))) == 1
    node = tmp_path / "node"
    node.mkdir()
    monkeypatch.chdir(node)
    storage.take(inputs)
    assert [Path(f"data/{name}").read_text() for name in "ab"] == ["same", "same"]
    before = Path("data/a").stat().st_mtime_ns
    Path("data/b").unlink()
    Path("data/b").write_text("other")
    storage.take(inputs)
    assert Path("data/b").read_text() == "same"
    assert Path("data/a").stat().st_mtime_ns == before
    # What the store holds under another's name is not taken.
    (content,) = storage.names(Path("content"))
    content.parent.mkdir()
    content.write_text("evil")
    storage.publish(content)
    Path("data/a").unlink()
    with pytest.raises(StorageError, match="holds other bytes than its name says"):
        storage.take(inputs)
    assert not Path("data/a").exists()


def test_content_that_is_used_does_not_grow_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what grew old can be removed by its age."""
    monkeypatch.chdir(tmp_path)
    storage = ObjectStorage(parse_address(str(tmp_path / "store")))
    for name, days in (("used", 8), ("new", 6), ("unused", 31)):
        Path(name).write_text(name)
        (sha256,) = storage.share({Path(name): Path(name)}).values()
        then = time.time() - days * 86_400
        os.utime(tmp_path / "store/content" / sha256, (then, then))
    before = {path.read_text(): path.stat().st_mtime for path in (tmp_path / "store/content").iterdir()}
    storage.share({Path(name): Path(name) for name in ("used", "new")})
    after = {path.read_text(): path.stat().st_mtime for path in (tmp_path / "store/content").iterdir()}
    assert {name for name in before if after[name] > before[name]} == {"used"}


def test_no_path_leaves_the_store(storage: Storage) -> None:
    for path in (Path("/etc/passwd"), Path("../other")):
        with pytest.raises(StorageError, match="lies outside the working folder"):
            storage.remove(path)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("azure://bucket/x", "'azure' is no kind of storage"),
        ("s3://", "names no bucket"),
        ("s3://bucket/../x", "names no bucket"),
        ("s3://AKIAKEY:hunter2@bucket/x", "holds a user or a key; keys come from the environment"),
        ("s3://bucket/x?secret_key=hunter2", "unknown option 'secret_key'"),
    ],
)
def test_an_address_that_is_none(workspace: Workspace, address: str, message: str) -> None:
    workspace.write_params({"runtime.storage": address})
    line = workspace.stage("finetune").error()
    assert "runtime.storage: " in line
    assert message in line or "holds a password or token, and this file is committed" in line
    assert "hunter2" not in line
    workspace.write_params()
    line = workspace.command("-m", "stages.finetune", EARLY_EXIT_STORAGE=address).error()
    assert line.startswith("finetune: runtime.storage: ")
    assert message in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("address", "endpoint", "message"),
    [
        ("s3://nobody/x", None, "make the bucket, or name another in runtime.storage"),
        ("s3://bucket/x", "http://127.0.0.1:1", "check the network and AWS_ENDPOINT_URL"),
        ("s3://bucket/x", "http://ann:not-a-secret@127.0.0.1:1", "check the network and AWS_ENDPOINT_URL"),
    ],
)
def test_a_store_that_does_not_serve(
    s3: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    endpoint: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (s3 | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=f"^{address} at http.*does not serve .*{message}") as raised:
        ObjectStorage(parse_address(address)).check()
    assert "not-a-secret" not in str(raised.value)


def test_keys_that_a_store_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with s3_server("bucket", strict=True) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match=r"INVALID_ACCESS_KEY_ID.*; set keys that may read and write") as raised:
            ObjectStorage(parse_address("s3://bucket/x")).check()
        assert "not-a-secret" not in str(raised.value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(StorageError, match=r"does not serve .*keys"):
            ObjectStorage(parse_address("s3://bucket/x")).check()


def test_another_place_of_the_same_name_is_seen(storage: Storage, tmp_path: Path) -> None:
    """Such as a folder that is mounted on the driver alone, or another endpoint."""
    mark = Path(".storage-probe-1")
    with pytest.raises(StorageError, match="another place than the driver's"):
        storage.check(mark)
    storage.mark(mark)
    storage.check(mark)
    storage.remove(mark)
    assert storage.names(Path()) == set()


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(StorageError, match=r"/dev/null.*"):
        ObjectStorage(parse_address("/dev/null/store")).check()


# Trials


@pytest.mark.slow
def test_a_trial_and_its_traces_through_the_store(
    workspace: Workspace, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Ray of our own: the worker has a folder of its own, and nothing of the project but the code."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    workspace.write_params()
    prepared()
    (group,) = plan_of(load_params()).groups
    settings = {**group.settings, "batch_size": 20, "learning_rate": 1e-3, "seed": 1}
    alone = train(settings, group.names, HERE.trial("alone"), CONTEXT, lambda row: None)
    shutil.rmtree(HERE.runs)
    temporary = workspace.folder / "tmp"
    temporary.mkdir()
    place = s3 | {"EARLY_EXIT_STORAGE": "s3://bucket/short", "TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp"}
    first = workspace.command("-m", "stages.finetune", **place)
    assert "1 trials run, 0 reused of 1" in first.out, first.err
    ((key, sha256),) = weights().items()
    assert sha256 == alone.weights_sha256
    assert list(temporary.glob("early-exit-*/*/data/demo-sentences/manifest.json"))
    assert not list(temporary.glob("early-exit-*/*/runs/trials/*")), "the worker gives the disk back"
    names = {path.name for path in ObjectStorage(parse_address("s3://bucket/short")).names(HERE.trial(key))}
    assert names == {"result.json", "settings.json", "code.json", "metrics.jsonl", "model.json", "model.safetensors"}
    traced = workspace.command("-m", "stages.trace", "demo-sentences", **place)
    assert traced.code == 0, traced.err
    assert "0 reused" in traced.out
    # Another machine finds both; its own files of before are gone.
    shutil.rmtree(HERE.runs)
    assert "0 trials run, 1 reused of 1" in workspace.command("-m", "stages.finetune", **place).out
    assert weights() == {key: sha256}
    assert workspace.command("-m", "stages.trace", "demo-sentences", **place).out.startswith("0 traces recorded")


def weights() -> dict[str, str]:
    """Hashes of the selected models by their keys; the files are those."""
    selected = Selected.read(HERE.selected("demo-sentences"), "")
    trials = [trial for group in selected.groups for trial in group.trials]
    for trial in trials:
        assert file_hash(HERE.model("demo-sentences", trial.key) / "model.safetensors") == trial.weights_sha256
    return {trial.key: trial.weights_sha256 for trial in trials}


@contextmanager
def apart(hidden: Sequence[Path], variables: dict[str, str]) -> Iterator[Cluster]:
    """A head without a core, and two nodes of one core; none of them sees the hidden folders."""
    code = [ROOT / name for name in ("pipeline", "stages", "tests")]
    prefix = hiding(*hidden, *code)
    with ray_cluster(cpus=0, variables=variables, prefix=prefix) as cluster:
        for _ in range(2):
            cluster.add_node(prefix=prefix)
        yield cluster


CHAIN = {
    "tasks": {"demo-sentences": {"rows": {"train": 40, "selection": 12, "report": 30}}},
    "methods": ["joint", "single_exit", "two_stage"],
    "grid.learning_rate": [0.001, 0.002],
    "seeds": [1, 2],
    "training.epochs": 2,
    "training.stop_after": 2,
    "latency.tasks": [],
    "attack.tasks": {"demo-sentences": {"examples": 24}},
    "attack.max_queries": 20,
    "evaluate.criteria": {"patience": {}, "confidence": {}},
    "attack.criteria": ["patience"],
}
STAGES = ("finetune", "trace demo-sentences", "evaluate demo-sentences", "attack demo-sentences")


def chain(workspace: Workspace, **variables: str) -> tuple[list[str], dict[str, str]]:
    """Run the stages; what they print, and the hashes of what they made."""
    shutil.rmtree(HERE.runs, ignore_errors=True)
    shutil.rmtree(HERE.outputs, ignore_errors=True)
    said = []
    for stage in STAGES:
        name, *task = stage.split()
        done = workspace.command("-m", f"stages.{name}", *task, **variables)
        assert done.code == 0, (stage, done.out, done.err)
        assert "Traceback" not in done.out + done.err
        said.append(done.out)
    for path in HERE.models("demo-sentences").glob("*/model.safetensors"):
        assert file_hash(path) in HERE.selected("demo-sentences").read_text()
    tops = ("models", "selected", "traces", "evaluate", "attack")
    files = [path for top in tops for path in (HERE.outputs / top).rglob("*") if path.is_file()]
    return said, {path.as_posix(): file_hash(path) for path in files}


@pytest.mark.cluster
def test_nodes_that_share_nothing_work_as_one_machine_does(workspace: Workspace, s3: dict[str, str]) -> None:
    workspace.write_params(CHAIN)
    prepared()
    _, alone = chain(workspace)
    shutil.rmtree(HERE.runs)
    with apart([workspace.folder], s3) as nodes:
        cluster = {"RAY_ADDRESS": f"127.0.0.1:{nodes.port}", "HOME": nodes.environment["HOME"]}
        line = workspace.command("-m", "stages.finetune", **cluster).err.splitlines()[-1]
        assert line.startswith("finetune: no node can be used: node "), line
        assert "No module named 'pipeline'; put the project on a disk that all nodes share, or set runtime" in line
        assert not list(HERE.trials.glob("*/*"))
        joined = s3 | cluster | {"EARLY_EXIT_STORAGE": "s3://bucket/apart"}
        said, made = chain(workspace, **joined)
        assert made == alone
        assert "9 trials run, 0 reused of 9" in said[0]
        assert "2 shards to attack" in said[3]
        places = [list(node.folder.glob("early-exit-*/*/data")) for node in nodes.nodes]
        assert [len(place) for place in places] == [1, 1], "each node worked in a folder of its own"
        # Another machine finds all of it.
        said, made = chain(workspace, **joined)
        assert made == alone
        assert "0 trials run, 9 reused of 9" in said[0]
        assert said[1].startswith("0 traces recorded")
        assert "0 shards to attack, 2 done before" in said[3]


@pytest.mark.cluster
def test_a_trial_of_a_lost_node_goes_on_from_the_store(
    workspace: Workspace, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    rows = {"rows": {"train": 400, "selection": 40, "report": 12}}
    workspace.write_params(
        {"tasks": {"demo-sentences": rows}, "training.epochs": 4, "training.stop_after": 4, "latency.tasks": []}
    )
    prepared()
    (group,) = plan_of(load_params()).groups
    settings = {**group.settings, "batch_size": 20, "learning_rate": 1e-3, "seed": 1}
    alone = train(settings, group.names, HERE.trial("alone"), CONTEXT, lambda row: None)
    shutil.rmtree(HERE.runs)
    storage = ObjectStorage(parse_address("s3://bucket/lost"))
    with apart([workspace.folder], s3) as cluster:
        joined = s3 | {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}", "HOME": cluster.environment["HOME"]}
        stage = workspace.start("-m", "stages.finetune", EARLY_EXIT_STORAGE="s3://bucket/lost", **joined)
        try:
            deadline = time.monotonic() + 300
            while not [path for path in storage.names(HERE.trials) if path.name == "metrics.jsonl"]:
                assert stage.poll() is None and time.monotonic() < deadline, stage.communicate()[0]  # noqa: PT018
                time.sleep(0.05)
            (path,) = [path for path in storage.names(HERE.trials) if path.name == "metrics.jsonl"]
            storage.fetch(path)
            before = read_history(path.parent)
            (node,) = [node for node in cluster.nodes if list(node.folder.glob("early-exit-*/*/runs/trials/*"))]
            node.kill()
            said = stage.communicate(timeout=300)[0]
        finally:
            if stage.poll() is None:
                kill_group(stage)
    assert stage.returncode == 0, said
    assert "Traceback" not in said
    assert list(weights().values()) == [alone.weights_sha256]
    history = read_history(path.parent)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert 1 <= len(before) < 4
    assert history[: len(before)] == before, "to the microsecond: epochs of before are not trained again"


@pytest.mark.cluster
def test_a_search_stops_trials_and_goes_on_through_the_store(
    workspace: Workspace, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    grid = {"grid.learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "training.epochs": 4, "latency.tasks": []}
    workspace.write_params(grid | {"grid.search": "asha"})
    prepared()
    (workspace.folder / "tests").symlink_to(ROOT / "tests")
    storage = ObjectStorage(parse_address("s3://bucket/search"))
    with apart([workspace.folder], s3) as cluster:
        joined = s3 | {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}", "HOME": cluster.environment["HOME"]}
        joined["EARLY_EXIT_STORAGE"] = "s3://bucket/search"
        first = workspace.command("-c", STEADY, **joined)
        assert counted(first) == (6, 0, 6), first.err
        chosen = Selected.read(HERE.selected("demo-sentences"), "")
        stopped = [point for point in chosen.groups[0].grid if point.stopped_after is not None]
        assert f"{len(stopped)} trials stopped by their search" in first.out
        assert stopped
        # Another machine finds what was stopped and why, and trains nothing.
        shutil.rmtree(HERE.runs)
        again = workspace.command("-c", STEADY, **joined)
        assert counted(again) == (0, 6, 6), again.err
        assert Selected.read(HERE.selected("demo-sentences"), "") == chosen
        # Another search goes on after the epochs that were trained.
        shutil.rmtree(HERE.runs)
        workspace.write_params(grid)
        whole = workspace.command("-c", STEADY, **joined)
        assert counted(whole) == (len(stopped), 6 - len(stopped), 6), whole.err
    trained = [path for path in storage.names(HERE.trials) if path.name == steady_trials.TRAINED]
    storage.fetch(*trained)
    assert [path.read_text() for path in trained] == ["xxxx"] * 6


@pytest.mark.cluster
def test_a_node_that_does_not_see_the_project_is_left_out_by_name(workspace: Workspace) -> None:
    """One of two nodes does not see the disk with the project; it trains nothing."""
    workspace.write_params({"latency.tasks": []})
    prepared()
    with ray_cluster(cpus=0) as cluster:
        blind = cluster.add_node(prefix=hiding(workspace.folder))
        cluster.add_node()
        joined = {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}", "HOME": cluster.environment["HOME"]}
        done = workspace.command("-m", "stages.finetune", **joined)
        assert counted(done) == (1, 0, 1)
        (line,) = [line for line in done.out.splitlines() if "is left out" in line]
        assert f"node {blind.address} is left out: " in line
