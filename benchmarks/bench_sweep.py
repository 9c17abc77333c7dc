"""A whole sweep (11 patiences, 100 confidences, 100 entropies) by one recording pass and replay, against running the
model once per setting, one row at a time, padded to 128 as the published code does it, and unpadded.

A few settings and rows are timed one by one. Their seconds per layer run, times the layers that all settings run on
all rows (known from replay), is the time of the whole; the table says what was timed and what was extrapolated.
python benchmarks/bench_sweep.py [--device cuda --dtype bf16]"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import LAYERS, albert_base, answering, often_agree, options, seconds, sst2_like, table, trace_of
from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace
from pipeline.models.multi_exit import MultiExit
from pipeline.models.recording import record

PADDED = 128
SETTINGS = {
    "patience": np.arange(1.0, 12),
    "confidence": np.linspace(0.5, 0.9999, 100),
    "entropy": np.linspace(-np.log(2), -0.0001, 100),
}


def as_published(model: MultiExit) -> Any:
    """Transformers' ALBERT with the weights of a model."""
    from transformers import AlbertModel

    config = type(model.backbone.config)(**model.backbone.config.to_dict(), attn_implementation="eager")
    albert = AlbertModel(config, add_pooling_layer=True).eval()
    own = model.backbone.state_dict()
    albert.load_state_dict({name: own[name] for name in albert.state_dict()}, assign=True)
    return albert


class OneByOne:
    """Early exit as the published code runs it: eager attention, one row, every exit's head on the way, decisions in
    Torch. Patience counts as here (the published code leaves one layer sooner or later by its own count)."""

    def __init__(self, albert: Any, heads: Any, device: str) -> None:
        self.albert, self.heads, self.device = albert, heads, device

    @torch.inference_mode()
    def __call__(self, ids: np.ndarray, padded: int | None, name: str, threshold: float) -> tuple[int, int]:
        """Prediction and 0-based exit of one row."""
        length = len(ids)
        row = np.zeros((1, padded or length), dtype=np.int64)
        row[0, :length] = ids
        tokens = torch.from_numpy(row).to(self.device)
        mask = torch.zeros(tokens.shape, dtype=torch.long, device=self.device)
        mask[:, :length] = 1
        hidden = self.albert.embeddings(input_ids=tokens, token_type_ids=torch.zeros_like(tokens))
        encoder = self.albert.encoder
        hidden = encoder.embedding_hidden_mapping_in(hidden)
        bias = (1.0 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        count, previous = 0, None
        for index, head in enumerate(self.heads):
            output = encoder.albert_layer_groups[0].albert_layers[0](hidden, attention_mask=bias)
            hidden = output[0] if isinstance(output, tuple) else output
            logits = head(self.albert.pooler_activation(self.albert.pooler(hidden[:, 0])))
            answer = int(logits.argmax(-1))
            if name == "patience":
                count = count + 1 if answer == previous else 0
                score = float(count)
            else:
                score = uncertainty(logits, name)
            previous = answer
            if score >= threshold or index + 1 == len(self.heads):
                return answer, index
        raise AssertionError("no exits")


def uncertainty(logits: Tensor, name: str) -> float:
    log_p = torch.log_softmax(logits.double(), dim=-1)[0]
    return float(log_p.exp().max() if name == "confidence" else (log_p.exp() * log_p).sum())


def sampled(settings: np.ndarray, count: int) -> np.ndarray:
    """Settings in the middle of equal parts of the sweep."""
    return np.round((np.arange(count) + 0.5) * len(settings) / count - 0.5).astype(int)


def main() -> None:
    given = options("A whole sweep of 211 settings, ALBERT-base shape, random weights", rows=192, settings=3, each=6)
    store = sst2_like(given.rows)
    model = albert_base()
    often_agree(model, store, "cpu")
    published = as_published(model)
    model = answering(model, given)
    baseline = OneByOne(published.to(given.device, model.heads[0].weight.dtype), model.heads, given.device)
    # Rows in the middle of equal parts of the lengths.
    picked = np.argsort(store.lengths, kind="stable")[sampled(store.lengths, given.each)]

    record(model, store, given.device)  # warms up
    trace: Trace | None = None
    recording, replaying = [], []
    spent: dict[int | None, float] = {PADDED: 0.0, None: 0.0}
    run_layers: dict[int | None, int] = {PADDED: 0, None: 0}
    same = dict.fromkeys(spent, 0)
    all_layers = 0.0
    timed = 0
    for name, thresholds in SETTINGS.items():
        # In turns with what it is compared with.
        logits: list[np.ndarray] = []
        recording.append(seconds(lambda: logits.append(record(model, store, given.device)[0]), given.device))  # noqa: B023
        trace = trace_of(logits[0])
        started = time.process_time()
        swept = sweep(trace, make(name), thresholds)
        replaying.append(time.process_time() - started)
        all_layers += float((swept.exit_index + 1).sum())
        for k in sampled(thresholds, given.settings):
            for row in picked:
                ids = np.asarray(store.ids[store.offsets[row] : store.offsets[row + 1]])
                timed += 1
                for padded in spent:
                    found: list[Any] = []
                    threshold = float(thresholds[k])
                    spent[padded] += seconds(
                        lambda: found.append(baseline(ids, padded, name, threshold)),  # noqa: B023
                        given.device,
                    )
                    expected = (int(swept.predictions[k, row]), int(swept.exit_index[k, row]))
                    same[padded] += found[0] == expected
                    run_layers[padded] += found[0][1] + 1
    count = sum(map(len, SETTINGS.values()))
    ours = float(np.median(recording)) + sum(replaying)
    mean = all_layers / count / given.rows
    print(
        f"{given.rows} rows of mean length {store.lengths.mean():.1f}; {count} settings, {mean:.2f} layers a row on "
        f"average; one by one: {timed} rows timed in {given.settings} settings of each criterion"
    )
    lines: list[list[Any]] = [
        ["record once, then replay", float(np.median(recording)), sum(replaying), ours, 1.0, ""],
    ]
    for padded, name in ((None, "one by one, unpadded"), (PADDED, f"one by one, padded to {PADDED}")):
        whole = spent[padded] / run_layers[padded] * all_layers
        lines.append([name, spent[padded], "", whole, whole / ours, f"{same[padded]} of {timed}"])
    full = all_layers / given.rows
    print(
        f"one pass runs {LAYERS} layers, the sweep one by one {full:,.0f}: at equal cost of a layer that is "
        f"{full / LAYERS:.0f} times, and {count} if no setting left early"
    )
    table(["sweep", "s timed", "s replay", "s whole sweep", "times ours", "same answer and layer"], lines)


if __name__ == "__main__":
    main()
