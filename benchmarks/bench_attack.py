"""TextFooler: attacks per second of ours against TextAttack's own attacker, on the same cores.
python benchmarks/bench_attack.py [--examples 30 --steps 60 --cores 2 --padded 1]

One model for all: MiniLM with an exit after every layer, trained for `steps` batches of rotten_tomatoes, attacked on
textfooler/mr with local vectors, tagger and sentence encoder, from ../shared. Without that folder: generated text,
random weights of that shape trained likewise, and the demo's resources, whose checks cost next to nothing.

TextAttack: its `HuggingFaceModelWrapper`, attack and caches in one process with a thread per core, the sentence encoder
answering what it is asked, as sentence-transformers does. "As shipped" that wrapper pads every text to the model's 512
positions; the next rows give it a tokenizer that pads to 128, or to the longest text of a call (`--padded 0`: that one
alone). Ours: one one-thread process per core, an example at a time, in PyTorch or in ONNX Runtime. By the clock, and by
the processors' time: beside other work TextAttack's threads lose more by the clock than our processes, so take `--cores
1` and the processors' time there. Processes, weights, graphs (kept below `runs/`) and resources are there before either
starts. With few examples the last one leaves all cores but one without work. Every PyTorch row but those with an early
exit must end with the same outcomes after as many queries; of ONNX Runtime the differences are counted."""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.bench_training import make_model, mirror, ours
from benchmarks.common import machine, table
from benchmarks.watched import Spent, Watched, explain
from pipeline.attacks.attacker import attack_examples
from pipeline.attacks.candidates import Shared
from pipeline.attacks.examples import Example
from pipeline.attacks.graphs import segments_of
from pipeline.attacks.library import import_textattack
from pipeline.attacks.recipes import build_attack
from pipeline.attacks.resources import Resources, resolve
from pipeline.attacks.sentences import MeanPooled
from pipeline.attacks.setting import Engine, Setting
from pipeline.attacks.settings import AttackResources
from pipeline.attacks.victim import Live, Victim
from pipeline.evaluation.criteria import make
from pipeline.models import packed
from pipeline.models.deploy.engine import GraphEngine
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

SHARED = Path("../shared/attack").absolute()
SPEC = BACKBONES["minilm"]
PATIENCE = 2.0
DYNAMIC, OURS, SHARING = "TextAttack, dynamic padding", "ours, single exit", "ours, four defences that share"
Defences = Sequence[tuple[str | None, float]]
Ended = tuple[str, int]
"""An attack's outcome, and how many queries it made."""
Attack = Callable[[], list[tuple[list[Ended], Spent]]]
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
        sentence_encoder=Path(hub_path(SPEC.hub, hub)).absolute(),
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


def theirs(wrapper: Any, resources: Resources, examples: Sequence[Example]) -> list[tuple[list[Ended], Spent]]:
    """TextAttack's attack as it builds it; how each example ended, of the one defence."""
    if isinstance(resources.encode, MeanPooled):
        resources = replace(resources, encode=resources.encode.encode)
    attack = build_attack(wrapper, resources, Setting())
    attack.goal_function.batch_size = 32  # TextAttack's default
    ended = []
    for example in examples:
        started = time.process_time()
        attack.clear_cache()
        result = attack.attack(example.texts[0], example.label)
        outcome = type(result).__name__.removesuffix("AttackResult").lower()
        spent = Spent(cpu=time.process_time() - started)
        ended.append(([(outcome, int(attack.goal_function.num_queries))], spent))
    return ended


ready: dict[str, Any] = {}
ENGINES: tuple[Engine, ...] = ("pytorch", "onnx-float32")


def start(folder: Path, chosen: AttackResources | Literal["demo"]) -> None:
    """Load what a worker needs."""
    torch.set_num_threads(1)
    ready["tokenizer"] = load_tokenizer(folder / "tokens" / "tokenizer.json")
    load = partial(load_checkpoint, folder, encoder_from_description)
    ready["model"] = packed.ready(load(), "cpu")
    ready["segments"] = segments_of(load, (folder / "model.safetensors",), 1)
    for engine in ENGINES:
        ready[engine] = resolve(chosen, "cpu", engine=engine)


def live(engine: Engine, criterion: str | None, threshold: float) -> Live:
    rule = make(criterion) if criterion else None
    if engine == "pytorch":
        return LiveEngine(ready["model"], rule, threshold)
    return GraphEngine(ready["segments"], rule, threshold)


def _attack(example: Example, attacker: str, defences: Defences, engine: Engine) -> tuple[list[Ended], Spent]:
    """One example against each defence, on one thread."""
    shared, spent, resources = Shared(), Spent(), ready[engine]
    before = time.process_time()
    means = getattr(resources.encode, "means", None)
    if means is not None:
        resources.encode.means = Watched(means, "encoder", spent)
    ended: list[Ended] = []
    for criterion, threshold in defences:
        victim = Victim(Watched(live(engine, criterion, threshold), "victim", spent), ready["tokenizer"], "cpu")
        records = attack_examples(victim, resources, [example], Setting(attacker=attacker), shared=shared)
        ended += [(record.outcome, record.queries) for record in records]
    if means is not None:
        resources.encode.means = means
    spent.cpu = time.process_time() - before
    return ended, spent


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, value in {"examples": 30, "steps": 60, "cores": cores, "padded": 1}.items():
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
        with ProcessPoolExecutor(given.cores, get_context("spawn"), start, (folder, named())) as workers:

            def spread(attacker: str, defences: Defences, engine: Engine = "pytorch") -> Attack:
                """Every example against every defence, over the workers."""
                n = len(examples)
                return lambda: list(workers.map(_attack, examples, [attacker] * n, [defences] * n, [engine] * n))

            def single(padded_to: int | None) -> Attack:
                return lambda: theirs(wrapped(model, tokenizer, padded_to), resources, examples)

            padded: dict[str, tuple[Attack, int, str]] = {
                "TextAttack, wrapper as shipped": (single(512), 1, "yes"),
                "TextAttack, padded to 128": (single(128), 1, "yes"),
            }
            runs = (padded if given.padded else {}) | {
                DYNAMIC: (single(None), 1, "yes"),
                "TextAttack's loop, our victim and processes": (spread("textattack", SINGLE), 1, "yes"),
                OURS: (spread("own", SINGLE), 1, "yes"),
                f"ours, patience {PATIENCE:g}": (spread("own", FOUR[-1:]), 1, "no"),
                SHARING: (spread("own", FOUR), len(FOUR), "no"),
                f"{OURS}, ONNX": (spread("own", SINGLE, "onnx-float32"), 1, OURS),
                f"{SHARING}, ONNX": (spread("own", FOUR, "onnx-float32"), len(FOUR), SHARING),
            }
            few, examples = examples, examples[: given.cores]
            for engine in ENGINES:  # to warm up
                spread("own", SINGLE, engine)()
            examples = few
            took, ended, spent = {}, {}, {}
            for name, (attack, *_) in runs.items():
                started = time.perf_counter()
                done = attack()
                took[name] = time.perf_counter() - started
                ended[name], spent[name] = [one for one, _ in done], [one for _, one in done]
    torch.set_num_threads(1)
    report(runs, took, ended, spent)
    for name in (OURS, f"{OURS}, ONNX"):
        ratio = sum(one.cpu for one in spent[DYNAMIC]) / sum(one.cpu for one in spent[name])
        print(f"{name}:", explain(spent[name], ratio))


def won(ended: list[list[Ended]]) -> int:
    """Successful attacks."""
    return sum(outcome == "successful" for example in ended for outcome, _ in example)


def report(
    runs: Any, took: dict[str, float], ended: dict[str, list[list[Ended]]], spent: dict[str, list[Spent]]
) -> None:
    """Attacks and queries per second, and how many times faster ours are: by the clock, and by the processors' time."""
    attacks = {name: len(ended[name]) * defences for name, (_, defences, *_) in runs.items()}
    wall = {name: took[name] / attacks[name] for name in runs}
    cpu = {name: sum(one.cpu for one in spent[name]) / attacks[name] for name in runs}
    queries = {name: sum(asked for example in attacked for _, asked in example) for name, attacked in ended.items()}
    rows = []
    for name in runs:
        by_clock, by_cpu = (seconds[DYNAMIC] / seconds[name] for seconds in (wall, cpu))
        rows.append([name, 1 / wall[name], queries[name] / took[name], by_clock, cpu[name], by_cpu])
    table(["attack", "attacks/s", "queries/s", "over dynamic padding", "CPU s an attack", "by CPU time"], rows)
    same = {name: ended[name] == ended[OURS] for name, (*_, must) in runs.items() if must == "yes"}
    print(
        "\nSame outcomes and queries as ours:",
        ", ".join(f"{name}: {'yes' if ok else 'NO'}" for name, ok in same.items()),
    )
    print("Successful:", ", ".join(f"{name}: {won(e)}" for name, e in ended.items()))
    for name, (*_, other) in runs.items():
        if other in ended:
            pairs = [*zip(itertools.chain(*ended[name]), itertools.chain(*ended[other]), strict=True)]
            outcomes, asked = (sum(one[i] != two[i] for one, two in pairs) for i in (0, 1))
            print(
                f"{name}: of {len(pairs)} attacks {outcomes} end otherwise than in PyTorch, {asked} ask other queries"
            )


if __name__ == "__main__":
    main()
