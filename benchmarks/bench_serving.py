"""A served model under load: HTTP through Ray Serve at several thresholds against all layers, in float32 and int8; and
the pool of rows against plain dynamic batching. ALBERT-base's shape with random weights, texts of SST-2's lengths.
python benchmarks/bench_serving.py"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.common import LAYERS, VOCABULARY, albert_base, often_agree, options, sst2_like, table
from pipeline.evaluation.leaving import Rule
from pipeline.models.deploy.folder import DESCRIPTION, FLOAT32, INT8, SCHEMA, TOKENIZER, hash_of
from pipeline.models.deploy.graphs import write_graphs
from pipeline.models.deploy.quantised import write_int8
from pipeline.models.deploy.runtime import Deployed
from pipeline.models.deploy.segments import Arrays
from pipeline.serving.pool import SPREAD, Pool
from pipeline.serving.requests import Asked, Ready, prepare
from pipeline.serving.rows import Ticket

FULL: dict[str, Any] = {"criterion": "full"}
AT: dict[str, dict[str, Any]] = {
    "full": FULL,
    **{f"patience {t}": {"criterion": "patience", "threshold": float(t)} for t in (2, 4, 6)},
}
CLIENTS = 8
"""Requests at once, of one text each."""
BATCH = 8


def folder_of(into: Path) -> None:
    """Write a folder as `export` does, without scores."""
    model, store = albert_base(), sst2_like(1000)
    often_agree(model, store, "cpu")
    written = write_graphs(model, into, images=False)
    files = {FLOAT32: written, INT8: write_int8(into, written)}
    words_tokenizer().save(str(into / TOKENIZER))
    described = {
        **{"schema": SCHEMA, "task": "random", "modality": "text", "kind": "classification", "columns": ["text"]},
        **{"label_names": ["no", "yes"], "backbone": "albert-base", "method": "none", "seed": 0, "key": "none"},
        **{"weights_sha256": "", "outputs": 2, "exits": list(model.exits), "channels": []},
        "precisions": {name: vars(one) | {"points": [], "promises": [], "rows": []} for name, one in files.items()},
        "files": {path.name: hash_of(path) for path in into.iterdir()},
    }
    (into / DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")


def words_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def texts(count: int) -> list[str]:
    store = sst2_like(count, seed=1)
    return [" ".join(map(str, store.ids[a:b])) for a, b in zip(store.offsets[:-1], store.offsets[1:], strict=True)]


# Through Ray Serve


@contextmanager
def served(folder: Path, precision: str) -> Iterator[str]:
    """The command `serve`, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline", "serve", str(folder), "--precision", precision, "--port", str(port)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "until it is stopped" in line, line
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def over_http(address: str, rows: Sequence[str], asked: dict[str, Any]) -> tuple[np.ndarray, float, float]:
    """Seconds of each request, seconds in all, mean layers; `CLIENTS` requests at once."""
    import aiohttp

    took, layers, queue = [], [], iter(rows)
    async with aiohttp.ClientSession(address) as session:

        async def client() -> None:
            for row in queue:
                started = time.perf_counter()
                async with session.post("/answer", json={"rows": [row], **asked}) as response:
                    said = await response.json()
                took.append(time.perf_counter() - started)
                layers.append(said["answers"][0]["layer"])

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return np.array(took), time.perf_counter() - started, float(np.mean(layers))


def bench_http(folder: Path, requests: int) -> None:
    lines = []
    for precision in (FLOAT32, INT8):
        rows = texts(requests if precision == FLOAT32 else 2 * requests)
        with served(folder, precision) as address:
            asyncio.run(over_http(address, rows[:10], FULL))
            rates: dict[str, float] = {}
            for name, asked in AT.items():
                took, seconds, layers = asyncio.run(over_http(address, rows, asked))
                rates[name] = len(rows) / seconds
                p50, p99 = 1000 * np.quantile(took, (0.5, 0.99))
                gain = rates[name] / rates["full"]
                lines.append([precision, name, layers, p50, p99, rates[name], gain, gain * layers / LAYERS])
    print(f"\nHTTP, Ray Serve, one replica of one thread, {CLIENTS} clients with a text each")
    table(["precision", "rule", "layers", "p50 ms", "p99 ms", "rows/s", "over full", "of layer ratio"], lines)


# The pool against whole batches


class Whole(Pool):
    """Plain dynamic batching: what waits runs together to the end. Rows leave, none joins, answers come at the end."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._tickets: list[tuple[Ticket, Arrays, Rule]] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, inputs: Arrays, rule: Rule, criterion: str) -> Ticket:
        ticket = Ticket(rule, criterion, 1)
        self._tickets.append((ticket, inputs, rule))
        return ticket

    def step(self) -> list[Ticket]:
        if not self._tickets:
            return []
        first = low = high = self._tickets[0][1]["input_ids"].shape[1]
        chosen: list[tuple[Ticket, Arrays, Rule]] = []
        for entry in self._tickets:
            tokens = entry[1]["input_ids"].shape[1]
            if len(chosen) < self.batch and max(high, tokens) <= SPREAD * min(low, tokens):
                chosen.append(entry)
                low, high = min(low, tokens), max(high, tokens)
        assert chosen, first
        self._tickets = [entry for entry in self._tickets if entry not in chosen]
        lengths = np.array([inputs["input_ids"].shape[1] for _, inputs, _ in chosen])
        ids = np.zeros((len(chosen), high), dtype=np.int64)
        for i, (_, inputs, _) in enumerate(chosen):
            ids[i, : lengths[i]] = inputs["input_ids"]
        batch = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "keep": np.arange(high) < lengths[:, None]}
        leaving = self.segments.answer(batch, chosen[0][2])
        for i, (ticket, _, _) in enumerate(chosen):
            ticket.leaving.logits[0], ticket.leaving.exit_index[0] = leaving.logits[i], leaving.exit_index[i]
            ticket.running = 0
        return [ticket for ticket, _, _ in chosen]


def drive(pool: Pool, asked: Sequence[Ready], arrivals: np.ndarray) -> tuple[np.ndarray, float]:
    """Seconds of each row, and until the last. The clock counts processor time of the steps, which other programs
    lengthen less than wall time, and jumps to the next arrival where no row runs."""
    now, arrived, since, took = 0.0, 0, {}, []
    while arrived < len(asked) or len(pool):
        if not len(pool):
            now = max(now, arrivals[arrived])
        while arrived < len(asked) and arrivals[arrived] <= now:
            ready = asked[arrived]
            since[pool.add(ready.inputs, ready.rule, ready.criterion)] = arrivals[arrived]
            arrived += 1
        started = time.process_time()
        done = pool.step()
        now += time.process_time() - started
        took += [now - since.pop(ticket) for ticket in done]
    return np.array(took), now


def bench_pool(folder: Path, requests: int, repeats: int) -> None:
    model = Deployed.open(folder)
    asked = [prepare(model, Asked(rows=[row], **AT["patience 2"])) for row in texts(requests)]
    segments = model.segments
    ways: dict[str, Callable[[], Pool]] = {
        "whole batches": lambda: Whole(segments, BATCH),
        "pool, deepest first": lambda: Pool(segments, BATCH),
        "pool, fullest first": lambda: Pool(segments, BATCH, "fullest"),
    }
    started = time.process_time()
    for ready in asked[:50]:
        segments.answer(ready.inputs, ready.rule)
    capacity = 50 / (time.process_time() - started)
    lines = []
    for load in (0.7, 1.0, 1.5):
        arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / (load * capacity), requests))
        taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                took, last = drive(way(), asked, arrivals)
                p50, p99 = 1000 * np.quantile(took, (0.5, 0.99))
                taken[name].append((1000 * float(took.mean()), p50, p99, requests / last))
        medians = {name: np.median(values, axis=0) for name, values in taken.items()}
        base = medians["whole batches"]
        for name, values in medians.items():
            lines.append([load, name, *values, *(base[:3] / values[:3]), values[3] / base[3]])
    print(f"\nfloat32, patience 2, texts arrive at random; load 1: one after the other, {capacity:.3g} rows/s")
    heads = ["load", "way", "mean ms", "p50 ms", "p99 ms", "rows/s", "mean gain", "p50 gain", "p99 gain", "rows/s gain"]
    table(heads, lines)


def main() -> None:
    given = options("A served model under load", requests=120, repeats=3)
    with tempfile.TemporaryDirectory() as folder:
        folder_of(Path(folder))
        bench_http(Path(folder), given.requests)
        bench_pool(Path(folder), given.requests, given.repeats)


if __name__ == "__main__":
    main()
