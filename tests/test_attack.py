"""The attack: resources and their errors, the victim's independence of batches, TextFooler on the demo's material."""

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.attacks import stock
from pipeline.attacks.defences import Defence, find_defences
from pipeline.attacks.examples import Example, load_examples
from pipeline.attacks.needs import describe, identity
from pipeline.attacks.pooled import answer as pooled_answer
from pipeline.attacks.records import paired, summarise
from pipeline.attacks.resources import Resources, load_vectors, nearest, resolve
from pipeline.attacks.setting import Scores
from pipeline.attacks.settings import Attack, AttackResources, AttackTask
from pipeline.errors import ArtifactError, DataError, ParamsError, UnsupportedError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.point import criterion_of, point_of
from pipeline.identity.code import CodeIdentity
from pipeline.layout import HERE
from pipeline.params import Params
from pipeline.results import (
    ALL_LAYERS,
    Attacked,
    Choosing,
    Constant,
    Diagnosis,
    Evaluated,
    ExitScores,
    Manifest,
    Oracle,
    Outcome,
    OverSeeds,
    Record,
    Row,
    Selected,
    Split,
)
from pipeline.results import Attack as AttackResult
from pipeline.storage import write_text
from pipeline.tasks.names import TASKS
from pipeline.tasks.task import HubSource
from tests.selections import save_model, select, unsettle

pytestmark = pytest.mark.slow

PROFILE = Path(__file__).resolve().parent.parent / "profiles/demo.yaml"
LAYERS = 4


@pytest.fixture(scope="module", autouse=True)
def _textattack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Import TextAttack once, with an empty home folder: nothing may be fetched, and nothing may stay behind."""
    from pipeline.attacks.library import cache_folder, import_textattack

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("TA_CACHE_DIR", raising=False)
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        import_textattack()
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads that wait for a busy core make this file ten times slower
        assert not list(cache_folder().glob("post_install*[0-9]"))
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from pipeline.models.encoders.tokenizer import _word_tokenizer

    tokenizer = _word_tokenizer()
    tokenizer.enable_truncation(64)
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    import torch
    from transformers import AlbertConfig

    from pipeline.models.encoders.encoder import Encoder
    from pipeline.models.multi_exit import MultiExit

    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        embedding_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    model = MultiExit(Encoder(config, "mean"), range(1, LAYERS + 1), 2).eval()
    unsettle(model, tokenizer, sentences(60))
    return model


@pytest.fixture(scope="module")
def demo() -> Resources:
    return resolve("demo", "cpu")


def sentences(count: int) -> list[str]:
    from pipeline.tasks.demo.text import sentences as generate

    return list(generate(count, 7)["sentence"])


def victim(
    model: Any,
    tokenizer: Any,
    criterion: str | None = None,
    threshold: float = np.inf,
    size: int = 32,
    scores: Scores = "answered",
) -> Any:
    from pipeline.attacks.victim import Victim
    from pipeline.models.live import LiveEngine

    engine = LiveEngine(model, make(criterion) if criterion else None, threshold)
    return Victim(engine, tokenizer, "cpu", size, scores)


# ---------------------------------------------------------------- victim


@pytest.mark.parametrize(("criterion", "threshold"), [(None, np.inf), ("patience", 2.0), ("confidence", 0.8)])
def test_rows_do_not_depend_on_their_batch(model: Any, tokenizer: Any, criterion: str | None, threshold: float) -> None:
    texts = sentences(60)
    alone = victim(model, tokenizer, criterion, threshold, size=1)
    expected = alone(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    for size in (7, 32):
        together = victim(model, tokenizer, criterion, threshold, size)
        answers = together([texts[i] for i in order])
        np.testing.assert_allclose(answers, expected[order], atol=1e-5)
        assert together.memo.layers == alone.memo.layers
    assert set(alone.memo.layers) == set(texts)
    if criterion is None:
        assert set(alone.memo.layers.values()) == {LAYERS}
    else:
        assert len(set(alone.memo.layers.values())) > 1


def test_pairs_and_nothing(model: Any, tokenizer: Any) -> None:
    first, second = sentences(2)
    asked = victim(model, tokenizer)
    answers = asked([(first, second), OrderedDict(premise=first, hypothesis=second), (second, first)])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    assert not np.allclose(answers[0], answers[2], atol=1e-6)
    assert asked([]).shape == (0, 2)
    asked.forget()
    assert asked.memo.layers == {}


# ---------------------------------------------------------------- TextFooler


def examples_of(asked: Any, count: int) -> list[Example]:
    """Examples that the model gets right, but for the first."""
    texts = sentences(count)
    labels = asked(texts).argmax(dim=1).tolist()
    labels[0] = 1 - labels[0]
    return [Example(i, (text,), label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))]


def attack(
    asked: Any, resources: Resources, examples: list[Example], *, width: int | None = None, **setting: Any
) -> list[Record]:
    from pipeline.attacks.attacker import attack_examples
    from pipeline.attacks.recipes import Setting

    return list(attack_examples(asked, resources, examples, Setting(**setting), width=width))


@pytest.mark.parametrize(("criterion", "threshold"), [(None, np.inf), ("patience", 2.0)])
def test_demo_attack(model: Any, tokenizer: Any, demo: Resources, criterion: str | None, threshold: float) -> None:
    from pipeline.tasks.demo.text import synonyms

    near = synonyms()
    asked = victim(model, tokenizer, criterion, threshold)
    examples = examples_of(asked, 12)
    records = attack(asked, demo, examples)
    assert records[0].outcome == "skipped"
    assert (records[0].queries, records[0].changed, records[0].layers_under_attack) == (1, None, None)
    assert {r.outcome for r in records} == {"skipped", "successful", "failed"}
    for example, record in zip(examples[1:], records[1:], strict=True):
        assert record.original == example.texts
        assert record.changed is not None
        assert (record.answer_after != example.label) == (record.outcome == "successful")
        assert record.answer_before == example.label
        swaps = [(a, b) for a, b in zip(record.original[0].split(), record.changed[0].split(), strict=True) if a != b]
        assert all(b in near[a] for a, b in swaps)
        assert record.words_changed == len(swaps)
        assert record.queries > 1
        assert record.layers_before == asked_layers(asked, record.original[0])
        assert record.layers_after == asked_layers(asked, record.changed[0])
        assert record.layers_under_attack is not None
        assert 1 <= record.layers_under_attack <= LAYERS
    assert attack(asked, demo, examples) == records
    assert attack(victim(model, tokenizer, criterion, threshold, size=1), demo, examples) == records


def asked_layers(asked: Any, text: str) -> int:
    asked.forget()
    asked([text])
    return int(asked.memo.layers[text])


@pytest.mark.parametrize(
    ("criterion", "threshold", "count", "setting"),
    [
        (None, np.inf, 15, {}),
        ("patience", 2.0, 100, {}),
        ("confidence", 0.8, 20, {"max_queries": 30}),
        ("entropy", -0.5, 30, {"goal": "slow_down"}),
        ("patience", 2.0, 20, {"recipe": "textbugger"}),
        ("patience", 2.0, 20, {"recipe": "deepwordbug"}),
    ],
)
def test_own_attacker_equals_textattacks(
    model: Any,
    tokenizer: Any,
    demo: Resources,
    criterion: str | None,
    threshold: float,
    count: int,
    setting: dict[str, Any],
) -> None:
    asked = victim(model, tokenizer, criterion, threshold)
    examples = examples_of(asked, count)
    theirs = attack(asked, demo, examples, attacker="textattack", **setting)
    assert attack(asked, demo, examples, **setting) == theirs
    assert len({r.outcome for r in theirs}) > 1
    assert attack(asked, demo, examples[:12], width=5, **setting) == theirs[:12]


ODD = ("great <SPLIT> awful", "<SPLIT>", "", " ", "...", "' _ '", "\u200b", "it's - \U0001f600", "I I I", "\x00 good")


@pytest.mark.parametrize("attacker", ["own", "textattack"])
@pytest.mark.parametrize("paired", [False, True])
def test_a_text_that_cannot_be_attacked_is_recorded_alone(
    model: Any, tokenizer: Any, demo: Resources, attacker: str, paired: bool
) -> None:
    """TextAttack would cut the text, or raise."""
    asked = victim(model, tokenizer, "patience", 2.0)
    odd = [(sentences(1)[0], text) if paired else (text,) for text in ODD]
    labels = asked([texts if paired else texts[0] for texts in odd]).argmax(dim=1).tolist()
    sound = examples_of(asked, 3) if not paired else []
    examples = [*sound, *(Example(10 + i, t, y) for i, (t, y) in enumerate(zip(odd, labels, strict=True)))]
    records = attack(asked, demo, examples, attacker=attacker)
    assert [r.row_id for r in records] == [e.row_id for e in examples]
    assert records[: len(sound)] == attack(asked, demo, sound, attacker=attacker)
    unfit = [r for r in records if r.reason is not None]
    assert [r.row_id for r in unfit] == [10, 11]
    for record in unfit:
        assert (record.outcome, record.queries, record.changed) == ("skipped", 1, None)
        assert record.answer_before == record.label
        assert "holds <SPLIT>, which TextAttack puts between" in (record.reason or "")
        assert "\n" not in (record.reason or "")
    if attacker == "own":
        assert attack(asked, demo, examples, width=5) == records


@pytest.mark.parametrize("attacker", ["own", "textattack"])
def test_an_attack_that_raises_costs_its_own_example(
    model: Any, tokenizer: Any, demo: Resources, attacker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.attacks.library import import_textattack

    asked = victim(model, tokenizer)
    examples = examples_of(asked, 8)
    sound = attack(asked, demo, examples, attacker=attacker)
    bad = next(e for e, r in zip(examples, sound, strict=True) if r.outcome != "skipped")
    stock = import_textattack().shared.AttackedText.generate_new_attacked_text

    def trips(self: Any, words: Any) -> Any:
        if self.text == bad.texts[0]:
            raise ValueError("substring not found\nin the text")
        return stock(self, words)

    monkeypatch.setattr(import_textattack().shared.AttackedText, "generate_new_attacked_text", trips)
    records = attack(asked, demo, examples, attacker=attacker)
    assert [r for r in records if r.row_id != bad.row_id] == [r for r in sound if r.row_id != bad.row_id]
    record = records[bad.row_id]
    assert record.reason == "the attack failed with ValueError: substring not found"
    assert (record.outcome, record.answer_before) == ("skipped", bad.label)


# ---------------------------------------------------------------- the adaptive attack


@pytest.mark.parametrize(("criterion", "threshold"), [("patience", 2.0), ("confidence", 0.8), ("voting", 1.4)])
def test_one_pass_gives_the_answer_and_the_deepest_exits_logits(
    model: Any, tokenizer: Any, criterion: str, threshold: float
) -> None:
    texts = sentences(40)
    plain, full = victim(model, tokenizer, criterion, threshold), victim(model, tokenizer)
    adaptive = victim(model, tokenizer, criterion, threshold, scores="deepest")
    np.testing.assert_allclose(adaptive(texts), plain(texts), atol=1e-5)
    assert adaptive.memo.layers == plain.memo.layers
    assert plain.memo.deepest == {}
    assert len(set(plain.memo.layers.values())) > 1
    deepest = [adaptive.memo.deepest[text].numpy() for text in texts]
    np.testing.assert_allclose(deepest, full(texts), atol=1e-5)
    assert not np.allclose(deepest, plain(texts), atol=1e-3)


@pytest.mark.parametrize("recipe", ["textfooler", "deepwordbug"])
def test_where_the_deepest_exit_answers_the_adaptive_attack_is_the_plain_one(
    model: Any, tokenizer: Any, demo: Resources, recipe: str
) -> None:
    """On a model with one exit, and on one with many of which no early one answers."""
    from pipeline.models.multi_exit import MultiExit

    single = MultiExit(model.backbone, [LAYERS], 2).eval()
    single.load_state_dict({**model.state_dict(), **{
        name.replace(f"heads.{LAYERS - 1}", "heads.0"): value
        for name, value in model.state_dict().items() if name.startswith(f"heads.{LAYERS - 1}")
    }}, strict=False)  # fmt: skip
    for asked, criterion in ((single, None), (single, "confidence"), (model, "confidence")):
        examples = examples_of(victim(asked, tokenizer), 25)
        plain = attack(victim(asked, tokenizer, criterion), demo, examples, recipe=recipe)
        assert len({r.outcome for r in plain}) > 1
        assert attack(victim(asked, tokenizer, criterion, scores="deepest"), demo, examples, recipe=recipe) == plain


@pytest.mark.parametrize(("criterion", "threshold"), [("patience", 1.0), ("confidence", 0.7)])
def test_the_adaptive_attack_is_led_by_the_deepest_exit_and_judged_by_the_one_that_answers(
    model: Any, tokenizer: Any, demo: Resources, criterion: str, threshold: float
) -> None:
    plain = victim(model, tokenizer, criterion, threshold)
    asked = victim(model, tokenizer, criterion, threshold, scores="deepest")
    examples = examples_of(plain, 25)
    records = attack(asked, demo, examples)
    assert records != attack(plain, demo, examples)
    won = [r for r in records if r.outcome == "successful"]
    for record in (r for r in records if r.changed is not None):
        assert record.changed is not None
        answer = int(plain(list(record.changed)).argmax())
        assert (answer, record.layers_after) == (record.answer_after, asked_layers(plain, record.changed[0]))
        assert (answer != record.label) == (record.outcome == "successful")
    changed = [r.changed[0] for r in won if r.changed is not None]
    full = victim(model, tokenizer)(changed).argmax(dim=1).tolist()
    assert any(answer == r.label for answer, r in zip(full, won, strict=True))  # the deepest exit has it right
    assert attack(asked, demo, examples[:12], width=5) == records[:12]


def test_a_text_that_reaches_the_goal_is_taken_whatever_the_deepest_exit_says(
    model: Any, tokenizer: Any, demo: Resources
) -> None:
    """The attacker has seen its answer."""
    from pipeline.attacks import greedy

    asked = victim(model, tokenizer, "patience", 1.0, scores="deepest")
    examples = examples_of(asked, 40)
    seen: list[tuple[Any, list[Any]]] = []
    ask = greedy.Game.ask

    def kept(self: Any, texts: Any, check_skip: bool = False) -> Any:
        replies, over = yield from ask(self, texts, check_skip)
        if not check_skip:
            seen.append((self.example, list(replies)))
        return replies, over

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy.Game, "ask", kept)
        records = attack(asked, demo, examples)
    asked_of = {e.row_id: [replies for one, replies in seen if one == e][1:] for e in examples}  # but the ranking
    overlooked = 0
    for record in records:
        for i, replies in enumerate(asked_of[record.row_id]):
            reached = [r for r in replies if r.found]
            if reached:
                assert record.outcome == "successful"
                assert i == len(asked_of[record.row_id]) - 1
                overlooked += max(replies, key=lambda r: r.score) not in reached
    assert overlooked


def test_criteria_of_one_model_share_the_passes_of_adaptive_attacks(
    model: Any, tokenizer: Any, demo: Resources
) -> None:
    """The records are those of attacks that share nothing, and most batches are run once."""
    examples = examples_of(victim(model, tokenizer), 15)
    defences = (("confidence", 0.8), ("entropy", -0.6), ("patience", 2.0))
    batches, alone = [], []
    for defence in defences:
        asked = victim(model, tokenizer, *defence, scores="deepest")
        alone.append(attack(asked, demo, examples))
        batches.append(len(asked.recorded))
    shared: Any = {}
    for defence, records in zip(defences, alone, strict=True):
        asked = victim(model, tokenizer, *defence, scores="deepest")
        asked.recorded = shared
        assert attack(asked, demo, examples) == records
    assert max(batches) <= len(shared) < 0.6 * sum(batches)


def test_what_does_not_go_with_the_adaptive_attack_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"attack\.scores: 'deepest' does not go with goal 'slow_down'"):
        Attack(scores=["deepest"], goal="slow_down")
    with pytest.raises(ParamsError, match=r"attack\.scores: 'deepest' needs attacker 'own'"):
        Attack(scores=["answered", "deepest"], attacker="textattack")


def test_query_limit(model: Any, tokenizer: Any, demo: Resources) -> None:
    asked = victim(model, tokenizer)
    examples = examples_of(asked, 6)
    for limit in (1, 5):
        records = attack(asked, demo, examples, max_queries=limit)
        assert max(r.queries for r in records) == limit
    assert {r.outcome for r in attack(asked, demo, examples, max_queries=1)} == {"skipped", "failed"}


def test_of_a_pair_only_the_second_text_changes(model: Any, tokenizer: Any, demo: Resources) -> None:
    asked = victim(model, tokenizer)
    texts = sentences(8)
    pairs = list(zip(texts[:4], texts[4:], strict=True))
    labels = asked(pairs).argmax(dim=1).tolist()
    records = attack(asked, demo, [Example(i, p, y) for i, (p, y) in enumerate(zip(pairs, labels, strict=True))])
    assert all(r.changed is not None and r.changed[0] == r.original[0] for r in records)
    assert any(r.changed is not None and r.changed[1] != r.original[1] for r in records)


LOST = Record(
    row_id=0, label=1, outcome="successful", reason=None, answer_before=1, answer_after=0, original=("a b",),
    changed=("a c",), queries=10, words=2, words_changed=1, layers_before=3, layers_under_attack=4.0, layers_after=5,
)  # fmt: skip
"""An example that the attack broke."""


def but(**change: Any) -> Record:
    return LOST.model_copy(update=change)


def test_summary() -> None:
    nothing = {"answer_after": None, "changed": None, "words_changed": None, "layers_under_attack": None}
    records = [
        LOST,
        but(outcome="failed", answer_after=1, words_changed=2, queries=20, layers_under_attack=2.0),
        but(outcome="skipped", answer_before=0, queries=1, layers_after=None, layers_before=9, **nothing),
        but(outcome="failed", answer_after=1, queries=30, layers_under_attack=None),
    ]
    defence = Defence("patience", "b", "joint", "key", 1, point_of(make("patience"), {}, 2.0))
    row = summarise(defence, records, (True, False), None)
    expected = {
        "original_accuracy": (0.75, 4),
        "after_attack_accuracy": (0.5, 4),
        "pooled_accuracy": (0.5, 2),
        "attack_success_rate": (0.333333, 3),
        "queries": (20.0, 3),
        "perturbed_words": (1.0, 1),
        "layers_before": (3.0, 3),
        "layers_under_attack": (3.0, 2),
        "layers_after": (5.0, 3),
    }
    assert {name: (getattr(row, name).value, getattr(row, name).n) for name in expected} == expected
    assert (row.defence, row.key, row.point, row.unattacked) == ("patience", "key", defence.point, 0)
    assert summarise(defence, [*records, but(reason="why", outcome="skipped", **nothing)], (), None).unattacked == 1
    empty = summarise(defence, [], (), None)
    assert empty.attack_success_rate.value is empty.pooled_accuracy.value is None


def test_defences_are_compared_on_the_same_examples() -> None:
    """Intervals of 50 and 70 of 500 overlap; the 20 examples that only one kept do not leave that to chance."""
    kept = but(outcome="failed", answer_after=1)
    wrong = but(outcome="skipped", answer_before=0, answer_after=None)
    base = [kept] * 50 + [LOST] * 440 + [wrong] * 10
    better = [kept] * 70 + [LOST] * 430
    found = paired(better, base)
    assert (found.kept, found.lost) == (20, 0)
    assert found.p_value == pytest.approx(2 * 0.5**20)
    assert paired(base, better).lost == 20
    assert paired(base, base).p_value == 1


# ---------------------------------------------------------------- resources


def save_vectors(path: Path, **change: Any) -> Path:
    """The demo's vectors in the format of local ones."""
    from pipeline.tasks.demo.text import word_vectors

    words, vectors = word_vectors()
    scaled = np.rint(vectors * 127 / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.int8)
    arrays = {"words": np.frombuffer("\n".join(words).encode(), np.uint8), "vectors": scaled}
    arrays |= {"nn": nearest(vectors, 50).astype(np.uint16)}
    np.savez(path, **{name: value for name, value in (arrays | change).items() if value is not None})
    return path


def save_tagger(folder: Path) -> Path:
    """A tagger that calls every word a noun, in NLTK's layout."""
    name = "averaged_perceptron_tagger_eng"
    (folder / "taggers" / name).mkdir(parents=True)
    (folder / "taggers/universal_tagset").mkdir()
    parts = {"weights": {"bias": {"NN": 1.0}}, "tagdict": {}, "classes": ["NN"]}
    for part, content in parts.items():
        (folder / "taggers" / name / f"{name}.{part}.json").write_text(json.dumps(content))
    (folder / "taggers/universal_tagset/en-ptb.map").write_text("NN\tNOUN\n")
    return private(folder)


def private(folder: Path) -> Path:
    """Whatever the umask, no write bit for others."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def save_encoder(folder: Path, tokenizer: Any) -> Path:
    """A tiny BERT in the hub's layout, half precision."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    config = BertConfig(size, 16, 1, 2, 32, max_position_embeddings=64)
    BertModel(config).half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def local(tmp_path: Path, tokenizer: Any) -> AttackResources:
    return AttackResources(
        nltk_data=save_tagger(tmp_path / "nltk"),
        word_vectors=save_vectors(tmp_path / "vectors.npz"),
        sentence_encoder=save_encoder(tmp_path / "encoder", tokenizer),
    )


def test_local_resources(local: AttackResources, model: Any, tokenizer: Any, demo: Resources) -> None:
    resources = resolve(local, "cpu")
    assert resources.vectors is not None
    assert demo.vectors is not None
    assert resources.vectors.words == demo.vectors.words
    about = describe(local, "textfooler")
    assert about["part_of_speech"].startswith("NLTK")
    assert len(about["part_of_speech_sha256"]) == len(about["word_vectors_sha256"]) == 64
    assert str(local.nltk_data) not in str(identity(local, "textfooler"))
    texts = [*sentences(9), sentences(1)[0]]
    together = resources.encode(texts)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(resources.encode([text])[0], together[row], atol=1e-5)
    asked = victim(model, tokenizer)
    examples = examples_of(asked, 8)
    # The demo's vectors and a tagger that refuses nothing; no text is long enough for the sentence check to bite.
    short = [e for e in examples if len(e.texts[0].split()) < 15]
    assert attack(asked, resources, short) == attack(asked, demo, short)


def test_a_sentence_encoder_in_onnx_runtime_gives_the_same_vectors(
    local: AttackResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.attacks.sentences import MeanPooled

    monkeypatch.chdir(tmp_path)
    assert local.sentence_encoder is not None
    texts = [*sentences(30), "great", ""]
    plain, graphs = (MeanPooled(local.sentence_encoder, "cpu", "key", threads) for threads in (None, 1))
    np.testing.assert_allclose(graphs(texts), plain(texts), atol=1e-5)
    assert plain(texts).std() > 0.01
    (local.sentence_encoder / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"key: .* is no readable encoder \(.*known families"):
        MeanPooled(local.sentence_encoder, "cpu", "key", 1)


@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert"])
def test_a_long_text_fits_an_encoder_that_counts_positions_from_its_padding(
    family: str, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    from pipeline.attacks.sentences import MeanPooled

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=18, pad_token_id=1,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save(str(tmp_path / "encoder/tokenizer.json"))
    long = " ".join(sentences(9))
    for threads in (None, 1):
        encoder = MeanPooled(tmp_path / "encoder", "cpu", "key", threads)
        assert encoder([long, "great"]).shape == (2, 16)
        fits = 18 if family == "bert" else 16
        assert len(encoder.tokenizer.encode(long).ids) == fits


def test_graphs_are_written_anew_by_other_code(
    local: AttackResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.attacks import graphs
    from pipeline.attacks.sentences import MeanPooled

    monkeypatch.chdir(tmp_path)
    assert local.sentence_encoder is not None
    stored = HERE.graphs("key").parent
    code = graphs.writers()
    assert {"pipeline/models/deploy/graphs.py", "pipeline/models/encoders/fast.py"} <= set(code.definitions)
    for number, other in enumerate([code, code, CodeIdentity({**code.definitions, "fast.py": {"linear_of": "1"}})]):
        monkeypatch.setattr(graphs, "writers", lambda other=other: other)
        MeanPooled(local.sentence_encoder, "cpu", "key", 1)
        assert len([*stored.iterdir()]) == (2 if number == 2 else 1)


def test_sentence_check_refuses(model: Any, tokenizer: Any, demo: Resources) -> None:
    asked = victim(model, tokenizer)
    long = [e for e in examples_of(asked, 60)[1:] if len(e.texts[0].split()) >= 15][:3]
    assert any(r.words_changed for r in attack(asked, demo, long))
    strict = replace(demo, cosine=1.0)
    assert not any(r.words_changed for r in attack(asked, strict, long))


def refused(local: AttackResources, **change: Path | None) -> str:
    with pytest.raises(DataError) as error:
        resolve(local.model_copy(update=change), "cpu")
    text = str(error.value)
    assert "\n" not in text
    assert f"attack.resources.{next(iter(change))}: " in text
    value = next(iter(change.values()))
    assert value is None or repr(str(value)) in text
    assert ";" in text  # the remedy
    return text


def test_missing_local_resources(local: AttackResources, tmp_path: Path) -> None:
    for name in ("nltk_data", "word_vectors", "sentence_encoder"):
        refused(local, **{name: tmp_path / "nowhere"})
    empty = private(tmp_path / "encoder").parent / "empty"
    empty.mkdir(mode=0o700)
    assert "config.json" in refused(local, sentence_encoder=empty)
    assert "averaged_perceptron_tagger_eng" in refused(local, nltk_data=empty)


def test_nltk_folder_that_others_can_write(local: AttackResources) -> None:
    import nltk

    assert local.nltk_data is not None
    before = list(nltk.data.path)
    (local.nltk_data / "taggers").chmod(0o770)
    assert "chmod -R go-w" in refused(local, nltk_data=local.nltk_data)
    assert nltk.data.path == before


def test_unreadable_encoder(local: AttackResources) -> None:
    assert local.sentence_encoder is not None
    (local.sentence_encoder / "model.safetensors").write_bytes(b"no weights")
    refused(local, sentence_encoder=local.sentence_encoder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": np.array(["pickled", "words"], dtype=object)}, "cannot be read"),
        ({"nn": None}, "cannot be read"),
        ({"vectors": np.zeros((3, 4), np.int8)}, "does not fit"),
        ({"nn": np.full((1, 1), 9999)}, "does not fit"),
    ],
)
def test_vectors_that_do_not_fit(local: AttackResources, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = save_vectors(tmp_path / "other.npz", **change)
    assert says in refused(local, word_vectors=path)


def test_vectors_that_are_cut_short(local: AttackResources, tmp_path: Path) -> None:
    whole = save_vectors(tmp_path / "whole.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:5000])
    assert "cannot be read" in refused(local, word_vectors=cut)
    vectors = load_vectors(whole)
    outside = save_vectors(tmp_path / "outside.npz", nn=np.full((len(vectors.words), 2), 60000, np.uint16))
    assert "outside" in refused(local, word_vectors=outside)


def test_vectors_of_one_array(local: AttackResources, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.zeros((3, 4), np.float32))
    assert "cannot be read (it is an .npy, one array without a name); give an .npz" in refused(local, word_vectors=path)


def test_stock_resources_offline(local: AttackResources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nltk

    monkeypatch.setattr(stock, "_reachable", lambda address: False)
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    assert "paragramcf" in refused(local, word_vectors=None)
    assert "Universal Sentence Encoder" in refused(local, sentence_encoder=None)
    assert "universal_tagset" in refused(local, nltk_data=None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "tensorflow" in refused(local, sentence_encoder=None)
    with pytest.raises(DataError, match=r"attack\.resources"):
        resolve("stock", "cpu")


# ---------------------------------------------------------------- examples, defences, the stage


def save_mirror(root: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet

    folder = root / "datasets/own/set"
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pa.table(columns), folder / "test.parquet")
    return root


def test_examples_of_an_attack_set(tmp_path: Path) -> None:
    task = TASKS["rotten_tomatoes"]
    setting = AttackTask(examples=3, source=HubSource(hub="own/set", report={"test": "test"}))
    texts = [f"text {i}" for i in range(9)]
    mirror = save_mirror(tmp_path / "good", {"text": texts, "label": [0, 1, 1] * 3})
    found = load_examples(task, setting, "test", 0, mirror)
    assert found == load_examples(task, setting, "test", 0, mirror)
    assert len(found) == 3
    assert all(e.texts == (texts[e.row_id],) and e.label == [0, 1, 1][e.row_id % 3] for e in found)
    every = load_examples(task, setting.model_copy(update={"examples": 50}), "test", 0, mirror)
    assert sorted(e.row_id for e in every) == list(range(9))
    assert every[:3] == found
    with pytest.raises(DataError, match="no column 'text'"):
        load_examples(task, setting, "test", 0, save_mirror(tmp_path / "a", {"review": texts, "label": [0] * 9}))
    with pytest.raises(DataError, match="row 1: label 2 is not one of neg, pos"):
        load_examples(task, setting, "test", 0, save_mirror(tmp_path / "b", {"text": ["x"] * 2, "label": [0, 2]}))


def attacked(root: Path, labels: list[Any], **change: Any) -> list[tuple[int, int]]:
    """Row and class of each example of an attack set with these labels."""
    mirror = save_mirror(root, {"text": ["a"] * len(labels), "label": labels})
    setting = AttackTask(examples=50, source=HubSource(hub="own/set", report={"test": "test"}))
    task = replace(TASKS["rotten_tomatoes"], **change)
    return sorted((e.row_id, e.label) for e in load_examples(task, setting, "test", 0, mirror))


def test_an_attack_sets_labels_are_read_as_the_tasks_own(tmp_path: Path) -> None:
    assert attacked(tmp_path / "a", [0, 1, 1], label_names=("1", "0")) == [(0, 1), (1, 0), (2, 0)]
    assert attacked(tmp_path / "b", [1.0, 2.0, 3.0], label_names=("1", "2", "3")) == [(0, 0), (1, 1), (2, 2)]
    assert attacked(tmp_path / "c", [True, False], label_names=("true", "false")) == [(0, 0), (1, 1)]
    assert attacked(tmp_path / "d", ["pos", "neg"]) == [(0, 1), (1, 0)]


def test_an_attack_sets_columns_may_be_named_as_ours_are(tmp_path: Path) -> None:
    mirror = save_mirror(tmp_path, {"label": ["a", "b"], "row_id": ["c", "d"], "gold": [1, 0]})
    setting = AttackTask(examples=2, source=HubSource(hub="own/set", report={"test": "test"}))
    task = replace(TASKS["mrpc"], text=("row_id", "label"), label="gold")
    found = sorted(load_examples(task, setting, "test", 0, mirror), key=lambda e: e.row_id)
    assert found == [Example(0, ("c", "a"), 1), Example(1, ("d", "b"), 0)]


def test_an_attack_sets_rows_without_a_gold_label_are_left_out(tmp_path: Path) -> None:
    assert attacked(tmp_path, [1, -1, 0, -1, 1], drop_label=-1) == [(0, 1), (2, 0), (4, 1)]


def test_an_attack_sets_column_that_is_no_text(tmp_path: Path) -> None:
    mirror = save_mirror(tmp_path, {"text": [["a"], ["b"]], "label": [0, 1]})
    setting = AttackTask(examples=2, source=HubSource(hub="own/set", report={"test": "test"}))
    with pytest.raises(DataError, match=r"source: 'own/set': column 'text' holds no text; name another"):
        load_examples(TASKS["rotten_tomatoes"], setting, "test", 0, mirror)


def test_an_attack_set_with_other_column_names(tmp_path: Path) -> None:
    task = TASKS["sick"]
    source = HubSource(hub="own/set", report={"test": "test"})
    setting = AttackTask(examples=2, source=source, text=["premise", "hypothesis"])
    mirror = save_mirror(tmp_path, {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [2, 0]})
    expected = [Example(0, ("a", "c"), 2), Example(1, ("b", "d"), 0)]
    assert sorted(load_examples(task, setting, "test", 0, mirror), key=lambda e: e.row_id) == expected
    with pytest.raises(DataError, match=r"no column 'sentence_A' .*name its text columns in attack\.tasks\.sick\.text"):
        load_examples(task, setting.model_copy(update={"text": None}), "test", 0, mirror)
    with pytest.raises(ValueError, match=r"text names columns of a source, and there is none"):
        AttackTask(examples=2, text=["premise"])


SEEDS = ((1, "many1"), (2, "many2"))
THRESHOLDS = {"patience": (2.0, 3.0), "confidence": (np.inf, 0.9), "entropy": (-0.5, -0.5)}
"""Of each seed."""


def results(criteria: tuple[str, ...] = ("patience", "confidence", "entropy")) -> tuple[Selected, Evaluated]:
    """What finetune and evaluate leave for one backbone and two methods; finetune's is written."""
    models = {"single_exit": {1: "plain1", 2: "plain2"}, "joint": {1: "many1", 2: "many2"}}
    selected = select("demo-sentences", "demo-albert", models)
    none = OverSeeds(median=None, values=(None, None))
    rows = tuple(
        Row(
            backbone="demo-albert", method="joint", split="validation", seeds=(1, 2), keys=("many1", "many2"),
            points=tuple(point_of(make(name), {}, at) for at in THRESHOLDS[name]) if name else (ALL_LAYERS,) * 2,
            score=none, metrics={"accuracy": none}, layer_speedup=none, flop_speedup=none,
            rule="window", in_window=True, selected_on="selection",
        )
        for name in (*criteria, None)
    )  # fmt: skip
    evaluated = Evaluated(
        task="demo-sentences", modality="text", kind="classification", metrics=("accuracy",), protocol="holdout",
        choosing=Choosing(rule="window", window=(1.3, 1.96)), rows=rows,
        exits=tuple(of_two_exits(split, *seed) for split in ("selection", "validation") for seed in SEEDS),
        diagnosis=tuple(diagnosed(criteria, *seed) for seed in SEEDS),
    )  # fmt: skip
    return selected, evaluated


def of_two_exits(split: str, seed: int, key: str) -> ExitScores:
    return ExitScores(
        backbone="demo-albert", method="joint", split=split, seed=seed, key=key, layers=(1, 12), scores=(None, None)
    )


def diagnosed(criteria: tuple[str, ...], seed: int, key: str) -> Diagnosis:
    nothing = dict.fromkeys(("lost", "won", "lost_rows", "won_rows", "lost_by_class", "won_by_class"))
    outcomes = tuple(Outcome(criterion=name, threshold=None, exits=(0, 1), **nothing) for name in criteria)
    return Diagnosis(
        backbone="demo-albert", method="joint", split="validation", seed=seed, key=key, rows=1, layers=(1, 12),
        constant=Constant(score=None, p=1.0), classes=None,
        overthinking=None, oracle=Oracle(score=None, layer_speedup=None, flop_speedup=None), agreement=None,
        calibration=None, error=None, entropy=None, criteria=outcomes,
    )  # fmt: skip


def test_defences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Attack(tasks={})
    selected, evaluated = results()
    plain, confidence, entropy, patience = find_defences(settings, selected, evaluated, "validation")
    assert (plain.name, plain.key, criterion_of(plain.point)) == ("single exit", "plain1", None)
    assert (confidence.key, confidence.point.limit, confidence.columns()["threshold"]) == ("many1", np.inf, None)
    assert patience.point == point_of(make("patience"), {}, 2.0)
    assert entropy.point == point_of(make("entropy"), {}, -0.5)
    with pytest.raises(ParamsError, match=r"attack\.criteria: 'confidence'"):
        find_defences(settings, selected, results(("patience",))[1], "validation")
    with pytest.raises(ParamsError, match=r"attack\.multi_exit: unknown method 'joined'; did you mean 'joint'"):
        find_defences(settings.model_copy(update={"multi_exit": "joined"}), selected, evaluated, "validation")
    with pytest.raises(ParamsError, match="one exit only"):
        find_defences(settings.model_copy(update={"multi_exit": "single_exit"}), selected, evaluated, "validation")
    anew = select("demo-sentences", "demo-albert", {"single_exit": {1: "plain1"}, "joint": {1: "other"}})
    with pytest.raises(ArtifactError, match=r"demo-albert/joint: none of trial other; run `dvc repro evaluate`"):
        find_defences(settings, anew, evaluated, "validation")


def run(instance: str, **change: Any) -> tuple[tuple[Attacked, ...], dict[str, float]]:
    """Run the stage without MLflow; its results and its metrics."""
    from stages.attack import main, unasked

    raw = yaml.safe_load(PROFILE.read_text())
    raw["attack"]["tasks"] = {"demo-sentences": {"examples": 6}}
    raw["attack"] |= change
    raw["runtime"]["workers"] = 1
    metrics: dict[str, float] = {}

    def log_row(settings: dict[str, Any], numbers: dict[str, float], keys: list[str]) -> None:
        many = settings["method"] == raw["attack"]["multi_exit"]
        name = f"{settings['split']}.{settings['criterion'] if many else 'single_exit'}"
        metrics.update({f"{name}.{headline}": value for headline, value in numbers.items()})

    stage: Any = SimpleNamespace(
        params=Params.model_validate(raw),
        instance=instance,
        run=SimpleNamespace(log_artifact=lambda path: None),
        write=lambda path, result: result.write(path),
        write_text=write_text,
        log_row=log_row,
    )
    if not unasked(stage.params, instance):
        main(stage)
    return AttackResult.read(HERE.attack(instance), "run attack").attacked, metrics


def attack_demo(**change: Any) -> tuple[Attacked, dict[str, float]]:
    (attacked,), metrics = run("demo-sentences", **change)
    return attacked, metrics


@pytest.fixture
def trained(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which prepare, finetune and evaluate have run on 20 demo sentences."""
    import pyarrow as pa
    import pyarrow.parquet

    from pipeline.models.multi_exit import MultiExit

    monkeypatch.chdir(tmp_path)
    task = "demo-sentences"
    for path in (HERE.texts(task, "validation"), HERE.tokenizer(task, "demo-albert")):
        path.parent.mkdir(parents=True)
    Manifest(
        task=task, modality="text", kind="classification", protocol="holdout", columns=("sentence",),
        label_names=("negative", "positive"), metrics=("accuracy",), source={}, report_splits=("validation",),
        unlabelled_splits=(), splits={"validation": Split(rows=20, sha256="s")}, inputs={},
    ).write(HERE.manifest(task))  # fmt: skip
    tokenizer.save(str(HERE.tokenizer(task, "demo-albert")))
    texts = sentences(20)
    table = {"sentence": texts, "label": [0.0, 1.0] * 10, "row_id": list(range(20))}
    pyarrow.parquet.write_table(pa.table(table), HERE.texts(task, "validation"))
    save_model(model, task, "many1")
    save_model(MultiExit(model.backbone, [LAYERS], 2).eval(), task, "plain1")
    results()[1].write(HERE.evaluated(task))
    return tmp_path


DEFENCES = ["single exit", "confidence", "entropy", "patience"]


def test_stage(trained: Path) -> None:
    import pyarrow.parquet

    attacked, metrics = attack_demo()
    parquet = HERE.attack_records("demo-sentences")
    first = parquet.read_bytes()
    assert run("demo-sentences") == ((attacked,), metrics)
    assert parquet.read_bytes() == first
    assert [row.defence for row in attacked.rows] == DEFENCES
    assert [row.point.criterion for row in attacked.rows] == [None, *DEFENCES[1:]]
    assert (attacked.examples, attacked.comparable_with_paper) == (6, False)
    rows = pyarrow.parquet.read_table(parquet).to_pylist()
    assert len(rows) == 24
    assert len({row["row_id"] for row in rows}) == 6
    patience = attacked.rows[3]
    kept = [row["outcome"] == "failed" for row in rows if row["defence"] == "patience"]
    assert (
        metrics["validation.patience.after_attack_accuracy"]
        == patience.after_attack_accuracy.value
        == round(float(np.mean(kept)), 6)
    )
    assert "validation.single_exit.original_accuracy" in metrics
    gains = [row.against_first and row.against_first.kept - row.against_first.lost for row in attacked.rows]
    after = [round(6 * (row.after_attack_accuracy.value or 0)) for row in attacked.rows]
    assert gains == [None, *(count - after[0] for count in after[1:])]
    for row in attacked.rows:
        # Worse than against its own attack alone, whose texts are among those of the pool.
        assert row.pooled_accuracy.value is not None
        assert row.after_attack_accuracy.value is not None
        assert 0 <= row.pooled_accuracy.value <= row.after_attack_accuracy.value
        assert row.pooled_accuracy.n == 6
    broken = sorted({row["row_id"] for row in rows if row["outcome"] == "successful"})
    for row in attacked.rows:
        assert [record.row_id for record in row.shown] == broken[:3]
    page = HERE.attack_page("demo-sentences").read_text()
    assert page.count("<ins>") == sum(row["words_changed"] for row in rows if row["outcome"] == "successful")

    with pytest.raises(UnsupportedError, match="regression"):
        run("demo-similarity", tasks={"demo-similarity": {"examples": 6}})


def test_stage_with_an_adaptive_attack(trained: Path) -> None:
    """A row for each; shards of the plain attacks are those of before, and all searches' texts are one pool."""
    import pyarrow.parquet

    plain, _ = attack_demo()
    stored = sorted(HERE.attacked.rglob("*.json"))
    shards = [path for path in stored if path.parent.name != "pooled"]
    attacked, _ = attack_demo(scores=["answered", "deepest"])
    names = ["single exit", *(name for c in DEFENCES[1:] for name in (c, f"{c}, adaptive"))]
    assert [row.defence for row in attacked.rows] == names
    assert [row.scores for row in attacked.rows] == ["answered", *["answered", "deepest"] * 3]
    now = {path for path in HERE.attacked.rglob("*.json") if path.parent.name != "pooled"}
    assert set(shards) < now
    assert len(now) == len(shards) + 3
    for row, pooled in zip(attacked.rows[1::2], attacked.rows[2::2], strict=True):
        (before,) = (one for one in plain.rows if one.defence == row.defence)
        assert row.after_attack_accuracy == before.after_attack_accuracy
        assert row.original_accuracy == pooled.original_accuracy
        assert row.pooled_accuracy == pooled.pooled_accuracy  # one model, one pool
        assert (row.pooled_accuracy.value or 0) <= min(
            one.value or 0 for one in (row.after_attack_accuracy, pooled.after_attack_accuracy, before.pooled_accuracy)
        )
    pooled = [json.loads(path.read_text()) for path in HERE.attacked.rglob("pooled/*.json") if path not in stored]
    assert {one["defence"] for one in pooled} <= set(DEFENCES)
    assert "every query runs all layers" in attacked.query_rule
    assert "adaptive" not in plain.query_rule
    rows = pyarrow.parquet.read_table(HERE.attack_records("demo-sentences")).to_pylist()
    assert {(row["defence"], row["scores"]) for row in rows} == {(row.defence, row.scores) for row in attacked.rows}
    alone, _ = attack_demo(scores=["deepest"])
    assert [row.defence for row in alone.rows] == names[::2]
    assert alone.rows[1].after_attack_accuracy == attacked.rows[2].after_attack_accuracy


def test_stage_in_onnx_runtime(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attacks and queries; records of its own, and graphs that are made once."""
    from pipeline.models.deploy import graphs

    asked: dict[str, Any] = {"criteria": ["patience"], "scores": ["answered", "deepest"]}
    plain, _ = attack_demo(**asked)
    before = {path: path.read_bytes() for path in HERE.attacked.rglob("*.json")}
    attacked, _ = attack_demo(**asked, engine="onnx-float32")
    assert attacked.model_copy(update={"engine": "pytorch"}) == plain
    after = {path: path.read_bytes() for path in HERE.attacked.rglob("*.json")}
    assert {path: after[path] for path in before} == before
    assert len(after) == 2 * len(before)
    shutil.rmtree(HERE.attacked)
    monkeypatch.setattr(graphs, "write_graphs", None)
    assert attack_demo(**asked, engine="onnx-float32")[0] == attacked
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnsupportedError, match=r"^attack\.engine: 'onnx-float32' needs ONNX Runtime, .* take pytorch$"):
        attack_demo(**asked, engine="onnx-float32")


def test_each_report_split_is_attacked_apart(trained: Path) -> None:
    """MNLI has two halves, and the paper's Table 5 a column for each."""
    import pyarrow as pa
    import pyarrow.parquet

    task = "demo-sentences"
    (first,), _ = run(task)
    manifest = Manifest.read(HERE.manifest(task), "")
    splits = {name: Split(rows=20, sha256="s") for name in ("validation", "other")}
    manifest.model_copy(update={"report_splits": tuple(splits), "splits": splits}).write(HERE.manifest(task))
    table = {"sentence": sentences(40)[20:], "label": [0.0, 1.0] * 10, "row_id": list(range(20))}
    pyarrow.parquet.write_table(pa.table(table), HERE.texts(task, "other"))
    attacked, metrics = run(task)
    assert attacked[0] == first
    assert [(one.split, one.source) for one in attacked] == [
        ("validation", "demo-sentences/validation"), ("other", "demo-sentences/other"),
    ]  # fmt: skip
    assert all([row.defence for row in one.rows] == DEFENCES for one in attacked)
    rows = pyarrow.parquet.read_table(HERE.attack_records(task)).to_pylist()
    assert [row["split"] for row in rows] == ["validation"] * 24 + ["other"] * 24
    assert not {row["original"][0] for row in rows[:24]} & {row["original"][0] for row in rows[24:]}
    assert {name.partition(".")[0] for name in metrics} == {"validation", "other"}
    assert "<h2>patience, other</h2>" in HERE.attack_page(task).read_text()


def test_a_bad_example_is_counted_and_the_others_are_attacked(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    path = HERE.texts("demo-sentences", "validation")
    table = pyarrow.parquet.read_table(path).to_pydict()
    pyarrow.parquet.write_table(pa.table(table | {"sentence": ["a <SPLIT> b", *table["sentence"][1:]]}), path)
    attacked, _ = attack_demo(tasks={"demo-sentences": {"examples": 20}})
    assert [row.unattacked for row in attacked.rows] == [1, 1, 1, 1]
    said = capsys.readouterr().out
    assert "patience: 1 of 20 examples could not be attacked (row 0: the text holds <SPLIT>" in said
    rows = pyarrow.parquet.read_table(HERE.attack_records("demo-sentences")).to_pylist()
    assert [row["row_id"] for row in rows if row["reason"]] == [0] * 4


def test_a_task_that_is_not_attacked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    assert run("demo-pairs") == ((), {})
    records = pyarrow.parquet.read_table(HERE.attack_records("demo-pairs"))
    assert (records.num_rows, "defence" in records.column_names) == (0, True)
    assert "attack.tasks of params.yaml does not name demo-pairs" in HERE.attack_page("demo-pairs").read_text()
    with pytest.raises(ParamsError, match="unknown task 'demo-pair'; did you mean 'demo-pairs'"):
        run("demo-pair")


def test_texts_that_slow_down_are_no_pool(trained: Path) -> None:
    attacked, metrics = attack_demo(goal="slow_down")
    assert [row.pooled_accuracy.value for row in attacked.rows] == [None] * 4
    assert [row.against_first for row in attacked.rows] == [None] * 4
    assert metrics["validation.patience.pooled_accuracy"] is None


def test_a_pool_is_the_texts_found_against_all(trained: Path) -> None:
    """A model is right on a pool where a plain pass over its texts says so, whatever else is in it."""
    from pipeline.attacks.pooled import ask, pools
    from pipeline.attacks.victim import Victim

    class Reads(Victim):
        """Answers class 1 to texts with a 1 in them, else 0."""

        def __init__(self) -> None:
            pass

        def forget(self) -> None:
            pass

        def __call__(self, texts: Any) -> Any:
            import torch

            return torch.tensor([[0.0, 2.0 * ("1" in "".join(text)) - 1] for text in texts])

    plain = find_defences(Attack(tasks={}), *results(), "validation")
    fine = but(original=("a 1",), changed=("b 1",))
    worse = but(original=("a 1",), changed=("b 0",))
    failed = but(original=("a 1",), outcome="failed", changed=("c 0",))
    attacked = [(plain[0], [fine, fine, fine]), (plain[1], [fine, worse, failed])]
    one, other = pools("demo-sentences", attacked, ["one", "other"], "cpu", 1, 1)
    assert one.texts == other.texts
    assert one.texts == ((1, (("a 1",), ("b 1",))), (1, (("a 1",), ("b 1",), ("b 0",))), (1, (("a 1",), ("b 1",))))
    assert one.path != other.path
    assert pools("demo-sentences", attacked, ["one", "other"], "cpu", 1, 2)[0].path != one.path, "of other code"
    assert pooled_answer(one) is None
    ask(Reads(), one)
    assert pooled_answer(one) == (True, False, True)
    one.path.write_text("{")
    assert pooled_answer(one) is None


def test_a_few_texts_are_asked_about_without_workers(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To start workers takes longer than to answer; the answers are the same either way."""
    from pipeline.attacks import comparison
    from pipeline.attacks.comparison import Comparison, Workers
    from pipeline.attacks.setting import Setting
    from pipeline.attacks.shards import POOL_RUNNER, run_pool

    fanned: list[str] = []

    def fan_out(jobs: Any, *, runner: str, root: Path, done: Any, label: str) -> None:
        fanned.extend([runner] * len(jobs))
        for job in jobs:
            done(job, run_pool(job))

    defences = find_defences(Attack(tasks={}), *results(), "validation")
    failed = but(original=("a plain text",), outcome="failed", changed=None)
    attacks = [(defence, [failed]) for defence in defences]
    workers = Workers(fan_out, "cpu", 1)
    whole = Comparison("demo-sentences", (), defences, Setting(), "demo")
    answers = whole.ask_pools(attacks, workers)
    assert fanned == []
    shutil.rmtree(HERE.attacked)
    monkeypatch.setattr(comparison, "CHUNK", len(defences) - 1)
    assert whole.ask_pools(attacks, workers) == answers
    assert fanned == [POOL_RUNNER] * len(defences)


def test_a_shard_that_is_done_is_never_redone(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.attacks import attacker, comparison, shards

    whole = run("demo-sentences")
    HERE.attacked.rename("larger")
    monkeypatch.setattr(comparison, "SIZE", 2)
    given: list[shards.Shard] = []
    attack_shard = shards.run_shard
    monkeypatch.setattr(shards, "run_shard", lambda shard: given.append(shard) or attack_shard(shard))
    attacked: list[str] = []
    stock_attack = attacker.attack_examples

    def counted(victim: Any, resources: Any, examples: Any, *rest: Any, **more: Any) -> Any:
        if len(attacked) == dies_at:
            raise KeyboardInterrupt
        attacked.append(f"{examples[0].row_id} {victim.engine.rule.criterion and victim.engine.rule.criterion.name}")
        return stock_attack(victim, resources, examples, *rest, **more)

    monkeypatch.setattr(attacker, "attack_examples", counted)
    dies_at = 6
    with pytest.raises(KeyboardInterrupt):
        run("demo-sentences")
    assert len(attacked) == 6  # one shard of four defences, and two of the next
    dies_at = -1
    # Whatever was cut, and into how many shards: the same numbers.
    assert run("demo-sentences") == whole
    assert len(attacked) == len(set(attacked)) == 12
    assert run("demo-sentences") == whole
    assert len(attacked) == 12
    # One that is cut short counts as not done.
    stored = sorted((HERE.attacked / "demo-sentences").glob("*.json"))
    assert len(stored) == 12
    stored[0].write_text(stored[0].read_text()[:100])
    assert run("demo-sentences") == whole
    assert len(attacked) == 13
    # A job whose worker was lost runs again as it was given: it attacks what is missing.
    shard = given[0]
    HERE.shard(shard.task, shard.defences[1][0]).unlink()
    assert (attack_shard(shard), attack_shard(shard), len(attacked)) == (1, 0, 14)
    attacked.pop()
    # What changes results is in the key; a defence less is not.
    run("demo-sentences", criteria=["patience"])
    assert len(attacked) == 13
    run("demo-sentences", criteria=["patience"], max_queries=9)
    assert len(attacked) == 19
    weights = HERE.model("demo-sentences", "plain1") / "model.safetensors"
    weights.write_bytes((HERE.model("demo-sentences", "many1") / "model.safetensors").read_bytes())
    assert len(list(comparison_of().unfinished("cpu", 1))) == 3


def test_the_key_holds_what_decides(trained: Path) -> None:
    """Another threshold or setting is another key; a default that is written out is the same one."""

    def keys(criterion: str, settings: dict[str, float], threshold: float) -> Any:
        plain = comparison_of()
        point = point_of(make(criterion, settings), settings, threshold)
        return replace(plain, defences=[replace(plain.defences[0], point=point)]).keys

    same = keys("patience", {}, 2.0)
    assert keys("patience", {"tau": 0.5}, 2.0) == same
    others = [keys("patience", {"tau": 0.6}, 2.0), keys("patience", {}, 3.0), keys("patience", {}, np.inf)]
    assert len({str(key) for key in (same, *others, comparison_of().keys)}) == 5


def test_a_shard_leaves_no_model_behind(
    trained: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from pipeline.models.live import LiveEngine

    def engines() -> int:
        return sum(type(thing) is LiveEngine for thing in gc.get_objects())

    gc.collect()
    gc.disable()  # of its own accord it comes rarely, and a thousand examples load hundreds of models
    request.addfinalizer(gc.enable)
    before = engines()
    run("demo-sentences")
    assert engines() == before


def comparison_of(count: int = 6) -> Any:
    from pipeline.attacks.comparison import Comparison
    from pipeline.attacks.setting import Setting

    settings = Params.model_validate(yaml.safe_load(PROFILE.read_text())).attack
    plain = find_defences(settings, *results(), "validation")[:1]
    task = TASKS["demo-sentences"]
    examples = load_examples(task, AttackTask(examples=count), "validation", 0, None)
    return Comparison(task.name, examples, plain, Setting(), "demo")


def test_more_examples_leave_finished_shards_as_they_are(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.attacks import comparison

    monkeypatch.setattr(comparison, "SIZE", 4)
    few, more = comparison_of(8).keys, comparison_of(14).keys
    assert [len(part) for part, _ in more] == [4, 4, 4, 2]
    assert more[:2] == few


def test_html_is_escaped() -> None:
    from pipeline.attacks.view import marked, view

    record = but(row_id=7, original=("<i>a</i> b",), changed=("<i>a</i> <script>",))
    attacks = [(Defence("single exit", "b", "joint", "key", 1), [record])]
    page = view(TASKS["demo-sentences"], {"validation": attacks})
    assert "<script>" not in page
    assert "<del>b</del><ins>&lt;script&gt;</ins>" in page
    assert marked("the  same", "the  same") == "the  same"


@pytest.mark.parametrize(("recipe", "part"), [("pwws", "wordnet"), ("bae", "masked_lm")])
def test_the_demo_names_what_it_lacks(recipe: str, part: str) -> None:
    with pytest.raises(ParamsError, match=f"attack.resources: 'demo' has no {part}, which recipe '{recipe}' needs"):
        Attack(tasks={"demo-sentences": AttackTask(examples=1)}, resources="demo", recipe=recipe)


def test_local_recipes_name_what_they_lack(local: AttackResources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_reachable", lambda address: False)
    for recipe, says in (
        ("pwws", "has no corpora/"),
        ("deepwordbug", "has no corpora/stopwords"),
        ("bae", "masked_lm"),
    ):
        with pytest.raises(DataError, match=says) as error:
            resolve(local, "cpu", recipe)
        assert "\n" not in str(error.value)


def test_a_cache_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.attacks.library import _marked_as_installed

    monkeypatch.delenv("TA_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/dev/null/home")
    says = r"cache folder /dev/null/home/.cache/textattack .*; set TA_CACHE_DIR"
    with pytest.raises(DataError, match=says), _marked_as_installed():
        pass


def test_processes_that_import_at_once_do_not_take_each_others_marker_away(tmp_path: Path) -> None:
    """Without it TextAttack would download."""
    program = """
from pipeline.attacks.library import _MARKER, _marked_as_installed, cache_folder
print("starts", flush=True)
with _marked_as_installed():
    print("in", flush=True)
    input()
    print((cache_folder() / _MARKER).exists(), flush=True)
"""
    environment = os.environ | {"TA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(PROFILE.parent.parent)}

    def start(until: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        while (line := process.stdout.readline().strip()) != until:
            assert line == "starts"
        return process

    first = start("in")
    second = start("starts")
    time.sleep(0.5)  # enough to come in, were it let in
    assert first.communicate("\n", timeout=60)[0] == "True\n"
    assert second.communicate("\n", timeout=60)[0] == "in\nTrue\n"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["early_exit_import.lock"]


def test_jobs_on_ray(tmp_path: Path) -> None:
    """Two workers; one that fails says so in its own line, and what was done stays done."""
    from tests.ray_cluster import clean_environment

    program = """
import sys
from pathlib import Path
from pipeline.running.settings import Runtime
from pipeline.running.ray.jobs import fan_out
done = []
try:
    fan_out(sys.argv[1].split(","), runner="tests.toy_jobs:run", root=Path("out"),
            runtime=Runtime(workers=2, gpus_per_trial=float(sys.argv[2])),
            done=lambda job, result: done.append((job, result)))
except Exception as error:
    print(type(error).__name__, error)
print(sorted(done))
"""
    environment = clean_environment(tmp_path) | {"PYTHONPATH": str(PROFILE.parent.parent), "CUDA_VISIBLE_DEVICES": ""}
    for jobs, share, says in (
        ("a,b,c", 0, "[('a', 'A'), ('b', 'B'), ('c', 'C')]"),
        ("poor,d", 0, "DataError poor: no such job"),
        ("full,e", 0, "StorageError No space left on device; free some space"),
        ("f,g", 0.5, "ClusterError runtime.gpus_per_trial: 0.5, and this machine has no GPU; lower it"),
    ):
        command = [sys.executable, "-c", program, jobs, str(share)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert says in done.stdout, done.stdout + done.stderr
    assert not {path.name for path in (tmp_path / "out").iterdir()} & {"f", "g"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"a", "b", "c"}
