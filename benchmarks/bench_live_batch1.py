"""Batch 1, live: measured speed-up against the layer ratio, against plain Transformers, and a layer against its bare
matrix products. python benchmarks/bench_live_batch1.py [--device cuda --dtype bf16]"""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import LAYERS, albert_base, always_agree, answering, interleaved, options, sst2_like, table
from pipeline.evaluation.criteria import make
from pipeline.evaluation.criteria.base import State
from pipeline.evaluation.criteria.patience import Patience
from pipeline.models.encoders.fast import linear_of
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit

PATIENCES = (3, 6)
ONE_BY_ONE = ", exits asked one by one"


class OneByOne(Patience):
    """Patience whose exits are asked behind their layers, also where no row can leave yet."""

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        return 1


def plain_transformers(model: MultiExit) -> Any:
    """The Transformers classifier as it comes, on the same weights."""
    from transformers import AlbertForSequenceClassification

    backbone = model.backbone
    config = type(backbone.config)(**backbone.config.to_dict(), attn_implementation="sdpa")
    plain = AlbertForSequenceClassification(config).eval()
    names, own = plain.albert.state_dict(), backbone.state_dict()
    plain.albert.load_state_dict({name: own[name] for name in names}, assign=True)
    plain.classifier.load_state_dict(model.heads[-1].state_dict(), assign=True)
    return plain


def bare_products(model: MultiExit, tokens: int) -> Callable[[], None]:
    """The matrix products of one layer at batch 1, with its own weights and nothing between."""
    layer = model.backbone.encoder.albert_layer_groups[0].albert_layers[0]
    attention, like = layer.attention, {"dtype": layer.ffn.bias.dtype, "device": layer.ffn.bias.device}
    x, wide = torch.randn(tokens, 768, **like), torch.randn(tokens, 3072, **like)
    head, share = torch.randn(12, tokens, 64, **like), torch.randn(12, tokens, tokens, **like)
    modules = (attention.query, attention.key, attention.value, attention.dense, layer.ffn, layer.ffn_output)
    *narrow, up, down = ({"weight": module.weight, "bias": None} for module in modules)
    turned = head.transpose(1, 2)

    def run() -> None:
        for weights in narrow:
            linear_of(x, weights)
        torch.bmm(head, turned)
        torch.bmm(share, head)
        linear_of(x, up)
        linear_of(wide, down)

    return run


@torch.inference_mode()
def measure_row(
    model: MultiExit, plain: Any, batch: Mapping[str, Tensor], repeats: int, device: str
) -> dict[str, float]:
    """Median seconds of each way to answer one row, and of the parts of a layer."""
    backbone = model.backbone
    patience = make("patience")
    engines = {f"patience {t}": LiveEngine(model, patience, float(t)) for t in PATIENCES}
    engines |= {f"patience {t}{ONE_BY_ONE}": LiveEngine(model, OneByOne(), float(t)) for t in PATIENCES}
    engines["full"] = LiveEngine(model, None)
    runs: dict[str, Callable[[], Any]] = {name: partial(engine, batch) for name, engine in engines.items()}
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids")}
    runs["transformers"] = lambda: plain(**inputs).logits.argmax(-1).tolist()
    for name, engine in engines.items():
        layers = model.exits[int(engine(batch).exit_index[0])]
        assert layers == (LAYERS if name == "full" else int(re.findall(r"\d+", name)[0]) + 1), (name, layers)
    found = interleaved(
        runs, repeats, device, dict.fromkeys(engines, runs["full"]) | {"transformers": runs["transformers"]}
    )

    state = backbone.embed(batch)
    logits = model.answer(0, state).float().cpu().numpy()
    layer = backbone.encoder.albert_layer_groups[0].albert_layers[0]
    wide = torch.randn(state.hidden.shape[1], 3072, dtype=state.hidden.dtype, device=device)
    memory = patience.start(1, logits)

    def twelve(run: Callable[[], Any]) -> Callable[[], None]:
        """Long enough for the clock, and for a GPU's queue to fill."""

        def many() -> None:
            for _ in range(LAYERS):
                run()

        return many

    parts = {
        "layer": twelve(lambda: backbone.layer(0, state)),
        "products": twelve(bare_products(model, state.hidden.shape[1])),
        "activation": twelve(lambda: layer.activation(wide)),
        "norms": twelve(lambda: (layer.attention.LayerNorm(state.hidden), layer.full_layer_layer_norm(state.hidden))),
        "head": twelve(lambda: model.read([0], [state], "logits")),
        "decision": twelve(lambda: patience.step(memory, logits)[1] >= 20.0),
        "embedding": twelve(lambda: backbone.embed(batch)),
    }
    return found | {name: took / LAYERS for name, took in interleaved(parts, repeats, device).items()}


def main() -> None:
    given = options("Batch 1, live, ALBERT-base shape, random weights", rows=8, repeats=15)
    store = sst2_like(1000)
    # Rows at equal steps through the lengths.
    rows = np.argsort(store.lengths, kind="stable")[np.linspace(20, 979, given.rows).astype(int)]
    model = albert_base()
    always_agree(model)
    plain = plain_transformers(model)
    model = answering(model, given)
    plain = plain.to(given.device, model.heads[0].weight.dtype)
    each = [measure_row(model, plain, store.batch([row], given.device), given.repeats, given.device) for row in rows]
    total = {name: sum(row[name] for row in each) / len(each) for name in each[0]}
    shortest, longest = store.lengths[rows].min(), store.lengths[rows].max()
    print(f"{len(rows)} rows of {shortest} to {longest} tokens, {given.repeats} repeats")

    lines = [["full pass, ours", LAYERS, 1000 * total["full"], 1.0, 1.0, "", total["transformers"] / total["full"]]]
    for name, t in ((f"patience {t}{how}", t) for t in PATIENCES for how in ("", ONE_BY_ONE)):
        took = total[name]
        ratio, speedup = LAYERS / (t + 1), total["full"] / took
        lines.append([name, t + 1, 1000 * took, ratio, speedup, speedup / ratio, total["transformers"] / took / ratio])
    lines.append(["full pass, Transformers", LAYERS, 1000 * total["transformers"], "", "", "", 1.0])
    table(
        [
            "batch 1",
            "layers",
            "ms a row",
            "layer ratio",
            "speed-up",
            "of layer ratio",
            "Transformers' / ours, per layer",
        ],
        lines,
    )
    layer, products = total["layer"], total["products"]
    rest = layer - products - total["activation"] - total["norms"]
    named = {
        "layer": layer,
        "its bare matrix products": products,
        "its activation": total["activation"],
        "its two norms": total["norms"],
        "rest: softmax, sums, copies, Python": rest,
        "head": total["head"],
        "criterion's step": total["decision"],
        "embedding, once": total["embedding"],
    }
    table(["where the time goes", "ms", "over the products"], [[n, 1000 * v, v / products] for n, v in named.items()])


if __name__ == "__main__":
    main()
