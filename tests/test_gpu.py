"""What holds on a GPU: bf16 features, float32 that is float32, equal runs with equal bits, a share of memory.

It needs a GPU and neither Ray, MLflow, DVC nor datasets: `python -m pytest tests/test_gpu.py`, on any Python
from 3.11 on with Torch, Transformers 4.57 or 5, pydantic and array-api-compat.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import sweep
from pipeline.layout import HERE
from pipeline.models.encoders.encoder import Encoder
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.names import BackboneSettings, resolve_backbone
from pipeline.models.precision import autocast_type, equal_bits, full_float32, limit_memory
from pipeline.models.recording import record_traces
from pipeline.models.residual import ResNet
from pipeline.models.roof import MatrixRate, Product
from pipeline.running.gpus import MARGIN, share_of_gpu
from pipeline.running.ray.worker import forget_peak, gpu_gib
from pipeline.tasks.image.pixels import ImageStore
from pipeline.tasks.names import resolve_task
from pipeline.tasks.stores import Store
from pipeline.tasks.task import Rows, TaskSettings
from pipeline.tasks.text.tokens import TokenStore, collate
from pipeline.training.fit import Fit, run_fit
from pipeline.training.methods import METHODS
from pipeline.training.recipes.base import Start
from pipeline.training.trial import DECISION, build_fit, train
from tests.prepared import CONTEXT, names_of, prepared, settings_of
from tests.replayed import check_replayed_in_bf16, residual_model
from tests.test_backbones import LAYERS, LENGTHS, centre, config_of, each_family, rows, states
from tests.test_criteria import trace_of

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.fixture(autouse=True)
def _as_a_worker_begins() -> None:
    full_float32()
    equal_bits(DEVICE)


# Arithmetic


@each_family
def test_under_autocast_a_frozen_encoder_has_the_features_of_training(family: str) -> None:
    torch.manual_seed(0)
    config = config_of(family)
    for name in ("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    encoder = Encoder(config, "mean").to(DEVICE)
    batch = collate(*rows(LENGTHS), DEVICE)
    with torch.no_grad():
        exact = states(encoder.eval(), batch)
        with torch.autocast(DEVICE, torch.bfloat16):
            training, frozen = states(encoder.train(), batch), states(encoder.eval(), batch)
    for mine, theirs in zip(frozen[1:], training[1:], strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(frozen[-1], exact[-1], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("what", ["convolution", "product"])
def test_float32_is_float32(what: str) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)

    def error() -> float:
        if what == "convolution":
            mine = functional.conv2d(x.to(DEVICE), weight.to(DEVICE)).cpu()
            exact = functional.conv2d(x.double(), weight.double())
        else:
            a, b = x.reshape(512, 1024), x.reshape(1024, 512)
            mine, exact = (a.to(DEVICE) @ b.to(DEVICE)).cpu(), a.double() @ b.double()
        return float((mine - exact).abs().max() / exact.abs().max())

    assert error() < 1e-5
    if torch.cuda.get_device_capability() >= (8, 0):  # older chips have no TF32
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        assert error() > 1e-4, "what is measured is TF32"


def test_bf16_where_the_chip_has_it() -> None:
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert autocast_type(DEVICE) == (torch.bfloat16 if native else None)


@each_family
def test_live_equals_replay(family: str) -> None:
    torch.manual_seed(0)
    model = MultiExit(Encoder(config_of(family), "first"), range(1, LAYERS + 1), 3).eval().to(DEVICE)
    ids, types = rows(tuple(range(2, 26)), seed=1)
    batches = [collate(ids[i : i + 1], types[i : i + 1], DEVICE) for i in range(len(ids))]
    with torch.inference_mode():
        centre(model, batches)
        logits = torch.cat([model(batch) for batch in batches]).float().cpu().numpy()
    for name, thresholds in {"patience": [0, 1, 2], "confidence": [0.5, 0.7, 0.95]}.items():
        swept = sweep(trace_of(logits), make(name), np.array(thresholds, dtype=np.float64))
        for at, threshold in enumerate(swept.thresholds):
            answers = [LiveEngine(model, make(name), threshold)(batch) for batch in batches]
            np.testing.assert_array_equal(np.concatenate([a.exit_index for a in answers]), swept.exit_index[at])


@each_family
@pytest.mark.parametrize("size", [1, 24])
def test_live_equals_replay_in_bf16(family: str, size: int) -> None:
    torch.manual_seed(0)
    model = MultiExit(Encoder(config_of(family), "mean"), range(1, LAYERS + 1), 3).eval().to(DEVICE)
    ids, types = rows(tuple(range(2, 26)), seed=1)
    batches = [collate(ids[i : i + size], types[i : i + size], DEVICE) for i in range(0, len(ids), size)]
    with torch.no_grad():
        centre(model, batches)
    check_replayed_in_bf16(model.to(torch.bfloat16), batches)


def test_images_in_bf16_leave_as_in_replay() -> None:
    model, batch = residual_model(14, 8, DEVICE)
    check_replayed_in_bf16(model.to(torch.bfloat16), [batch])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_matrix_rate_of_a_gpu(precision: str) -> None:
    rate = MatrixRate([Product(512, 768, 768, 4, 4)], [precision], 1, DEVICE)
    rate.run()
    assert rate.rates()[precision] > 0


# Equal runs


def text_store(n: int = 48) -> TokenStore:
    generator = np.random.default_rng(0)
    ids, types = rows(tuple(generator.integers(3, 30, n).tolist()))
    offsets = np.cumsum([0, *map(len, ids)])
    return TokenStore(np.concatenate(ids), np.concatenate(types), offsets, np.arange(n) % 3.0, np.arange(n))


def image_store(n: int = 48) -> ImageStore:
    images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageStore(images.to(DEVICE), np.arange(n) % 3.0, np.arange(n))


def backbone(modality: str, family: str) -> Any:
    torch.manual_seed(0)
    if modality == "image":
        return ResNet(14, 8, (0.5,) * 3, (0.25,) * 3)
    return Encoder(config_of(family), "first")


def fit_of(method: str, modality: str, family: str, folder: Path) -> Fit:
    parent = None
    if METHODS[method].parent:
        network = backbone(modality, family)
        exits = range(1, network.layers + 1) if METHODS[method].parent == "joint" else (network.layers,)
        parent = MultiExit(network, exits, 3).eval().to(DEVICE)
    start = Start(lambda: backbone(modality, family), 3, 0.1, parent)
    text = {"stop_after": 3, "warmup": 0.1, "clip_norm": 1.0}
    more = {"augment": True} if modality == "image" else text
    settings = {"modality": modality, "method": method, "metrics": ["accuracy"], "batch_size": 16, "seed": 1} | {
        "learning_rate": 0.01,
        "training": {"epochs": 3, "weight_decay": 0.01, **more},
    }
    store: Store = image_store() if modality == "image" else text_store()
    fit: Fit = build_fit(settings, start, store, store, DEVICE, None, folder / DECISION)
    return fit


class KilledError(BaseException):
    """What nothing catches."""


def kill_after_two(row: dict[str, float]) -> None:
    if row["epoch"] == 2:
        raise KilledError


CASES = [(name, kind, "bert") for name, info in METHODS.items() for kind in info.modalities]
CASES += [("joint", "text", "albert"), ("head_prune", "text", "roberta")]


@pytest.mark.parametrize(("method", "modality", "family"), CASES)
def test_equal_runs_have_equal_bits(method: str, modality: str, family: str, tmp_path: Path) -> None:
    """Also one that was killed and went on."""
    whole = fit_of(method, modality, family, tmp_path / "whole")
    results = {"whole": run_fit(whole, tmp_path / "whole", lambda row: None)}
    assert whole.autocast == autocast_type(DEVICE)
    for name in ("again", "killed"):
        fit = fit_of(method, modality, family, tmp_path / name)
        with suppress(KilledError):
            run_fit(fit, tmp_path / name, kill_after_two if name == "killed" else lambda row: None)
        fit = fit_of(method, modality, family, tmp_path / name)
        results[name] = run_fit(fit, tmp_path / name, lambda row: None)
        expected, kept = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", name))
        assert kept == expected, name
        assert results[name]["metrics"].items() >= {"selection": results["whole"]["selection"]}.items()


def test_from_tokens_to_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = resolve_task("demo-sentences", TaskSettings(rows=Rows(train=64, selection=32, report=32)))
    spec = resolve_backbone("demo-albert", BackboneSettings(layers=4))
    manifest = prepared(task, spec)
    context = {**CONTEXT, "device": DEVICE, "gpu_share": 0.5}
    for method in ("single_exit", "joint", "head_prune"):
        parent = METHODS[method].parent
        more = {"parent": parent} if parent else {}
        settings = settings_of(task, manifest, spec, method, **more)
        train(settings, names_of(task, spec), HERE.trial(method), context, lambda row: None)
        one, again = (
            next(record_traces(HERE.trial(method), manifest, "demo-albert", ["validation"], DEVICE)) for _ in range(2)
        )
        np.testing.assert_array_equal(one.logits, again.logits)
        cpu = next(record_traces(HERE.trial(method), manifest, "demo-albert", ["validation"], "cpu"))
        np.testing.assert_allclose(one.logits, cpu.logits, rtol=1e-3, atol=1e-4)


# Memory


@pytest.fixture
def small_share() -> Any:
    """Limits this process to 1.25 GiB, as a worker is limited to its share."""
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.empty_cache()
    limit_memory(2 / total)
    yield
    limit_memory(1.0)


@pytest.mark.usefixtures("small_share")
def test_a_trial_that_outgrows_its_share_halves_its_own_batch(tmp_path: Path) -> None:
    free = torch.cuda.mem_get_info()[0]
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**31, dtype=torch.uint8, device=DEVICE)
    assert free > 2**32, "the memory was there"
    fit = fit_of("joint", "text", "bert", tmp_path)
    inner: Callable[..., Tensor] = fit.objective

    def hungry(model: MultiExit, inputs: Any, labels: Tensor, done: float) -> Tensor:
        torch.empty(len(labels) * 100 * 2**20, dtype=torch.uint8, device=DEVICE)  # 100 MiB a row
        return inner(model, inputs, labels, done)

    assert run_fit(replace(fit, objective=hungry), tmp_path, lambda row: None)["micro_batch"] == 8


def test_the_memory_that_a_trial_needed_is_what_it_is_given(tmp_path: Path) -> None:
    """And the whole batch fits into it."""
    fit = fit_of("joint", "text", "bert", tmp_path / "free")
    forget_peak()
    run_fit(fit, tmp_path / "free", lambda row: None)
    gib, total = gpu_gib(), torch.cuda.get_device_properties(0).total_memory / 2**30
    assert gib is not None
    assert torch.cuda.max_memory_allocated() / 2**30 < gib < total
    del fit
    forget_peak()
    limit_memory(share_of_gpu(total, gib * MARGIN))
    try:
        again = run_fit(fit_of("joint", "text", "bert", tmp_path / "bound"), tmp_path / "bound", lambda row: None)
    finally:
        limit_memory(1.0)
    assert again["micro_batch"] is None
    assert (tmp_path / "bound/model.safetensors").read_bytes() == (tmp_path / "free/model.safetensors").read_bytes()
