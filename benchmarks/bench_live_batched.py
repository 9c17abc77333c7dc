"""Batched, live: throughput against full depth x layer ratio, and answers against replay of the same batches.
python benchmarks/bench_live_batched.py [--batch 128 --device cuda --dtype bf16]"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import (
    LAYERS,
    albert_base,
    answering,
    interleaved,
    often_agree,
    options,
    sst2_like,
    table,
    trace_of,
)
from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import sweep
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.tasks.text.tokens import by_length

PATIENCES = (2, 3, 6)
Batches = Sequence[Mapping[str, Tensor]]


def over(run: Callable[[Mapping[str, Tensor]], Any], batches: Batches) -> Callable[[], list[Any]]:
    return lambda: [run(batch) for batch in batches]


def token_layers(exits: np.ndarray, lengths: np.ndarray, size: int) -> tuple[int, int]:
    """Tokens x layers that a run computes, batch after batch, and would if padding were cut at each compaction."""
    computed = cut = 0
    for start in range(0, len(exits), size):
        at, tokens = exits[start : start + size], lengths[start : start + size]
        for layer in range(LAYERS):
            left = at >= layer
            if left.any():
                computed += int(left.sum() * tokens.max())
                cut += int(left.sum() * tokens[left].max())
    return computed, cut


@torch.inference_mode()
def recorded(model: MultiExit, batches: Batches) -> np.ndarray:
    return np.concatenate([model(batch).float().cpu().numpy() for batch in batches])


def main() -> None:
    given = options("Batched, live, ALBERT-base shape, random weights", rows=128, batch=32, repeats=3)
    store = sst2_like(given.rows)
    model = answering(albert_base(), given)
    often_agree(model, store, given.device)
    groups = list(by_length(store.lengths, given.batch))
    order = np.concatenate(groups)
    lengths = store.lengths[order]
    batches = [store.batch(rows, given.device) for rows in groups]
    patience = make("patience")
    engines = {t: LiveEngine(model, patience, float(t)) for t in PATIENCES}
    replayed = sweep(trace_of(recorded(model, batches)), patience, np.array(PATIENCES, dtype=np.float64))

    runs: dict[str, Callable[[], Any]] = {"full": over(LiveEngine(model, None), batches)}
    runs |= {f"patience {t}": over(engine, batches) for t, engine in engines.items()}
    took = interleaved(runs, given.repeats, given.device)

    rows = len(order)
    lines: list[list[Any]] = [["full depth", float(LAYERS), rows / took["full"], 1.0, 1.0, "", "", ""]]
    by_row = {}
    for k, t in enumerate(PATIENCES):
        answers = [engines[t](batch) for batch in batches]
        exits = np.concatenate([a.exit_index for a in answers])
        predictions = np.concatenate([a.logits for a in answers]).argmax(-1)
        same = int(((exits == replayed.exit_index[k]) & (predictions == replayed.predictions[k])).sum())
        seconds, ratio = took[f"patience {t}"], float(replayed.layer_speedup[k])
        speedup = took["full"] / seconds
        computed, cut = token_layers(exits, lengths, given.batch)
        ratios = [ratio, speedup, speedup / ratio]
        checks = [f"{same} of {rows}", f"{1 - cut / computed:.1%}"]
        lines.append([f"patience {t}", float(exits.mean() + 1), rows / seconds, *ratios, *checks])
        by_row[t] = exits[np.argsort(order)]
    print(f"{rows} rows of mean length {lengths.mean():.1f}, batches of {given.batch} sorted by length")
    heads = ["batched", "mean layers", "rows/s", "layer ratio", "speed-up", "of layer ratio", "as replay"]
    table([*heads, "cutting padding would save"], lines)
    mixed, exits = np.random.default_rng(1).permutation(rows), by_row[3]
    computed, cut = token_layers(exits[mixed], store.lengths[mixed], given.batch)
    more = computed / token_layers(exits[order], lengths, given.batch)[0]
    print(f"unsorted, patience 3: {more:.2f} times the tokens; cutting padding would save {1 - cut / computed:.1%}")


if __name__ == "__main__":
    main()
