"""Residual networks with exits: network, cost, recipes, images, and training that learns and resumes."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from pipeline.errors import ArtifactError, DataError, ParamsError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.layout import HERE
from pipeline.models.flops import ResNetShape, block_flops, exit_layers, resnet_flops, stem_flops
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint, save_checkpoint
from pipeline.models.recording import record, record_traces
from pipeline.models.residual import ResNet
from pipeline.params import Params
from pipeline.results import Inputs, Manifest, Split
from pipeline.running.local_files import source_files
from pipeline.tasks.demo.images import images
from pipeline.tasks.image.pixels import ImageStore, crop_and_flip
from pipeline.tasks.names import resolve_task
from pipeline.tasks.prepare import prepare
from pipeline.tasks.splits import choose_rows
from pipeline.tasks.task import FileSource, HubSource, Rows, TaskSettings
from pipeline.tasks.words import CIFAR10
from pipeline.training.code import code_key, trial_code
from pipeline.training.fit import run_fit
from pipeline.training.groups import Study, groups_of
from pipeline.training.methods import METHODS, load_recipe
from pipeline.training.optimisation import steps
from pipeline.training.recipes.base import Moment, Start
from pipeline.training.recipes.shallow_deep import loss_weights
from pipeline.training.trial import build_fit, train

GREY = (0.5, 0.5, 0.5)
QUARTER = (0.25, 0.25, 0.25)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` makes of a test's mirror stays out of the home folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub-cache")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def random_images(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8))


def random_store(rows: int, classes: int = 10, seed: int = 0) -> ImageStore:
    labels = np.random.default_rng(seed + 1).integers(0, classes, rows).astype(np.float64)
    return ImageStore(random_images(rows, seed), labels, np.arange(rows))


def tiny(depth: int = 14, width: int = 4, seed: int = 0) -> MultiExit:
    torch.manual_seed(seed)
    backbone = ResNet(depth, width, GREY, QUARTER)
    return MultiExit(backbone, range(1, backbone.layers + 1), 10).eval()


def deciding(store: ImageStore) -> MultiExit:
    """A tiny model whose exits agree on some rows of a store only, at many confidences: heads on centred features,
    drawn alike for the two blocks of a stage."""
    model = tiny()
    with torch.inference_mode():
        state = model.backbone.embed(store.batch(np.arange(len(store))))
        for index, head in enumerate(model.heads):
            assert isinstance(head, torch.nn.Linear)
            state = model.backbone.layer(index, state)
            pooled = model.backbone.pool(index, state)
            torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(head.in_features))
            head.weight /= pooled.std(dim=0) + 1e-6
            head.bias.copy_(-head.weight @ pooled.mean(dim=0))
    return model


# The network


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_parameters_are_those_of_the_paper(depth: int, parameters: int) -> None:
    # He et al. 2016, table 6: 0.27M and 0.85M.
    backbone = ResNet(depth, 16, GREY, QUARTER)
    assert backbone.layers == (depth - 2) // 2
    assert MultiExit(backbone, [backbone.layers], 10).parameter_counts()["parameters"] == parameters


def test_blocks_halve_the_image_and_double_the_channels() -> None:
    model = tiny()
    state = model.backbone.embed({"image": random_images(2)})
    shapes = []
    for index in range(6):
        state = model.backbone.layer(index, state)
        shapes.append(tuple(state.hidden.shape[1:]))
    assert shapes == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2
    assert model.backbone.widths() == [4, 4, 8, 8, 16, 16]


def test_normalisation_is_inside_the_network() -> None:
    backbone = ResNet(8, 4, (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)).eval()
    batch = random_images(3)
    pixels = (batch.float() / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.25, 0.2])
    expected = torch.relu(backbone.bn(backbone.stem(pixels.permute(0, 3, 1, 2))))
    torch.testing.assert_close(backbone.embed({"image": batch}).hidden, expected)


def test_a_depth_that_is_not_6n_plus_2_is_refused() -> None:
    with pytest.raises(ParamsError, match="6n"):
        ResNet(18, 16, GREY, QUARTER)


def test_a_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    model = tiny()
    save_checkpoint(model, tmp_path)
    again = load_checkpoint(tmp_path)
    batch = {"image": random_images(4)}
    with torch.inference_mode():
        assert torch.equal(model(batch), again(batch))


# Live equals replay


def manifest_of(splits: dict[str, str]) -> Manifest:
    """Of a task "demo-images" whose splits have the hashes given."""
    splits = {"test": "tested", **splits}
    pixels = Inputs(hash="trained", splits=splits, mean=GREY, std=QUARTER)
    return Manifest(
        task="demo-images", modality="image", kind="classification", protocol="holdout", columns=("image",),
        label_names=tuple("0123456789"), metrics=("accuracy",), source={"demo": "images"}, report_splits=("test",),
        unlabelled_splits=(), splits={name: Split(rows=1, sha256="h") for name in splits}, inputs={"pixels": pixels},
    )  # fmt: skip


def trace_of(model: MultiExit, store: ImageStore, folder: Path) -> Any:
    save_checkpoint(model, folder / "runs" / "key")
    target = folder / HERE.pixels("demo-images")
    target.mkdir(parents=True)
    for part, array in {"images": store.images, "labels": store.labels, "rows": store.row_ids}.items():
        np.save(target / f"test.{part}.npy", np.asarray(array))
    return next(
        record_traces(folder / "runs" / "key", manifest_of({"test": "of the test"}), "resnet14", ["test"], "cpu")
    )


def test_all_exits_of_the_forward_pass_and_live_at_never_agree() -> None:
    model, batch = tiny(), {"image": random_images(16)}
    with torch.inference_mode():
        logits = model(batch)
    assert logits.shape == (16, 6, 10)
    for criterion in (None, make("patience"), make("confidence")):
        answers = LiveEngine(model, criterion, NEVER)(batch)
        np.testing.assert_array_equal(answers.logits, logits[:, -1])
        assert (answers.exit_index == 5).all()


@pytest.mark.parametrize(("name", "thresholds"), [("patience", [0, 1, 2, 3, 5]), ("confidence", [0.3, 0.5, 0.9, 0.99])])
def test_live_equals_replay(name: str, thresholds: list[float], here: Path) -> None:
    made = images(64, seed=0)
    store = ImageStore(torch.from_numpy(made["image"]), made["label"].astype(np.float64), np.arange(64))
    model, criterion = deciding(store), make(name)
    trace = trace_of(model, store, here)
    swept = sweep(trace, criterion, np.array(thresholds, dtype=np.float64))
    spread = 0
    for at, threshold in enumerate(swept.thresholds):
        for rows in (64, 7, 1):
            found = [
                LiveEngine(model, criterion, threshold)(store.batch(np.arange(i, min(i + rows, 64))))
                for i in range(0, 64, rows)
            ]
            np.testing.assert_array_equal(np.concatenate([a.exit_index for a in found]), swept.exit_index[at])
            np.testing.assert_array_equal(np.concatenate([a.logits for a in found]).argmax(-1), swept.predictions[at])
        spread += len(set(swept.exit_index[at].tolist())) > 1
    assert spread >= 2, "the case must hold rows that leave at different exits"


def test_a_trace_says_what_it_cost_and_where_it_comes_from(here: Path) -> None:
    model = tiny()
    trace = trace_of(model, random_store(5), here)
    flops, full = resnet_flops(ResNetShape(14, 4, 10), 5, np.arange(1, 7))
    np.testing.assert_array_equal(trace.flops, flops)
    np.testing.assert_array_equal(trace.full_flops, full)
    np.testing.assert_array_equal(trace.last_cost, full)
    np.testing.assert_array_equal(trace.layers, np.arange(1.0, 7.0))
    assert trace.provenance["trial"] == "key"
    assert trace.provenance["data_sha256"] == "of the test"


# Cost


def test_flops_of_a_tiny_network_counted_by_hand() -> None:
    shape = ResNetShape(depth=8, width=2, classes=5)
    # Multiply-adds: output pixels x 9 x channels in x channels out, two convolutions a block; halved sizes 32, 16, 8.
    stem = 1024 * 9 * 3 * 2
    first = 1024 * 9 * 2 * 2 + 1024 * 9 * 2 * 2
    second = 256 * 9 * 2 * 4 + 256 * 9 * 4 * 4
    third = 64 * 9 * 4 * 8 + 64 * 9 * 8 * 8
    assert stem_flops(shape) == 2 * stem
    np.testing.assert_array_equal(block_flops(shape), [2 * first, 2 * second, 2 * third])
    at_exit, full = resnet_flops(shape, 2, np.array([1, 3]))
    heads = 2 * 5, 8 * 5
    expected = [2 * (stem + first + heads[0]), 2 * (stem + first + second + third + sum(heads))]
    np.testing.assert_array_equal(at_exit, [expected, expected])
    np.testing.assert_array_equal(full, [2 * (stem + first + second + third + heads[1])] * 2)


def test_flops_are_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model({"image": random_images(3)})
    assert counter.get_total_flops() == resnet_flops(ResNetShape(14, 4, 10), 3, np.arange(1, 7))[0][:, -1].sum()


def test_exits_of_resnet_56() -> None:
    shape = ResNetShape(56, 16, 10)
    assert exit_layers(shape, "every_two_convs") == tuple(range(1, 28))
    # Shallow-Deep's network_architectures.py: blocks 4, 8 | 3, 7 | 2, 6 of three times nine.
    assert exit_layers(shape, "six") == (4, 8, 12, 16, 20, 24, 27)
    assert exit_layers(ResNetShape(8, 16, 10), "six") == (1, 2, 3)


# Recipes

IMAGE_METHODS = [name for name, info in METHODS.items() if "image" in info.modalities]


def test_methods_of_images() -> None:
    assert IMAGE_METHODS == ["single_exit", "joint", "alternating", "mixed", "shallow_deep"]
    for name in IMAGE_METHODS:
        recipe = load_recipe(name)
        costs = [0.2, 0.6, 1.0][-len(recipe.exits((1, 2, 3))) :]
        assert sum(recipe.selection_weights(costs)) == pytest.approx(1.0)


class Fixed(torch.nn.Module):
    """A model that answers what it is given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, batch: Any) -> torch.Tensor:
        return self.logits


def test_joint_weighs_exits_by_depth_whatever_they_cost() -> None:
    logits, labels = torch.randn(8, 4, 10), torch.randint(0, 10, (8,)).float()
    loss = load_recipe("joint").objective(Fixed(logits), {}, labels, Moment(0.3, costs=(0.1, 0.5, 0.8, 1.0)))  # type: ignore[arg-type]
    each = [torch.nn.functional.cross_entropy(logits[:, i], labels.long()) for i in range(4)]
    torch.testing.assert_close(loss, sum((i + 1) / 10 * each[i] for i in range(4)))


def test_single_exit_learns_its_last_exit_only() -> None:
    logits, labels = torch.randn(8, 1, 10), torch.randint(0, 10, (8,)).float()
    loss = load_recipe("single_exit").objective(Fixed(logits), {}, labels, Moment(0.5, costs=(1.0,)))  # type: ignore[arg-type]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:, 0], labels.long()))


def test_shallow_deep_ramps_from_a_hundredth_to_the_cost() -> None:
    recipe, costs = load_recipe("shallow_deep"), (0.15, 0.6, 1.0)
    assert loss_weights(costs, 0.0) == pytest.approx([0.01, 0.01, 1.0])
    assert loss_weights(costs, 0.5) == pytest.approx([0.08, 0.305, 1.0])
    assert loss_weights(costs, 1.0) == pytest.approx([0.15, 0.6, 1.0])
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 3, 10), torch.randint(0, 10, (8,)).float()
    each = [float(torch.nn.functional.cross_entropy(logits[:, i], labels.long())) for i in range(3)]
    expected = 0.08 * each[0] + 0.305 * each[1] + each[2]
    loss = recipe.objective(Fixed(logits), {}, labels, Moment(0.5, costs=costs))  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_trial_follows_its_progress(tmp_path: Path) -> None:
    fit = fit_of("shallow_deep", 40, epochs=2)
    inputs, labels = next(iter(fit.batches(1)))
    with torch.no_grad():
        assert fit.objective(fit.model, inputs, labels, 1.0) > fit.objective(fit.model, inputs, labels, 0.0)
    seen: list[float] = []

    def watched(model: Any, inputs: Any, labels: torch.Tensor, done: float) -> torch.Tensor:
        seen.append(done)
        loss: torch.Tensor = fit.objective(model, inputs, labels, done)
        return loss

    run_fit(replace(fit, objective=watched), tmp_path, lambda row: None)
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_the_learning_rate_falls_three_times() -> None:
    assert [steps(x) for x in (0.0, 0.35, 0.36, 0.61, 0.86, 1.0)] == pytest.approx([1, 1, 0.1, 0.01, 1e-3, 1e-3])


# Images


def test_crops_and_flips_differ_within_a_batch() -> None:
    image = random_images(1).expand(64, -1, -1, -1).contiguous()
    out = crop_and_flip(image, np.random.default_rng(0))
    distinct = len({bytes(row.numpy().tobytes()) for row in out})
    assert distinct > 40  # of 81 places times two
    assert out.shape == image.shape
    assert out.dtype == torch.uint8


def test_crops_are_those_of_torchvision() -> None:
    from torchvision.transforms.v2 import functional

    whole = random_images(32)
    out = crop_and_flip(whole, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    corner, mirrored = generator.integers(0, 9, size=(2, 32)), generator.random(32) < 0.5
    for i in range(32):
        image = functional.pad(whole[i].permute(2, 0, 1), [4])
        image = functional.crop(image, int(corner[0, i]), int(corner[1, i]), 32, 32)
        image = functional.horizontal_flip(image) if mirrored[i] else image
        assert torch.equal(out[i], image.permute(1, 2, 0))
    assert 0 < mirrored.sum() < 32


def test_an_epoch_is_a_permutation_and_a_function_of_its_generator() -> None:
    store = random_store(50)

    def epoch(seed: int) -> list[int]:
        parts = [rows for _, rows in store.epoch(16, np.random.default_rng(seed), augment=True)]
        assert [len(rows) for rows in parts] == [16, 16, 16, 2]
        order: list[int] = np.concatenate(parts).tolist()
        return order

    assert sorted(epoch(1)) == list(range(50))
    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)


@pytest.mark.parametrize(("rows", "sizes"), [(Rows(), (72, 8, 20)), (Rows(report=30, selection=10), (60, 10, 30))])
def test_report_rows_of_a_source_without_a_report_split(rows: Rows, sizes: tuple[int, int, int]) -> None:
    made = choose_rows("x", {"train": 100}, rows, "holdout")
    assert [(name, source, len(index)) for name, (source, index) in made.items()] == [
        ("train", "train", sizes[0]),
        ("selection", "train", sizes[1]),
        ("held_out", "train", sizes[2]),
    ]
    assert sorted(np.concatenate([index for _, index in made.values()])) == list(range(100))
    paper = choose_rows("x", {"train": 100}, rows, "paper")
    np.testing.assert_array_equal(paper["selection"][1], paper["held_out"][1])
    assert len(paper["train"][1]) == 100 - sizes[2]
    with pytest.raises(
        DataError, match=r"x: 30 rows leave none to train on beside 30 report rows; lower tasks\.x\.rows"
    ):
        choose_rows("x", {"train": 30}, Rows(report=30), "holdout")
    with pytest.raises(DataError, match=r"split 'selection' is empty"):
        choose_rows("x", {"train": 4}, Rows(), "holdout")


def test_splits_do_not_overlap_and_the_papers_selects_on_the_report() -> None:
    rows = Rows(train=30, selection=10, report=12, seed=3)
    held = choose_rows("x", {"train": 100, "test": 40}, rows, "holdout")
    assert {name: (source, len(index)) for name, (source, index) in held.items()} == {
        "train": ("train", 30),
        "selection": ("train", 10),
        "test": ("test", 12),
    }
    assert not set(held["train"][1]) & set(held["selection"][1])
    paper = choose_rows("x", {"train": 100, "test": 40}, rows, "paper")
    np.testing.assert_array_equal(paper["selection"][1], paper["test"][1])
    assert paper["selection"][0] == "test"
    with pytest.raises(DataError, match=r"rows\.selection"):
        choose_rows("x", {"train": 10, "test": 10}, Rows(selection=10), "holdout")


def prepared(name: str, rows: Rows, mirror: Path | None = None, **settings: Any) -> Manifest:
    """Prepare an image task in the working directory."""
    task = resolve_task(name, TaskSettings(rows=rows, **settings))
    return prepare(task, {}, "holdout", HERE.data(name), mirror, {})


def opened(name: str, split: str) -> ImageStore:
    return ImageStore.open(HERE.pixels(name), split, "cpu")


@pytest.mark.usefixtures("here")
def test_demo_images_are_prepared_alike_twice_and_read_back() -> None:
    rows = Rows(train=60, selection=20, report=30)
    first = prepared("demo-images", rows)
    assert prepared("demo-images", rows) == first
    assert Manifest.read(HERE.manifest("demo-images"), "") == first
    assert {name: split.rows for name, split in first.splits.items()} == {"train": 60, "selection": 20, "test": 30}
    assert first.modality == "image"
    store = opened("demo-images", "train")
    assert store.images.shape == (60, 32, 32, 3)
    assert torch.equal(store.batch(np.array([3, 1]))["image"], store.images[[3, 1]])
    # The report rows teach a trial nothing, so their number is no part of its data.
    fewer = prepared("demo-images", Rows(train=60, selection=20, report=9))
    assert fewer.inputs["pixels"].hash == first.inputs["pixels"].hash
    other = prepared("demo-images", Rows(train=61, selection=20, report=30))
    assert other.inputs["pixels"].hash != first.inputs["pixels"].hash


def own(folder: Path, train: str, test: str, **settings: Any) -> Manifest:
    source = FileSource(train=folder / train, report={"test": folder / test})
    given = {"source": source, "image": "photo", "label": "animal", "label_names": ("cat", "dog")} | settings
    return prepared("own", Rows(selection=2), None, **given)


def photos(folder: Path, count: int, size: tuple[int, int] = (48, 40)) -> list[tuple[str, str]]:
    """Photos of another size than a network's, red cats and blue dogs: label and path."""
    from PIL import Image

    made = []
    for i in range(count):
        label = ("cat", "dog")[i % 2]
        path = folder / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, ((200, 0, 0), (0, 0, 200))[i % 2]).save(path)
        made.append((label, f"{label}/{i}.png"))
    return made


def assert_cats_are_red(rows: int) -> None:
    stores = [opened("own", split) for split in ("train", "selection")]
    assert sum(len(store) for store in stores) == rows
    for store in stores:
        assert store.images.shape[1:] == (32, 32, 3)
        for image, label in zip(store.images.numpy(), store.labels, strict=True):
            assert image[0, 0].tolist() == [[200, 0, 0], [0, 0, 200]][int(label)]


def test_own_images_in_a_folder_per_class(here: Path) -> None:
    photos(here / "photos/train", 10)
    photos(here / "photos/test", 4)
    manifest = own(here / "photos", "train", "test")
    assert_cats_are_red(10)
    assert manifest.splits["test"].label_counts == {"cat": 2, "dog": 2}
    mean = manifest.inputs["pixels"].mean
    assert mean is not None
    assert mean[1] == 0
    with pytest.raises(DataError, match="mend label_names or the folders"):
        own(here / "photos", "train", "test", label_names=("cat", "fox"))


def test_own_images_in_a_table_of_paths(here: Path) -> None:
    for split, count in (("train", 10), ("test", 4)):
        rows = photos(here / split, count)
        lines = "".join(f"{split}/{path},{label}\n" for label, path in rows)
        (here / f"{split}.csv").write_text(f"photo,animal\n{lines}", encoding="utf-8")
    own(here, "train.csv", "test.csv")
    assert_cats_are_red(10)
    (here / "train/cat/0.png").unlink()
    with pytest.raises(DataError, match=r"row 0: no such image file as 'train/cat/0\.png'; give"):
        own(here, "train.csv", "test.csv")
    # PIL raises another kind for each of these.
    for content in (b"no image", b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(17), b"GIF89a" + b"\xff" * 60):
        (here / "train/cat/0.png").write_bytes(content)
        with pytest.raises(DataError, match=r"cat/0\.png: not readable as an image"):
            own(here, "train.csv", "test.csv")
    long = "x" * 100_000
    (here / "train.csv").write_text(f"photo,animal\n{long},cat\n" + "cat/2.png,dog\n" * 9)
    with pytest.raises(DataError, match=r"row 0: no such image file as 'x{76}\.\.\.; give paths") as error:
        own(here, "train.csv", "test.csv")
    assert len(str(error.value)) < 300


def test_images_of_more_than_8_bits(here: Path) -> None:
    """Radiographs have 16 bits: Pillow alone would make nearly all of their pixels white."""
    from PIL import Image

    for split, count in (("train", 10), ("test", 4)):
        for i in range(count):
            path = here / split / ("cat", "dog")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 40), 256 * 7 * i + 255, np.uint16)).save(path)
    own(here, "train", "test")
    assert sorted(opened("own", "test").images[:, 0, 0].tolist()) == [[7 * i] * 3 for i in range(4)]
    Image.fromarray(np.ones((40, 40), np.float32)).save(here / "train/cat/0.tif")
    (here / "train.csv").write_text("photo,animal\ntrain/cat/0.tif,cat\n" + "train/dog/1.png,dog\n" * 9)
    (here / "test.csv").write_text("photo,animal\ntest/cat/0.png,cat\n")
    with pytest.raises(DataError, match=r"0\.tif: its pixels are numbers of 32 bits, of no known range"):
        own(here, "train.csv", "test.csv")


def test_images_that_a_table_names_are_files_of_the_source(here: Path) -> None:
    """So that a picture that was mended is prepared again."""
    rows = photos(here / "train", 4)
    lines = "".join(f"{path},{label}\n" for label, path in rows)
    (here / "train/rows.csv").write_text(f"photo,animal\n{lines}gone.png,cat\n{'x' * 9999},dog\n", encoding="utf-8")
    source = FileSource(train=here / "train/rows.csv")
    task = resolve_task("own", TaskSettings(source=source, image="photo", label="animal", label_names=("cat", "dog")))
    files = source_files(task, None)
    assert files == {
        "source/train.csv": source.train,
        **{f"source/train/{i}.png": here / "train" / path for i, (_, path) in enumerate(rows)},
    }
    source.train.write_text("photo,animal\nx\n")
    assert list(source_files(task, None)) == ["source/train.csv"], "prepare refuses it"


def test_files_that_are_no_images_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(here / "train", 10)
    photos(here / "test", 4)
    for name in ("1.tif", "2.TIFF", ".hidden"):
        (here / "train/cat" / name).write_bytes(b"")
    own(here, "train", "test")
    assert "train: 2 files are left out, such as '1.tif'; images are .bmp, .gif" in capsys.readouterr().out


def test_missing_or_short_arrays_name_the_remedy(here: Path) -> None:
    with pytest.raises(ArtifactError, match="dvc repro"):
        ImageStore.open(here, "train", "cpu")
    for part in ("images", "labels", "rows"):
        (here / f"train.{part}.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ArtifactError, match="dvc repro"):
        ImageStore.open(here, "train", "cpu")


def mirror_with(folder: Path, table: pa.Table) -> Path:
    target = folder / "datasets" / "uoft-cs" / "cifar10" / "plain_text"
    target.mkdir(parents=True)
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, target / f"{split}-00000-of-00001.parquet")
    return folder


def png(array: np.ndarray) -> dict[str, Any]:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(array).save(out, format="png")
    return {"bytes": out.getvalue(), "path": None}


@pytest.mark.usefixtures("hub_cache")
def test_a_hub_mirror_is_decoded_exactly(here: Path) -> None:
    originals = random_images(12).numpy()
    table = pa.table({"img": [png(image) for image in originals], "label": [*range(10), 0, 1]})
    mirror = mirror_with(here / "mirror", table)
    about = prepared("cifar10", Rows(selection=4), mirror)
    assert about.splits["train"].rows == 8
    for split in ("train", "selection", "test"):
        store = opened("cifar10", split)
        np.testing.assert_array_equal(store.images.numpy(), originals[store.row_ids])
        np.testing.assert_array_equal(store.labels, store.row_ids % 10)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("label", [0, 10], "label 10 is not one of airplane"),
        ("label", [0, None], "label None is not one of airplane"),
        ("coarse_label", [0, 1], "no column 'label'"),
    ],
)
def test_a_bad_mirror_says_what_to_mend(column: str, values: list[int | None], message: str, here: Path) -> None:
    table = pa.table({"img": [png(image) for image in random_images(2).numpy()], column: values})
    with pytest.raises(DataError, match=message):
        prepared("cifar10", Rows(selection=1), mirror_with(here / column, table))
    assert not HERE.data("cifar10").exists()


@pytest.mark.usefixtures("hub_cache")
def test_own_images_on_the_hub_are_scaled_and_known_ones_are_not(here: Path) -> None:
    images = [png(np.full((40, 60, 3), 7 * i, np.uint8)) for i in range(6)]
    table = pa.table({"img": images, "label": [0, 1] * 3})
    mirror = mirror_with(here / "mirror", table)
    source = HubSource(hub="uoft-cs/cifar10", report={"test": "test"})
    about = {"image": "img", "label": "label", "label_names": ("cat", "dog")}
    prepared("mine", Rows(selection=2), mirror, source=source, **about)
    store = opened("mine", "test")
    assert store.images.shape == (6, 32, 32, 3)
    assert store.images[:, 0, 0, 0].tolist() == [7 * i for i in range(6)]
    with pytest.raises(DataError, match=r"image of 60x40 pixels, not 32x32"):
        prepared("cifar10", Rows(selection=2), mirror)


@pytest.mark.usefixtures("hub_cache")
def test_classes_may_be_names(here: Path) -> None:
    table = pa.table(
        {"img": [png(image) for image in random_images(4).numpy()], "label": ["cat", "dog", "ship", "cat"]}
    )
    assert prepared("cifar10", Rows(selection=1), mirror_with(here, table)).splits["test"].label_counts == {
        **dict.fromkeys(CIFAR10, 0), "cat": 2, "dog": 1, "ship": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("hub_cache")
def test_classes_that_a_source_names_are_matched(here: Path) -> None:
    table = pa.table({"img": [png(image) for image in random_images(4).numpy()], "label": [0, 1, 0, 0]})
    features = {"img": {"_type": "Image"}, "label": {"names": ["ship", *CIFAR10[:8], "truck"], "_type": "ClassLabel"}}
    named = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    mirror = mirror_with(here / "mirror", named)
    assert prepared("cifar10", Rows(selection=1), mirror).splits["test"].label_counts == {
        **dict.fromkeys(CIFAR10, 0), "ship": 3, "airplane": 1,
    }  # fmt: skip
    with pytest.raises(DataError, match=r"its classes are ship, .*, and label_names are 0, 1, .*; give the source's"):
        prepared("cifar10", Rows(selection=1), mirror, label_names=tuple("0123456789"))


def test_torchvisions_own_folder_serves_where_the_mirror_has_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib
    import pickle

    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    folder = here / "torchvision" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch = {"data": pixels.reshape(6, -1), "labels": [0, 1, 2, 3, 4, 5]}
    (folder / "one").write_bytes(pickle.dumps(batch))
    meta = {"label_names": list(CIFAR10)}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))

    def checksum(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(datasets.CIFAR10, attribute, [["one", checksum("one")]])
    about = {"filename": "batches.meta", "key": "label_names", "md5": checksum("batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", about)
    prepared("cifar10", Rows(selection=2), here)
    store = opened("cifar10", "test")
    np.testing.assert_array_equal(store.images.permute(0, 3, 1, 2).numpy(), pixels)
    assert store.labels.tolist() == [0, 1, 2, 3, 4, 5]
    prepared("cifar10", Rows(selection=2), here, label_names=CIFAR10[::-1])
    assert opened("cifar10", "test").labels.tolist() == [9, 8, 7, 6, 5, 4]
    (folder / "one").write_bytes(b"cut short")
    with pytest.raises(DataError, match="torchvision"):
        prepared("cifar10", Rows(selection=2), here)


# Training


def settings_of(method: str = "joint", *, epochs: int = 3, depth: int = 14, width: int = 4) -> dict[str, Any]:
    return {
        "modality": "image",
        "kind": "classification",
        "outputs": 10,
        "metrics": ["accuracy"],
        "backbone": {"depth": depth, "width": width, "dropout": 0.0},
        "method": method,
        "batch_size": 20,
        "learning_rate": 0.1,
        "seed": 1,
        "code": code_key(trial_code("image", method)),
        "training": {"epochs": epochs, "weight_decay": 1e-4, "augment": True},
    }


def fit_of(method: str, rows: int, *, epochs: int = 3, **training: Any) -> Any:
    start, settings = Start(lambda: ResNet(14, 4, GREY, QUARTER), 10, 0.0), settings_of(method, epochs=epochs)
    settings["training"] |= training
    return build_fit(settings, start, random_store(rows), random_store(20, seed=9), "cpu")


def test_bf16_on_a_cpu_multiplies_in_bf16_and_keeps_weights_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = torch.nn.Conv2d.forward

    def convolution(self: torch.nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
        out = forward(self, given)
        seen.add((out.dtype, self.training))
        return out

    monkeypatch.setattr(torch.nn.Conv2d, "forward", convolution)
    fits = {precision: fit_of("joint", 40, epochs=1, precision=precision) for precision in ("bf16", "float32", "auto")}
    for precision, fit in fits.items():
        run_fit(fit, tmp_path / precision, lambda row: None)
        expected = torch.bfloat16 if precision == "bf16" else torch.float32
        assert seen == {(expected, True), (torch.float32, False)}, "selection rows are judged in float32"
        assert {p.dtype for p in fit.model.parameters()} == {torch.float32}
        seen.clear()
    first = {precision: next(fit.model.parameters()) for precision, fit in fits.items()}
    assert torch.equal(first["auto"], first["float32"])
    assert not torch.equal(first["bf16"], first["float32"])


def test_a_plan_is_the_product_of_what_agrees_and_placement_leaves_single_exits_alone() -> None:
    def groups(exits: str) -> Any:
        params = Params.model_validate(
            {"tasks": {"demo-images": {}, "demo-sentences": {}}, "methods": ["single_exit", "joint", "shallow_deep"]}
            | {"backbones": {"demo-albert": {}, "resnet56": {"exits": exits}}}
        )
        backbones = [params.backbone(name) for name in params.backbones]
        text = manifest_of({}).model_copy(
            update={"modality": "text", "inputs": {"demo-albert": Inputs(hash="t", splits={}, vocabulary=9)}}
        )
        tasks = [(params.task("demo-images"), manifest_of({})), (params.task("demo-sentences"), text)]
        code = {(m, n): "c" for m in ("text", "image") for n in params.methods}
        methods = [*params.entries().values()]
        weights = dict.fromkeys(params.backbones, "")
        study = Study(tasks, backbones, methods, params.grids(), params.trainings(), weights, code)
        return groups_of(study)

    every, six = groups("every_two_convs"), groups("six")
    assert [group.name for group in every] == [
        *(f"demo-images/resnet56/{name}" for name in ("single_exit", "joint", "shallow_deep")),
        *(f"demo-sentences/demo-albert/{name}" for name in ("single_exit", "joint")),
    ]
    same = [a.settings == b.settings for a, b in zip(every, six, strict=True)]
    assert same == [True, False, False, True, True]
    assert (every[0].batch_sizes, every[0].learning_rates) == ((128,), (0.1,))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", ["joint", "shallow_deep"])
def test_a_killed_run_goes_on_to_the_same_weights(method: str, tmp_path: Path) -> None:
    def fresh() -> Any:
        return fit_of(method, 60)

    whole, resumed = fresh(), fresh()
    result = run_fit(whole, tmp_path / "whole", lambda row: None)

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run_fit(fresh(), tmp_path / "killed", kill)
    again = run_fit(resumed, tmp_path / "killed", lambda row: None)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert again["selection"] == result["selection"]
    whole_bytes, killed_bytes = ((tmp_path / d / "model.safetensors").read_bytes() for d in ("whole", "killed"))
    assert whole_bytes == killed_bytes


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_trial_on_demo_images_learns() -> None:
    manifest = prepared("demo-images", Rows(train=1200, selection=200, report=200))
    settings = settings_of(width=8, depth=8, epochs=4) | {"batch_size": 32}
    names = {"task": "demo-images", "backbone": "resnet8", "hub": None}
    seen: list[dict[str, float]] = []
    context = {"threads": 1, "device": "cpu", "mirror": None, "micro_batch": {"image": None}}
    result = train(settings, names, HERE.trial("key"), context, seen.append)
    assert [row["epoch"] for row in seen] == [1, 2, 3, 4]
    assert result.exits == (1, 2, 3)
    trace = next(record_traces(HERE.trial("key"), manifest, "resnet8", ["test"], "cpu"))
    accuracy = (trace.answers() == trace.labels[:, None]).mean(axis=0)
    assert accuracy[-1] > 0.3, "chance is 0.1"
    assert accuracy[-1] > accuracy[0]
    # The stored checkpoint is that of the best epoch, and a finished trial is not run again.
    store = opened("demo-images", "selection")
    answers = record(load_checkpoint(HERE.trial("key")), store, "cpu")[0].argmax(-1)
    scores = (answers == store.labels[:, None]).mean(axis=0)
    assert np.dot([1 / 6, 2 / 6, 3 / 6], scores) == pytest.approx(result.selection)
    assert train(settings, names, HERE.trial("key"), context, seen.append) == result
    assert len(seen) == 4


@pytest.mark.parametrize("damage", ["state", "json", "best", "missing", "none"])
def test_a_damaged_state_starts_over_and_a_sound_one_does_not(damage: str, tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run_fit(fit_of("joint", 60), tmp_path, stop)
    (state,) = tmp_path.glob("resume-*.safetensors")
    assert state.name == "resume-2.safetensors"
    if damage in ("state", "best"):
        path = state if damage == "state" else tmp_path / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-8] ^= 1
        path.write_bytes(bytes(content))
    elif damage == "json":
        (tmp_path / "resume.json").write_text((tmp_path / "resume.json").read_text()[:-20])
    elif damage == "missing":
        state.unlink()
    best = json.loads((tmp_path / "resume.json").read_text())["best"] if damage != "json" else None
    steps: list[int] = []
    fit = fit_of("joint", 60)
    batches = fit.batches
    run_fit(replace(fit, batches=lambda epoch: (steps.append(epoch), batches(epoch))[1]), tmp_path, lambda row: None)
    sound = damage == "none" or (
        damage == "best" and best is None
    )  # the last epoch is the best: its model is written anew
    assert steps[0] == (3 if sound else 1)
