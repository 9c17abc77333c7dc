"""TextFooler in PyTorch and in ONNX Runtime: do the same examples end the same way, after as many queries?
python benchmarks/compare_attack_engines.py [--examples 100 --steps 60 --minutes 9]

The model, the examples and the resources are those of bench_attack.py. Each example is attacked in both engines as a
single exit, with patience, and with patience by an adaptive attack. What was attacked is kept below `runs/`, so that a
second call goes on where the first one stopped after `minutes`."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks import bench_attack as bench
from benchmarks.bench_training import make_model, ours
from benchmarks.common import options
from pipeline.attacks.attacker import attack_examples
from pipeline.attacks.candidates import Shared
from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack
from pipeline.attacks.setting import Engine, Scores
from pipeline.attacks.victim import Victim
from pipeline.layout import HERE
from pipeline.models.multi_exit import save_checkpoint

DEFENCES: dict[str, tuple[str | None, float, Scores]] = {
    "single exit": (None, float("inf"), "answered"),
    "patience": ("patience", bench.PATIENCE, "answered"),
    "patience, adaptive": ("patience", bench.PATIENCE, "deepest"),
}
COMPARED = ("outcome", "queries", "changed", "layers_before", "layers_after")


def attacked(example: Example, engine: Engine) -> dict[str, Any]:
    """The records of one example in one engine, by defence."""
    shared, records = Shared(), {}
    for name, (criterion, threshold, scores) in DEFENCES.items():
        live = bench.live(engine, criterion, threshold)
        victim = Victim(live, bench.ready["tokenizer"], "cpu", scores=scores)
        (record,) = attack_examples(victim, bench.ready[engine], [example], shared=shared)
        records[name] = json.loads(record.model_dump_json())
    return records


def prepared(folder: Path, examples: int, steps: int) -> list[Example]:
    """Train the model, where a call before has not; load all into this process."""
    shutil.rmtree(folder / "tokens", ignore_errors=True)
    store, _, drawn = bench.material(32 * steps, examples, folder / "tokens")
    if not (folder / "model.json").is_file():
        model = make_model(2, 0)
        ours(model, store, 32, 0, "cpu")()
        save_checkpoint(model.eval(), folder)
    import_textattack()
    bench.start(folder, bench.named())
    return drawn


def differences(done: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line per defence, and one for each attack that differs."""
    for name in DEFENCES:
        pairs = [(row, *(one[engine][name] for engine in bench.ENGINES)) for row, one in done.items()]
        counts = {field: sum(a[field] != b[field] for _, a, b in pairs) for field in COMPARED}
        won = [sum(pair[i]["outcome"] == "successful" for pair in pairs) for i in (1, 2)]
        yield f"{name}: of {len(pairs)} attacks differ in {counts}; successful {won[0]} and {won[1]}"
        for row, a, b in pairs:
            if any(a[field] != b[field] for field in COMPARED):
                yield f"  row {row}: {[(a[field], b[field]) for field in COMPARED]}"


def main() -> None:
    given = options("TextFooler in PyTorch and in ONNX Runtime", examples=100, steps=60, minutes=9)
    folder = HERE.runs / f"attack-engines-{given.steps}"
    began = time.monotonic()
    examples = prepared(folder, given.examples, given.steps)
    kept = folder / "records.json"
    done: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    torch.set_num_threads(1)
    spent = dict.fromkeys(bench.ENGINES, 0.0)
    for example in examples:
        if str(example.row_id) in done or time.monotonic() - began > 60 * given.minutes:
            continue
        records: dict[str, Any] = {}
        for engine in bench.ENGINES:
            before = time.process_time()
            records[engine] = attacked(example, engine)
            spent[engine] += time.process_time() - before
        done[str(example.row_id)] = records
        kept.write_text(json.dumps(done), encoding="utf-8")
    print(f"{len(done)} of {len(examples)} examples; this call's CPU seconds by engine: {spent}")
    print(*differences(done), sep="\n")


if __name__ == "__main__":
    main()
