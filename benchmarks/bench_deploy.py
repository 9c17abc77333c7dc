"""Batch 1, one thread: PyTorch with its weights as they were trained, packed, and in bf16; ONNX float32 and int8; the
loop of the published code padded to 128. All on the same weights and rows, beside the matrix products of a full pass
alone, in one run. python benchmarks/bench_deploy.py"""

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import LAYERS, albert_base, always_agree, interleaved, options, sst2_like, table
from pipeline.evaluation.criteria import make
from pipeline.models.deploy.engine import GraphEngine
from pipeline.models.deploy.folder import FLOAT32, INT8
from pipeline.models.deploy.graphs import shape_of, write_graphs
from pipeline.models.deploy.quantised import write_int8
from pipeline.models.deploy.segments import Segments
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.packed import ready
from pipeline.models.roof import MatrixRate, products_of

PATIENCES = (3, 6)
PADDED = 128
FULL = "full"
AS_TRAINED = "PyTorch, weights as trained"
PUBLISHED = f"published, padded to {PADDED}"
Way = Callable[[Mapping[str, Tensor]], int]


class Published:
    """The inference of the released code (huggingface/transformers, research_projects/bert-loses-patience): modules of
    Transformers, one counter for the batch, every row padded to the longest input.

    Args:
        patience: None runs all layers, with every head, as the released code does.
    """

    def __init__(self, model: MultiExit, patience: int | None) -> None:
        from transformers import AlbertModel

        own = model.backbone
        config = type(own.config)(**own.config.to_dict(), attn_implementation="sdpa")
        self.plain: Any = AlbertModel(config).eval()
        names, weights = self.plain.state_dict(), own.state_dict()
        self.plain.load_state_dict({name: weights[name] for name in names}, assign=True)
        self.heads: Any = model.heads
        self.patience = patience

    def __call__(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[int, int]:
        """The answer and the number of layers."""
        plain = self.plain
        hidden = plain.encoder.embedding_hidden_mapping_in(plain.embeddings(ids, token_type_ids=types))
        bias = (1.0 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        before, count, layers = None, 0, 0
        for head in self.heads:
            hidden = plain.encoder.albert_layer_groups[0](hidden, bias, [None])[0]
            logits = head(plain.pooler_activation(plain.pooler(hidden[:, 0])))
            labels, layers = logits.detach().argmax(dim=1), layers + 1
            same = before is not None and bool(torch.all(labels.eq(before)))
            count = count + 1 if same else 0
            before = labels
            if count == self.patience:
                break
        return int(labels[0]), layers


def padded(batch: Mapping[str, Tensor], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and types of one row, padded."""
    tokens = batch["input_ids"].shape[1]
    ids, types = torch.zeros(2, 1, length, dtype=torch.int64)
    ids[:, :tokens], types[:, :tokens] = batch["input_ids"], batch["token_type_ids"]
    return ids, (torch.arange(length) < tokens)[None].long(), types


def ways(model: MultiExit, folder: Path) -> dict[str, Way]:
    """Every way to answer a row, by engine and setting; each returns the layers that it ran."""
    written = write_graphs(model, folder, images=False)
    shape = shape_of(model, {FLOAT32: written, INT8: write_int8(folder, written)})
    found: dict[str, Way] = {}
    kinds = {"PyTorch": torch.float32, "PyTorch bf16": torch.bfloat16}
    models = {AS_TRAINED: model} | {name: ready(copy.deepcopy(model), "cpu", kind) for name, kind in kinds.items()}
    graphs = {name: Segments.open(folder, shape, name) for name in shape["precisions"]}
    for name, patience in ((FULL, None), *((f"patience {t}", t) for t in PATIENCES)):
        criterion, threshold = (None, np.inf) if patience is None else (make("patience"), float(patience))
        for engine, one in models.items():
            found[f"{engine}, {name}"] = partial(layers_of, LiveEngine(one, criterion, threshold))
        for precision, segments in graphs.items():
            found[f"ONNX {precision}, {name}"] = partial(layers_of, GraphEngine(segments, criterion, threshold))
        found[f"{PUBLISHED}, {name}"] = partial(layers_as_published, Published(model, patience))
    return found


def layers_of(engine: LiveEngine | GraphEngine, batch: Mapping[str, Tensor]) -> int:
    return engine.model.exits[int(engine(batch).exit_index[0])]


def layers_as_published(published: Published, batch: Mapping[str, Tensor]) -> int:
    return published(*padded(batch, PADDED))[1]


def main() -> None:
    given = options("Batch 1, ALBERT-base shape, random weights, exits that agree", rows=6, repeats=7)
    store = sst2_like(1000)
    rows = np.argsort(store.lengths, kind="stable")[np.linspace(20, 979, given.rows).astype(int)]
    model = albert_base()
    always_agree(model)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        with torch.inference_mode(False):
            engines = ways(model, Path(folder))
        total: dict[str, float] = dict.fromkeys(engines, 0.0)
        products = dict.fromkeys((FLOAT32, "bf16", INT8), 0.0)
        for row in rows:
            batch = store.batch([row], "cpu")
            for name, engine in engines.items():
                setting = name.rpartition(", ")[2]
                assert engine(batch) == (LAYERS if setting == FULL else int(setting.split()[1]) + 1), name
            runs = {name: partial(engine, batch) for name, engine in engines.items()}
            full = {name: runs[f"{name.rpartition(', ')[0]}, {FULL}"] for name in runs}
            for name, took in interleaved(runs, given.repeats, "cpu", full).items():
                total[name] += took / len(rows)
            rate = MatrixRate(products_of(model, batch), [*products], 1, "cpu", time.process_time)
            for _ in range(given.repeats):
                rate.run()
            for precision, rates in rate.rates().items():
                products[precision] += rate.flops / rates / 1e9 / len(rows)
    print(f"{len(rows)} rows of {store.lengths[rows].min()} to {store.lengths[rows].max()} tokens")
    lines = []
    for name, took in total.items():
        engine_name, _, setting = name.rpartition(", ")
        ratio = 1.0 if setting == FULL else LAYERS / (int(setting.split()[1]) + 1)
        speedup = total[f"{engine_name}, {FULL}"] / took
        others = [total[f"{other}, {setting}"] / took for other in (AS_TRAINED, PUBLISHED)]
        lines.append([name, 1000 * took, *others, speedup, speedup / ratio])
    table(["way", "ms a row", "as trained / it", "published / it", "full / it", "of layer ratio"], lines)
    fastest = {FLOAT32: f"ONNX {FLOAT32}", "bf16": "PyTorch bf16", INT8: f"ONNX {INT8}"}
    lines = [
        [name, 1000 * took, took / total[f"{fastest[name]}, {FULL}"], total[f"{AS_TRAINED}, {FULL}"] / took]
        for name, took in products.items()
    ]
    table(["products alone", "ms a row", "of its engine's full pass", "full pass as trained / it"], lines)


if __name__ == "__main__":
    main()
