"""TextFooler: examples per second of our attacker against TextAttack's own, as shipped and with better victims.
python benchmarks/bench_attack.py [--examples 10 --steps 60]

One model for all: MiniLM with an exit after every layer, trained for `steps` batches of rotten_tomatoes, attacked on
textfooler/mr with local vectors, tagger and sentence encoder, from ../shared. Without that folder: generated text,
random weights of that shape trained likewise, and the demo's resources, whose checks cost next to nothing.

"as shipped" is textattack.models.wrappers.HuggingFaceModelWrapper: slow path of the tokenizer's options, every text
padded to the model's 512 positions. All rows of the table but the last must end with the same outcomes."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from benchmarks.bench_training import make_model, mirror, ours
from benchmarks.common import options, seconds, table
from pipeline.attacks.attacker import attack_examples
from pipeline.attacks.examples import Example
from pipeline.attacks.library import import_textattack
from pipeline.attacks.recipes import build_attack
from pipeline.attacks.records import Record
from pipeline.attacks.resources import Resources, resolve
from pipeline.attacks.setting import Setting
from pipeline.attacks.victim import Row, Victim
from pipeline.backbones import BACKBONES, hub_path
from pipeline.criteria import make
from pipeline.data.prepare import freeze_splits
from pipeline.data.sources import load_hub
from pipeline.data.tokenize import save_tokens
from pipeline.data.tokens import TokenStore, collate, load_tokenizer
from pipeline.live import LiveEngine
from pipeline.multi_exit import MultiExit
from pipeline.params import AttackResources
from pipeline.tasks import HubSource, Rows, TaskSettings, resolve_task

SHARED = Path("../shared/attack")
PADDED, PATIENCE = 128, 2.0
SPEC = BACKBONES["minilm"]


def material(rows: int, examples: int, folder: Path) -> tuple[TokenStore, Any, list[Example], Resources]:
    """Training rows, tokenizer, examples to attack, resources of the recipe."""
    hub = mirror()
    task = resolve_task(
        "rotten_tomatoes" if hub else "demo-sentences", TaskSettings(rows=Rows(train=rows, selection=64))
    )
    splits = freeze_splits(task, "holdout", hub)
    save_tokens(task, SPEC if hub else BACKBONES["demo-albert"], splits, folder, hub)
    store, tokenizer = TokenStore.open(folder / "train.arrow"), load_tokenizer(folder / "tokenizer.json")
    if hub is None:
        held = splits["selection"]
        texts, labels, resources = held[task.text[0]].to_pylist(), held["label"].to_pylist(), resolve("demo", "cpu")
    else:
        attacked = load_hub(HubSource(hub="textfooler/mr"), hub, ["test"])["test"]
        texts, labels = attacked["text"].to_pylist(), attacked["label"].to_pylist()
        assert SPEC.hub is not None
        local = AttackResources(
            nltk_data=SHARED / "nltk_data",
            word_vectors=SHARED / "counterfit_minilm_128_nn50.npz",
            sentence_encoder=Path(hub_path(SPEC.hub, hub)),
        )
        resources = resolve(local, "cpu")
    drawn = np.random.default_rng(0).permutation(len(texts))[:examples]
    return store, tokenizer, [Example(int(i), (texts[i],), int(labels[i])) for i in drawn], resources


class Padded(Victim):
    """Every text at 128 tokens, as the published evaluation has it."""

    def _answer(self, rows: Sequence[Row]) -> dict[Row, tuple[Tensor, int]]:
        found: dict[Row, tuple[Tensor, int]] = {}
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            longest = [0] * PADDED  # a row of its own that makes the batch 128 wide, and is dropped
            batch = collate([longest, *(ids for ids, _ in part)], [longest, *(types for _, types in part)], self.device)
            answers = self.engine({name: value[1:] for name, value in batch.items()})
            found |= {row: (logits, self.model.exits[-1]) for row, logits in zip(part, answers.logits, strict=True)}
        return found


def shipped(model: MultiExit, tokenizer: Any) -> Any:
    """TextAttack's own wrapper around the same model and its last exit."""
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

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=512
    )
    fast.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    wrapper = import_textattack().models.wrappers.HuggingFaceModelWrapper
    return wrapper(Plain(model.backbone.config).eval(), fast)


def with_their_wrapper(wrapper: Any, resources: Resources, examples: Sequence[Example]) -> list[str]:
    attack = build_attack(wrapper, resources, Setting())
    outcomes = []
    for example in examples:
        attack.clear_cache()
        result = attack.attack(example.texts[0], example.label)
        outcomes.append(type(result).__name__.removesuffix("AttackResult").lower())
    return outcomes


def outcomes_of(records: Sequence[Record]) -> list[str]:
    return [record.outcome for record in records]


def main() -> None:
    given = options("TextFooler on MiniLM", examples=10, steps=60)
    import_textattack()
    with tempfile.TemporaryDirectory() as folder:
        store, tokenizer, examples, resources = material(32 * given.steps, given.examples, Path(folder) / "tokens")
        model = make_model(2, 0)
        ours(model, store, 32, 0, "cpu")()
        model.eval()

        def run(kind: type[Victim], attacker: str, patience: bool = False) -> Callable[[], list[str]]:
            engine = LiveEngine(model, make("patience") if patience else None, PATIENCE if patience else np.inf)
            victim = kind(engine, tokenizer, "cpu")
            setting = Setting(attacker=attacker)
            return lambda: outcomes_of(list(attack_examples(victim, resources, examples, setting)))

        wrapper = shipped(model, tokenizer)
        runs: dict[str, Callable[[], list[str]]] = {
            "TextAttack, wrapper as shipped": lambda: with_their_wrapper(wrapper, resources, examples),
            "TextAttack, padded to 128": run(Padded, "textattack"),
            "TextAttack, dynamic padding": run(Victim, "textattack"),
            "ours": run(Victim, "own"),
            f"ours, patience {PATIENCE:g}": run(Victim, "own", patience=True),
        }
        took, ended = {}, {}
        for name, attack in runs.items():

            def once(name: str = name, attack: Callable[[], list[str]] = attack) -> None:
                ended[name] = attack()

            took[name] = seconds(once, "cpu")
    targets = {"TextAttack, wrapper as shipped": "15", "TextAttack, padded to 128": "5",
               "TextAttack, dynamic padding": "2.5", "ours": ""}  # fmt: skip
    rows = [
        [name, len(examples) / s, s / took["ours"], targets.get(name, "under 1"), ended[name].count("successful")]
        for name, s in took.items()
    ]
    table(["attack", "examples/s", "times the time of ours", "target", "successful"], rows)
    same = {name: outcomes == ended["ours"] for name, outcomes in ended.items()}
    print("\nSame outcomes as ours:", ", ".join(f"{name}: {'yes' if ok else 'no'}" for name, ok in same.items()))


if __name__ == "__main__":
    main()
