"""TextFooler: attacks per second of ours against TextAttack's own attacker, on the same cores.
python benchmarks/bench_attack.py [--examples 30 --steps 60 --cores 2]

One model for all: MiniLM with an exit after every layer, trained for `steps` batches of rotten_tomatoes, attacked on
textfooler/mr with local vectors, tagger and sentence encoder, from ../shared. Without that folder: generated text,
random weights of that shape trained likewise, and the demo's resources, whose checks cost next to nothing.

TextAttack: its `HuggingFaceModelWrapper`, attack and caches in one process with a thread per core, the sentence encoder
answering what it is asked, as sentence-transformers does. "As shipped" that wrapper pads every text to the model's 512
positions; the next rows give it a tokenizer that pads to 128, or to the longest text of a call. Ours: one one-thread
process per core, an example at a time. Wall time; processes, weights and resources are there before the clock starts.
With few examples the last one leaves all cores but one without work. Every row but those with an early exit must end
with the same outcomes after as many queries."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.bench_training import make_model, mirror, ours
from benchmarks.common import machine, table
from pipeline.attacks.attacker import attack_examples
from pipeline.attacks.candidates import Shared
from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack
from pipeline.attacks.recipes import build_attack
from pipeline.attacks.resources import Resources, resolve
from pipeline.attacks.sentences import MeanPooled
from pipeline.attacks.setting import Setting
from pipeline.attacks.settings import AttackResources
from pipeline.attacks.victim import Victim
from pipeline.evaluation.criteria import make
from pipeline.models.encoders.encoder import encoder_from_description
from pipeline.models.encoders.tokenizer import tokenizer_of
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint, save_checkpoint
from pipeline.models.names import BACKBONES, hub_path
from pipeline.tasks.names import resolve_task
from pipeline.tasks.sources import load_hub
from pipeline.tasks.task import HubSource, Rows, TaskSettings
from pipeline.tasks.text.prepare import freeze_splits
from pipeline.tasks.text.tokenize import save_tokens
from pipeline.tasks.text.tokens import TokenStore, load_tokenizer

SHARED = Path("../shared/attack")
SPEC = BACKBONES["minilm"]
PATIENCE = 2.0
Defences = Sequence[tuple[str | None, float]]
Ended = tuple[str, int]
"""An attack's outcome, and how many queries it made."""
SINGLE: Defences = [(None, np.inf)]
FOUR: Defences = [*SINGLE, ("confidence", 0.8), ("entropy", -0.5), ("patience", PATIENCE)]


def named() -> AttackResources | Literal["demo"]:
    """The recipe's resources: local ones from ../shared, or the demo's."""
    hub = mirror()
    if hub is None:
        return "demo"
    assert SPEC.hub is not None
    return AttackResources(
        nltk_data=SHARED / "nltk_data",
        word_vectors=SHARED / "counterfit_minilm_128_nn50.npz",
        sentence_encoder=Path(hub_path(SPEC.hub, hub)),
    )


def material(rows: int, examples: int, folder: Path) -> tuple[TokenStore, Any, list[Example]]:
    """Training rows, tokenizer, examples to attack."""
    hub = mirror()
    task = resolve_task(
        "rotten_tomatoes" if hub else "demo-sentences", TaskSettings(rows=Rows(train=rows, selection=64))
    )
    splits = freeze_splits(task, "holdout", hub)
    save_tokens(task, tokenizer_of(SPEC if hub else BACKBONES["demo-albert"], task, hub), splits, folder)
    store, tokenizer = TokenStore.open(folder / "train.arrow"), load_tokenizer(folder / "tokenizer.json")
    if hub is None:
        held = splits["selection"]
        texts, labels = held[task.text[0]].to_pylist(), held["label"].to_pylist()
    else:
        attacked = load_hub(HubSource(hub="textfooler/mr"), hub, ["test"])["test"]
        texts, labels = attacked["text"].to_pylist(), attacked["label"].to_pylist()
    drawn = np.random.default_rng(0).permutation(len(texts))[:examples]
    return store, tokenizer, [Example(int(i), (texts[i],), int(labels[i])) for i in drawn]


def wrapped(model: MultiExit, tokenizer: Any, padded_to: int | None) -> Any:
    """TextAttack's own wrapper around the same model and its last exit; None pads to the longest text."""
    import transformers
    from transformers import PreTrainedTokenizerFast

    class Plain(transformers.PreTrainedModel):
        config_class = transformers.BertConfig
        _supports_sdpa = True

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.inner = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Any:
            batch = {"input_ids": input_ids, "token_type_ids": token_type_ids, "keep": attention_mask.bool()}
            state: Any = model.backbone.embed(batch)
            for index in range(model.backbone.layers):
                state = model.backbone.layer(index, state)
            return transformers.modeling_outputs.SequenceClassifierOutput(
                logits=model.answer(len(model.exits) - 1, state)
            )

    class Tokenizer(PreTrainedTokenizerFast):
        def __call__(self, *texts: Any, **named: Any) -> Any:
            return super().__call__(*texts, **(named if padded_to else {**named, "padding": "longest"}))

    fast = Tokenizer(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=padded_to or 512,
    )
    fast.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    wrapper = import_textattack().models.wrappers.HuggingFaceModelWrapper(Plain(model.backbone.config).eval(), fast)
    wrapper.adaptive = False  # as our victim says of itself
    return wrapper


def theirs(wrapper: Any, resources: Resources, examples: Sequence[Example]) -> list[list[Ended]]:
    """TextAttack's attack as it builds it; how each example ended, of the one defence."""
    if isinstance(resources.encode, MeanPooled):
        resources = replace(resources, encode=resources.encode.encode)
    attack = build_attack(wrapper, resources, Setting())
    attack.goal_function.batch_size = 32  # TextAttack's default
    ended = []
    for example in examples:
        attack.clear_cache()
        result = attack.attack(example.texts[0], example.label)
        outcome = type(result).__name__.removesuffix("AttackResult").lower()
        ended.append([(outcome, int(attack.goal_function.num_queries))])
    return ended


_ready: dict[str, Any] = {}


def _start(folder: Path) -> None:
    """Load what a worker needs."""
    torch.set_num_threads(1)
    _ready["model"] = load_checkpoint(folder, encoder_from_description)
    _ready["tokenizer"] = load_tokenizer(folder / "tokens" / "tokenizer.json")
    _ready["resources"] = resolve(named(), "cpu")


def _attack(example: Example, attacker: str, defences: Defences) -> list[Ended]:
    """One example against each defence, on one thread."""
    shared = Shared()
    ended: list[Ended] = []
    for criterion, threshold in defences:
        engine = LiveEngine(_ready["model"], make(criterion) if criterion else None, threshold)
        victim = Victim(engine, _ready["tokenizer"], "cpu")
        setting = Setting(attacker=attacker)
        records = attack_examples(victim, _ready["resources"], [example], setting, shared=shared)
        ended += [(record.outcome, record.queries) for record in records]
    return ended


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, value in {"examples": 30, "steps": 60, "cores": cores}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    given = parser.parse_args()
    print(f"TextFooler on MiniLM\n{machine('cpu')}, {given.cores} cores, float32, torch {torch.__version__}")
    return given


def main() -> None:
    given = options()
    torch.set_num_threads(given.cores)
    import_textattack()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store, tokenizer, examples = material(32 * given.steps, given.examples, folder / "tokens")
        model = make_model(2, 0)
        ours(model, store, 32, 0, "cpu")()
        save_checkpoint(model.eval(), folder)
        resources = resolve(named(), "cpu")
        with ProcessPoolExecutor(given.cores, get_context("spawn"), _start, (folder,)) as workers:
            list(workers.map(_attack, examples[:1] * given.cores, ["own"] * given.cores, [SINGLE] * given.cores))

            def spread(attacker: str, defences: Defences) -> Callable[[], list[list[Ended]]]:
                """Every example against every defence, over the workers."""
                n = len(examples)
                return lambda: list(workers.map(_attack, examples, [attacker] * n, [defences] * n))

            def single(padded_to: int | None) -> Callable[[], list[list[Ended]]]:
                return lambda: theirs(wrapped(model, tokenizer, padded_to), resources, examples)

            runs: dict[str, tuple[Callable[[], list[list[Ended]]], float, str, str]] = {
                "TextAttack, wrapper as shipped": (single(512), 1, "15", "yes"),
                "TextAttack, padded to 128": (single(128), 1, "5", "yes"),
                "TextAttack, dynamic padding": (single(None), 1, "2.5", "yes"),
                "TextAttack's loop, our victim and processes": (spread("textattack", SINGLE), 1, "", "yes"),
                "ours, single exit": (spread("own", SINGLE), 1, "", "yes"),
                f"ours, patience {PATIENCE:g}": (spread("own", FOUR[-1:]), 1, "", "no"),
                "ours, four defences that share": (spread("own", FOUR), len(FOUR), "", "no"),
            }
            took, ended = {}, {}
            for name, (attack, *_) in runs.items():
                started = time.perf_counter()
                ended[name] = attack()
                took[name] = time.perf_counter() - started
    report(runs, took, ended, len(examples))


def won(ended: list[list[Ended]]) -> int:
    """Successful attacks."""
    return sum(outcome == "successful" for example in ended for outcome, _ in example)


def report(runs: Any, took: dict[str, float], ended: dict[str, list[list[Ended]]], examples: int) -> None:
    """Attacks and queries per second; how many times slower than ours, and than ours where four defences share."""
    per = {name: took[name] / (examples * defences) for name, (_, defences, *_) in runs.items()}
    one, four = per["ours, single exit"], per["ours, four defences that share"]
    queries = {name: sum(asked for example in attacked for _, asked in example) for name, attacked in ended.items()}
    rows = [[name, 1 / s, queries[name] / took[name], s / one, s / four, runs[name][2]] for name, s in per.items()]
    table(["attack", "attacks/s", "queries/s", "ours is faster: single exit", "of four", "target"], rows)
    same = {name: ended[name] == ended["ours, single exit"] for name, (*_, must) in runs.items() if must == "yes"}
    print(
        "\nSame outcomes and queries as ours:",
        ", ".join(f"{name}: {'yes' if ok else 'NO'}" for name, ok in same.items()),
    )
    print("Successful:", ", ".join(f"{name}: {won(e)}" for name, e in ended.items()))


if __name__ == "__main__":
    main()
