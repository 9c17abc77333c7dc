"""ElasticBERT: BERT under another name, with a pooler behind each layer. Its hub's file was never at hand, so these
are small models in the naming of its published code."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import DataError, ParamsError
from pipeline.models.encoders.config import read_config
from pipeline.models.encoders.encoder import build_encoder, encoder_from_description
from pipeline.models.encoders.tokenizer import tokenizer_of
from pipeline.models.names import BACKBONES, BackboneSettings, BackboneSpec, resolve_backbone
from pipeline.models.size import parameters_of
from pipeline.models.weights import weight_files
from pipeline.tasks.names import TASKS
from pipeline.tasks.text.tokens import collate
from tests.test_backbones import LAYERS, VOCABULARY, config_of, expected_states, number_of, plain_model, rows, states
from tests.workspace import Workspace

HUB = "fnlp/elasticbert-base"
PREFIX = "elasticbert."
OWN_FIELDS = {"max_output_layers": LAYERS, "num_output_layers": 1, "gradient_checkpointing": False}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(VOCABULARY - 5))]
BARE: BackboneSpec = BACKBONES["elasticbert-base"]
in_both_namings = pytest.mark.parametrize("prefix", [PREFIX, ""])


def poolers_of(count: int = LAYERS) -> list[nn.Linear]:
    torch.manual_seed(1)
    return [nn.Linear(32, 32) for _ in range(count)]


def tensors(prefix: str, poolers: list[nn.Linear]) -> dict[str, Tensor]:
    """The pretraining checkpoint: encoder, poolers and, where there is a prefix, heads beside it."""
    bert = {name: value for name, value in plain_model("bert").state_dict().items() if not name.startswith("pooler.")}
    for layer, pooler in enumerate(poolers):
        bert |= {f"encoder.pooler.{layer}.dense.{name}": value for name, value in pooler.state_dict().items()}
    heads = {"cls.predictions.decoder.weight": torch.ones(VOCABULARY, 32)} if prefix else {}
    return {prefix + name: value.detach().clone() for name, value in bert.items()} | heads


def mirror_of(
    root: Path,
    prefix: str = PREFIX,
    poolers: int = LAYERS,
    without: Collection[str] = (),
    tokenizer: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """A hub mirror with a small ElasticBERT.

    Args:
        without: names of tensors that are left out, without their prefix.
        tokenizer: content of tokenizer_config.json; None: vocab.txt alone.
        fields: further fields of config.json, or others; None leaves one out.
    """
    folder = root / "models" / HUB
    folder.mkdir(parents=True)
    weights = tensors(prefix, poolers_of(poolers))
    kept = {name: value for name, value in weights.items() if name.removeprefix(prefix) not in without}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    config = config_of("bert").to_dict() | OWN_FIELDS | {"model_type": "elasticbert"} | fields
    text = json.dumps({name: value for name, value in config.items() if value is not None})
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return root


@in_both_namings
@pytest.mark.parametrize("fields", [{}, {"model_type": None}, {"architectures": ["ElasticBertForPreTraining"]}])
def test_it_is_read_as_bert(prefix: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """Also where a folder above names another family, from which Transformers would guess."""
    mirror = mirror_of(tmp_path / "roberta", prefix, **fields)
    assert read_config(BARE, mirror).model_type == "bert"
    encoder = build_encoder(BARE, mirror=mirror).eval()
    for lengths in ((9, 4, 7), (6, 6)):
        batch = collate(*rows(lengths), "cpu")
        expected = expected_states(plain_model("bert"), "bert", batch)
        with torch.inference_mode():
            found = states(encoder, batch)
        assert len(found) == LAYERS + 1
        for mine, theirs in zip(found, expected, strict=True):
            for row, length in enumerate(lengths):
                torch.testing.assert_close(mine[row, :length], theirs[row, :length], rtol=1e-5, atol=2e-5)
    again = encoder_from_description(json.loads(json.dumps(encoder.description())))
    again.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        assert torch.equal(states(again.eval(), batch)[-1], found[-1])


@in_both_namings
@pytest.mark.parametrize("layers", [None, 2])
def test_the_shared_pooler_is_that_of_the_deepest_layer(prefix: str, layers: int | None, tmp_path: Path) -> None:
    spec = resolve_backbone(BARE.name, BackboneSettings(layers=layers))
    encoder = build_encoder(spec, mirror=mirror_of(tmp_path, prefix))
    assert_equal(encoder.pooler, poolers_of()[(layers or LAYERS) - 1])


@in_both_namings
@pytest.mark.parametrize("layers", [None, 2])
def test_own_poolers_are_those_of_their_layers(prefix: str, layers: int | None, tmp_path: Path) -> None:
    spec = resolve_backbone(BARE.name, BackboneSettings(layers=layers))
    encoder = build_encoder(spec, mirror=mirror_of(tmp_path, prefix), poolers="own_pooler").eval()
    assert len(encoder.own_poolers) == (layers or LAYERS)
    batch = collate(*rows((6, 6)), "cpu")
    state = encoder.embed(batch)
    for index, pooler in enumerate(poolers_of()[: encoder.layers]):
        assert_equal(encoder.own_poolers[index], pooler)
        state = encoder.layer(index, state)
        torch.testing.assert_close(encoder.pool(index, state), torch.tanh(pooler(state.hidden[:, 0])))


def test_heads_without_poolers(tmp_path: Path) -> None:
    encoder = build_encoder(BARE, mirror=mirror_of(tmp_path), poolers="linear")
    assert encoder.pooler is None
    assert not [name for name in encoder.state_dict() if "pooler" in name]


def test_poolers_are_counted_from_the_first_layer_with_an_exit(tmp_path: Path) -> None:
    """`num_base_layers` of ElasticBERT's code have no exit. An exit there starts as the deepest layer's pooler."""
    encoder = build_encoder(BARE, mirror=mirror_of(tmp_path, poolers=3, num_base_layers=1), poolers="own_pooler")
    for layer, expected in enumerate((2, 0, 1, 2)):
        assert_equal(encoder.own_poolers[layer], poolers_of()[expected])


def test_a_bert_with_one_pooler_gives_each_exit_a_copy(tmp_path: Path) -> None:
    plain = plain_model("bert")
    plain.save_pretrained(tmp_path / "plain")
    encoder = build_encoder(BackboneSpec("mine", str(tmp_path / "plain")), poolers="own_pooler")
    for own in encoder.own_poolers:
        assert_equal(own, plain.pooler.dense)


def assert_equal(mine: nn.Module | None, other: nn.Module) -> None:
    assert mine is not None
    for name, value in other.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name


@in_both_namings
def test_a_missing_weight_is_refused(prefix: str, tmp_path: Path) -> None:
    """Transformers would start it at random, with a warning."""
    lost = "encoder.layer.2.output.dense.weight"
    mirror = mirror_of(tmp_path / "layer", prefix, without=[lost])
    with pytest.raises(
        DataError, match=rf"^backbones\.elasticbert-base: '{HUB}' has no weights for '{lost}'; take .*t$"
    ):
        build_encoder(BARE, mirror=mirror)
    build_encoder(resolve_backbone(BARE.name, BackboneSettings(layers=2)), mirror=mirror)  # does without that layer
    mirror = mirror_of(tmp_path / "pooler", prefix, without=["encoder.pooler.3.dense.bias"])
    with pytest.raises(DataError, match=r"^backbones\.elasticbert-base: no weights for .*bias.*$"):
        build_encoder(BARE, mirror=mirror)


def test_more_layers_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=rf"elasticbert-base\.layers: 5; {HUB} has 4, give 4 or fewer"):
        build_encoder(resolve_backbone(BARE.name, BackboneSettings(layers=5)), mirror=mirror_of(tmp_path))


@pytest.mark.parametrize("model_type", ["elasticbert", None])
@pytest.mark.parametrize("tokenizer", [None, {"do_lower_case": True}, {"tokenizer_class": "BertTokenizer"}])
def test_its_tokenizer(tokenizer: dict[str, Any] | None, model_type: str | None, tmp_path: Path) -> None:
    mirror = mirror_of(tmp_path / "roberta", tokenizer=tokenizer, model_type=model_type)
    found = tokenizer_of(BARE, replace(TASKS["demo-sentences"], max_length=32), mirror)
    assert found.encode("Word3 word7").ids == [WORDS.index(word) for word in ("[CLS]", "word3", "word7", "[SEP]")]


@in_both_namings
@pytest.mark.parametrize("layers", [None, 2])
def test_its_parameters_are_those_of_one_exit(prefix: str, layers: int | None, tmp_path: Path) -> None:
    spec = resolve_backbone(BARE.name, BackboneSettings(layers=layers))
    mirror = mirror_of(tmp_path, prefix)
    assert parameters_of(spec, mirror, None) == number_of(build_encoder(spec, mirror=mirror))


def test_plan_and_doctor_know_it(workspace: Workspace, tmp_path: Path) -> None:
    mirror = mirror_of(tmp_path / "mirror")
    workspace.write_params({"backbones": {BARE.name: {}}, "tasks.demo-sentences.max_length": 32})
    environment = {"HUB_MIRROR": str(mirror), "HF_HUB_OFFLINE": "1"}
    prepared = workspace.command("-m", "stages.prepare", "demo-sentences", **environment)
    assert prepared.code == 0, prepared.err
    planned = workspace.command("-m", "pipeline", "plan", **environment)
    assert (planned.code, "elasticbert-base" in planned.out, "disk: " in planned.out) == (0, True, True), planned
    line = f"{HUB}, from the mirror {mirror}"
    assert line in workspace.command("-m", "pipeline", "doctor", **environment).out
    folder = mirror / "models" / HUB
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused = f"'{HUB}' has no safetensors"
    assert refused in workspace.command("-m", "pipeline", "doctor", **environment).out
    assert refused in workspace.command("-m", "pipeline", "plan", **environment).error()


def pickle_weights(folder: Path, shards: int) -> None:
    """Leave the weights as its authors do: tied tensors share memory, and some are transposed views."""
    weights = load_file(folder / "model.safetensors")
    weights["cls.predictions.decoder.weight"] = weights[f"{PREFIX}embeddings.word_embeddings.weight"]
    name = f"{PREFIX}encoder.layer.0.output.dense.weight"
    weights[name] = weights[name].T.contiguous().T
    (folder / "model.safetensors").unlink()
    for shard in range(shards):
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torch.save({name: weights[name] for name in [*weights][shard::shards]}, folder / file)


def command_of(error: DataError, tools: Path, hub: Path) -> tuple[list[str], dict[str, str]]:
    """The command in a message, and an environment in which `hf download` copies a folder."""
    tools.mkdir()
    programs = {
        "python": f'exec "{sys.executable}" "$@"',
        "hf": f'[ "$1 $2 $3" = "download {HUB} --local-dir" ] && cp -r "{hub}" "$4"',
    }
    for name, does in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    before, command, _ = str(error).split("`")
    assert re.fullmatch(
        rf"backbones: '{HUB}' has no safetensors \(.*\), and pickled .* never opened; if you trust them, .* with ",
        before,
    )
    return ["sh", "-c", command], os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("at_hand", [True, False])
def test_pickled_weights_are_refused_with_a_command_that_converts_them(
    at_hand: bool, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the mirror's folder, or from the hub, of whose download a copy stands here."""
    mirror = mirror_of(tmp_path / "mir ror")
    before = build_encoder(BARE, mirror=mirror).state_dict()
    folder = mirror / "models" / HUB
    pickle_weights(folder, shards)
    monkeypatch.chdir(tmp_path)
    if not at_hand:

        def nothing(*_: object, **__: object) -> str:
            raise EntryNotFoundError("404")

        monkeypatch.setattr("huggingface_hub.hf_hub_download", nothing)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        weight_files(HUB, mirror if at_hand else None)
    assert str(error.value).endswith("`" if at_hand else "`, and give hub: FOLDER")
    command, environment = command_of(error.value, tmp_path / "tools", folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    spec = BARE if at_hand else resolve_backbone("mine", BackboneSettings(hub="FOLDER"))
    after = build_encoder(spec, mirror=mirror if at_hand else None).state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
