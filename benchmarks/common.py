"""What the benchmarks share: the ALBERT-base shape with random weights, rows of SST-2-like lengths, interleaved timing,
and a table."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from pipeline.evaluation.trace import Trace
from pipeline.models.encoders.encoder import Encoder
from pipeline.models.multi_exit import MultiExit
from pipeline.models.packed import ready
from pipeline.tasks.text.tokens import TokenStore

VOCABULARY = 30_000
LAYERS = 12


def options(about: str, **defaults: int) -> argparse.Namespace:
    """Parse --device, --dtype and one integer option for each default."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bf16"), default="float32")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{about}\n{machine(given.device)}, {given.dtype}, one thread, torch {torch.__version__}")
    return given


def machine(device: str) -> str:
    """The processor's or the GPU's name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0]}" if names else "CPU"


def albert_base(seed: int = 0) -> MultiExit:
    """12 shared layers of ALBERT-base-v2's shape, an exit after each, two classes, random weights; as it is trained."""
    from transformers import AlbertConfig

    torch.manual_seed(seed)
    config = AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=128,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,  # wider than 0.02, so that random rows differ after twelve layers
    )
    return MultiExit(Encoder(config, "first"), range(1, LAYERS + 1), 2).eval()


def answering(model: MultiExit, given: argparse.Namespace) -> MultiExit:
    """The model on the device and in the type of the options, as whatever answers has it."""
    return ready(model, given.device, torch.bfloat16 if given.dtype == "bf16" else torch.float32)


def sst2_like(rows: int, seed: int = 0) -> TokenStore:
    """Random tokens in rows as long as SST-2's: mean 25, from 5 to 66."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(np.rint(generator.gamma(4.2, 6.0, rows)), 5, 66).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenStore(
        ids=generator.integers(5, VOCABULARY, offsets[-1]),
        types=np.zeros(offsets[-1], dtype=np.int64),
        offsets=offsets,
        labels=np.zeros(rows),
        row_ids=np.arange(rows),
    )


@torch.inference_mode()
def always_agree(model: MultiExit) -> None:
    """Every exit answers class 0, so that patience t leaves at layer t + 1."""
    for head in model.heads:
        head.bias.copy_(torch.tensor([100.0, -100.0]))  # type: ignore[operator]


@torch.inference_mode()
def often_agree(model: MultiExit, store: TokenStore, device: str) -> None:
    """Exits that agree on some rows early and on others late, and grow surer with depth as trained ones do: one
    direction for all exits, and noise for each, on pooled vectors brought to mean 0 and deviation 1."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2, 768, generator=generator)
    state = model.backbone.embed(store.batch(np.arange(min(len(store), 64)), device))
    for index, head in enumerate(model.heads):
        state = model.backbone.layer(index, state)
        pooled = model.backbone.pool(index, state).float().cpu()
        weight = shared + 0.7 * torch.randn(2, 768, generator=generator)
        weight = 3.0 * (index + 1) / LAYERS * weight / (pooled.std(dim=0) + 1e-4) / 768**0.5
        head.weight.copy_(weight)  # type: ignore[operator]
        head.bias.copy_(-weight @ pooled.mean(dim=0))  # type: ignore[operator]


def trace_of(logits: np.ndarray) -> Trace:
    """Logits (n, exits, classes) as a trace without labels, a layer per exit."""
    n, exits, _ = logits.shape
    layers = np.arange(1.0, exits + 1)
    costs = np.tile(layers, (n, 1))
    return Trace("classification", logits, np.zeros(n), np.arange(n), layers, costs, costs[:, -1])


def seconds(run: Callable[[], Any], device: str) -> float:
    """One run. CPU: processor time of this one-thread process, which other programs lengthen less than wall time.
    GPU: wall time until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    run()
    return time.process_time() - started


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: str,
    before: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
) -> dict[str, float]:
    """Median seconds of each run over repeats taken in turns, after one round to warm up.

    Args:
        before: what runs untimed right before a run. Where runs have weights of their own, a full pass of the same
            model: each would else begin with the weights of another in the caches, as no service does that answers
            with one model, and a short run pays most for that.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            if name in before:
                before[name]()
            took = seconds(run, device)
            if repeat:
                taken[name].append(took)
    return {name: statistics.median(values) for name, values in taken.items()}


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table; floats with three significant digits."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(heads), *text]) for i in range(len(heads))]
    print("\n| " + " | ".join(h.ljust(w) for h, w in zip(heads, widths, strict=True)) + " |")
    print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    for line in text:
        print("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |")


def _cell(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
