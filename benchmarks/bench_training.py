"""Training: this project's loop against one padded to 128 tokens, as the published script's, on SST-2 and MRPC text.
python benchmarks/bench_training.py [--device cuda --batch 32 --steps 12 --seeds 3 --compile 1 --bf16 1]

Same pretrained model, batch size, loss (equation 6), dropout and learning rate. The published loop: every row padded to
128 tokens, Transformers' eager attention, AdamW parameter by parameter, rows in random order. Ours: batches of like
length, padded to their longest row, SDPA, fused AdamW; bf16 autocast on a GPU. --compile 1 adds ours with
torch.compile, whose minutes of compiling come before the clock starts, --bf16 1 ours with bf16 products on a CPU
(`training.precision`). Real text and MiniLM come from the hub mirror
../shared/hub or $HUB_MIRROR; without one, generated text and random weights of that shape."""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import options, seconds, table
from pipeline.models.encoders.encoder import Encoder, build_encoder
from pipeline.models.encoders.tokenizer import tokenizer_of
from pipeline.models.flops import encoder_flops
from pipeline.models.multi_exit import MultiExit
from pipeline.models.names import BACKBONES, hub_path
from pipeline.models.precision import autocast_type
from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import Rows, TaskSettings
from pipeline.tasks.text.prepare import freeze_splits
from pipeline.tasks.text.tokenize import save_tokens
from pipeline.tasks.text.tokens import TokenStore, bucketed
from pipeline.training.fit import Fit, Steps
from pipeline.training.methods import load_recipe
from pipeline.training.recipes.base import Moment

PADDED, HELD, RATE = 128, 256, 1e-4
COMPILED = 6
"""Batches run before the clock starts: enough to meet both kinds, with padding and without."""
SPEC = BACKBONES["minilm"]


def mirror() -> Path | None:
    folder = Path(os.environ.get("HUB_MIRROR", "../shared/hub"))
    return folder if folder.is_dir() else None


def tokens(name: str, rows: int, folder: Path) -> tuple[TokenStore, TokenStore, int]:
    """Training rows, held rows, classes: of a real task, or of a generated one that stands for it."""
    hub = mirror()
    known = name if hub else {"sst2": "demo-sentences", "mrpc": "demo-pairs"}[name]
    task = resolve_task(known, TaskSettings(rows=Rows(train=rows, selection=HELD, report=HELD)))
    splits = freeze_splits(task, "holdout", hub)
    save_tokens(task, tokenizer_of(SPEC if hub else BACKBONES["demo-albert"], task, hub), splits, folder)
    return TokenStore.open(folder / "train.arrow"), TokenStore.open(folder / "selection.arrow"), task.outputs


def make_model(outputs: int, seed: int) -> MultiExit:
    from transformers import BertConfig

    torch.manual_seed(seed)
    hub = mirror()
    shape = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
    encoder = build_encoder(SPEC, mirror=hub) if hub else Encoder(BertConfig(vocab_size=2000, **shape), SPEC.pooling)
    return MultiExit(encoder, range(1, encoder.layers + 1), outputs, SPEC.dropout)


def plain(model: MultiExit) -> Any:
    """Transformers' own model over the same weights, with its eager attention."""
    from transformers import AutoModel, BertModel

    hub = mirror()
    if hub:
        assert SPEC.hub is not None
        where = hub_path(SPEC.hub, hub)
        found = AutoModel.from_pretrained(where, attn_implementation="eager", dtype=torch.float32)
    else:
        config = model.backbone.config
        config._attn_implementation = "eager"
        found = BertModel(config, add_pooling_layer=False)
    found.embeddings.load_state_dict(model.backbone.embeddings.state_dict())
    found.encoder.load_state_dict(model.backbone.encoder.state_dict())
    return found


def published(model: MultiExit, store: TokenStore, batch: int, seed: int, device: str) -> Callable[[], None]:
    """One epoch of the published loop; leaves its weights in `model`."""
    inner = plain(model).to(device).train()
    own = model.backbone
    heads = [*model.heads.parameters(), *own.pooler.parameters()]
    moved = [*(p for n, p in inner.named_parameters() if not n.startswith("pooler")), *heads]
    optimizer = torch.optim.AdamW(moved, lr=RATE, weight_decay=0.01, foreach=False)
    recipe = load_recipe("joint")

    def epoch() -> None:
        model.train()
        torch.manual_seed(seed)
        order = np.random.default_rng([seed, 1]).permutation(len(store))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids, keep = padded(store, rows, device)
            types = torch.zeros_like(ids)
            hidden = inner(ids, attention_mask=keep.long(), token_type_ids=types, output_hidden_states=True)
            weight = keep[:, :, None].float()
            logits = []
            for head, state in zip(model.heads, hidden.hidden_states[1:], strict=True):
                pooled = torch.tanh(own.pooler((state * weight).sum(dim=1) / weight.sum(dim=1)))
                logits.append(head(model.dropout(pooled)))
            labels = torch.from_numpy(store.labels[rows].astype(np.float32)).to(device)
            loss = recipe.loss(torch.stack(logits, dim=1), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(moved, 1.0, foreach=False)
            optimizer.step()
        own.embeddings.load_state_dict(inner.embeddings.state_dict())
        own.encoder.load_state_dict(inner.encoder.state_dict())

    return epoch


def padded(store: TokenStore, rows: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Ids and mask, (n, 128)."""
    batch = store.batch(rows, device)
    ids = torch.zeros(len(rows), PADDED, dtype=torch.int64, device=device)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    width = batch["input_ids"].shape[1]
    ids[:, :width] = batch["input_ids"]
    keep[:, :width] = batch.get("keep", torch.ones_like(batch["input_ids"], dtype=torch.bool))
    return ids, keep


def ours(
    model: MultiExit,
    store: TokenStore,
    batch: int,
    seed: int,
    device: str,
    compiler: str | None = None,
    precision: str = "auto",
) -> Callable[[], None]:
    """One epoch of this project's loop."""
    recipe = load_recipe("joint")
    labels = torch.from_numpy(store.labels.astype(np.float32)).to(device)

    def batches(epoch: int) -> Any:
        for rows in bucketed(store.lengths, batch, np.random.default_rng([seed, epoch])):
            yield store.batch(rows, device), labels[torch.from_numpy(rows).to(device)]

    fit = Fit(
        model=model,
        objective=lambda m, inputs, y, done: recipe.objective(m, inputs, y, Moment(done)),
        batches=batches,
        steps_per_epoch=-(-len(store) // batch),
        evaluate=lambda m: {},
        optimizer=torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=True),
        schedule=lambda done: 1.0,
        epochs=1,
        stop_after=1,
        seed=seed,
        clip_norm=1.0,
        autocast=autocast_type(device, precision),
        compiler=compiler,
    )
    steps = Steps(fit)
    if compiler is not None:
        model.train()
        for inputs, _ in list(batches(1))[:COMPILED]:
            with torch.autocast(device, fit.autocast, enabled=fit.autocast is not None):
                logits = model(inputs)
            logits.sum().backward()

    def epoch() -> None:
        torch.manual_seed(seed)
        steps.epoch(1)

    return epoch


@torch.inference_mode()
def held_loss(model: MultiExit, store: TokenStore, device: str) -> float:
    model.eval()
    labels = torch.from_numpy(store.labels.astype(np.float32)).to(device)
    return float(load_recipe("joint").loss(model(store.batch(np.arange(len(store)), device)).float(), labels))


def matmul_rate(model: MultiExit, device: str) -> float:
    """FLOPs per second of the machine's matrix products, of the shape of a layer's largest one at 2,048 tokens."""
    shape = model.backbone.shape(2)
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.randn(2048, shape.hidden, device=device, dtype=kind)
    b = torch.randn(shape.hidden, shape.intermediate, device=device, dtype=kind)
    runs = 20
    took = min(seconds(lambda: [a @ b for _ in range(runs)], device) for _ in range(5))
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] * runs / took


def main() -> None:
    given = options("Training, all exits of MiniLM", batch=32, steps=12, seeds=3, compile=0, bf16=0)
    rows = []
    for name in ("sst2", "mrpc"):
        with tempfile.TemporaryDirectory() as folder:
            store, held, outputs = tokens(name, given.batch * given.steps, Path(folder) / name)
            rows.append([name, *compared(given, store, held, outputs)])
    heads = ("text", "tokens/row", "padded: rows/s", "ours: rows/s", "ratio (target 2)", "share of matmul rate",
             "padded: loss", "ours: loss", "before")  # fmt: skip
    table((*heads, *(f"{name}: {what}" for name in variants(given) for what in ("loss", "ratio"))), rows)
    print("\nLosses: equation 6 on held rows after the same rows, mean over seeds and their range.")


def variants(given: Any) -> dict[str, Callable[..., Callable[[], None]]]:
    """Ours in the other ways that the options name."""
    every = {"compile": partial(ours, compiler="inductor"), "bf16": partial(ours, precision="bf16")}
    return {name: loop for name, loop in every.items() if getattr(given, name)}


def compared(given: Any, store: TokenStore, held: TokenStore, outputs: int) -> list[Any]:
    loops: dict[str, Callable[..., Callable[[], None]]] = {"padded": published, "ours": ours, **variants(given)}
    took: dict[str, list[float]] = {name: [] for name in loops}
    losses: dict[str, list[float]] = {name: [] for name in (*loops, "before")}
    for seed in range(given.seeds):  # in turns, so that a busy machine slows all
        for name, loop in loops.items():
            model = make_model(outputs, seed).to(given.device)
            before = held_loss(model, held, given.device)
            epoch = loop(model, store, given.batch, seed, given.device)
            took[name].append(seconds(epoch, given.device))
            losses[name].append(held_loss(model, held, given.device))
        losses["before"].append(before)
    rate = {name: len(store) / float(np.median(values)) for name, values in took.items()}
    flops, _ = encoder_flops(model.backbone.shape(outputs), store.lengths, np.array(model.exits))
    share = 3 * float(flops[:, -1].mean()) * rate["ours"] / matmul_rate(model, given.device)
    shown = {name: f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for name, v in losses.items()}
    of_variants = (cell for name in variants(given) for cell in (shown[name], rate[name] / rate["padded"]))
    losses_shown = (shown["padded"], shown["ours"], shown["before"])
    tokens_mean, ratio = float(store.lengths.mean()), rate["ours"] / rate["padded"]
    return [tokens_mean, rate["padded"], rate["ours"], ratio, share, *losses_shown, *of_variants]


if __name__ == "__main__":
    main()
