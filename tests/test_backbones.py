"""Text encoders of each family: our loop over the layers equals the plain Transformers model, from disk and in bf16."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import DataError, ParamsError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import sweep
from pipeline.models.encoders.encoder import Encoder, State, build_encoder, encoder_from_description
from pipeline.models.encoders.families import FAMILIES
from pipeline.models.flops import EncoderShape
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint, save_checkpoint
from pipeline.models.names import BACKBONES, BackboneSettings, BackboneSpec, resolve_backbone
from pipeline.models.packed import packs, ready
from pipeline.models.residual import ResNet
from pipeline.models.size import parameters_of
from pipeline.tasks.text.tokens import collate
from tests.test_criteria import trace_of

LAYERS, HIDDEN, VOCABULARY = 4, 32, 50
LENGTHS = (9, 4, 7, 9, 2, 5)
HIDDEN_RATE, ATTENTION_RATE = "hidden_dropout_prob", "attention_probs_dropout_prob"
NARROW = ("albert", "electra")
"""Families whose embedding may be narrower than their layers."""
EAGER = ("albert", "electra", "mpnet")
"""Families that run other kernels in Transformers: GELU in eight operations, attention in five."""
each_family = pytest.mark.parametrize("family", FAMILIES)


def config_of(family: str, **more: Any) -> Any:
    from transformers import AutoConfig

    shape = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "initializer_range": 0.2, "pad_token_id": 1}
    if family == "distilbert":
        shape |= {"dim": HIDDEN, "hidden_dim": 48, "n_layers": LAYERS, "n_heads": 4}
    else:
        shape |= {"hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS}
        shape |= {"num_attention_heads": 4, "type_vocab_size": 1 if "types" not in own_types(family) else 2}
    if family in NARROW:
        shape |= {"embedding_size": 16}
    if family == "albert":
        shape |= {"num_hidden_groups": 2, "inner_group_num": 2}
    return AutoConfig.for_model(family, **shape, **more)


def own_types(family: str) -> tuple[str, ...]:
    """RoBERTa's table of token types has one row."""
    return ("types",) if family in ("bert", "albert", "electra") else ()


def plain_model(family: str) -> Any:
    from transformers import AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(config_of(family)).eval()
    with torch.no_grad():  # layer norms start as the identity, biases as zeros: those would go unnoticed
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return model


def rows(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    ids = [generator.integers(2, VOCABULARY, n) for n in lengths]
    types = [(np.arange(n) > n // 2).astype(np.int64) for n in lengths]
    return ids, types


def from_disk(family: str, folder: Path, **settings: Any) -> tuple[Any, Encoder]:
    """A plain model, and our encoder that read it from a hub mirror."""
    plain = plain_model(family)
    plain.save_pretrained(folder / "models" / "someone" / family)
    spec = BackboneSpec("mine", f"someone/{family}", **settings)
    return plain, build_encoder(spec, mirror=folder).eval()


def states(encoder: Encoder, batch: dict[str, Tensor]) -> list[Tensor]:
    state = encoder.embed(batch)
    found = [state.hidden]
    for index in range(encoder.layers):
        state = encoder.layer(index, state)
        found.append(state.hidden)
    return found


@torch.inference_mode()
def expected_states(plain: Any, family: str, batch: dict[str, Tensor]) -> list[Tensor]:
    """Hidden states of the plain model, with what its own tokenizer would have handed it."""
    keep = batch.get("keep", torch.ones_like(batch["input_ids"], dtype=torch.bool))
    inputs = {"input_ids": batch["input_ids"].masked_fill(~keep, 1), "attention_mask": keep.long()}
    if own_types(family):
        inputs["token_type_ids"] = batch["token_type_ids"]
    found = plain(**inputs, output_hidden_states=True).hidden_states
    # Transformers 5 also lists the states inside an ALBERT layer of two inner ones.
    return list(found[:: (len(found) - 1) // plain.config.num_hidden_layers])


@each_family
def test_our_loop_equals_the_plain_model(family: str, tmp_path: Path) -> None:
    plain, encoder = from_disk(family, tmp_path)
    for lengths in (LENGTHS, (6, 6)):
        batch = collate(*rows(lengths), "cpu")
        assert ("keep" in batch) == (lengths is LENGTHS)
        expected = expected_states(plain, family, batch)
        with torch.inference_mode():
            found = states(encoder, batch)
        assert len(found) == len(expected) == LAYERS + 1
        for mine, theirs in zip(found, expected, strict=True):
            for row, length in enumerate(lengths):
                torch.testing.assert_close(mine[row, :length], theirs[row, :length], rtol=1e-5, atol=2e-5)
        assert (found[0] - found[-1]).abs().max() > 0.1, "the layers do something"


@each_family
def test_training_is_the_plain_model_s_to_the_bit(family: str, tmp_path: Path) -> None:
    """Dropout in the same places at the same rates: with one seed, equal states, or close ones for `EAGER`."""
    from transformers import AutoModel

    names = ("dropout", "attention_dropout") if family == "distilbert" else (HIDDEN_RATE, ATTENTION_RATE)
    torch.manual_seed(0)
    plain = AutoModel.from_config(config_of(family, **dict.fromkeys(names, 0.3))).train()
    plain.save_pretrained(tmp_path / "models" / "someone" / family)
    encoder = build_encoder(BackboneSpec("mine", f"someone/{family}"), mirror=tmp_path).train()
    batch = collate(*rows((9, 9)), "cpu")
    types = {"token_type_ids": batch["token_type_ids"]} if own_types(family) else {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = plain(input_ids=batch["input_ids"], attention_mask=torch.ones(2, 9), **types).last_hidden_state
        torch.manual_seed(seed)
        found = states(encoder, batch)[-1]
        if family in EAGER:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in encoder.named_parameters():
        if not name.startswith("pooler"):
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_the_pretrained_pooler_is_the_exits_pooler(family: str, tmp_path: Path) -> None:
    plain, encoder = from_disk(family, tmp_path)
    batch = collate(*rows(), "cpu")
    with torch.inference_mode():
        state = encoder.embed(batch)
        for index in range(LAYERS):
            state = encoder.layer(index, state)
        inputs = {"input_ids": batch["input_ids"], "token_type_ids": batch["token_type_ids"]}
        expected = plain(**inputs, attention_mask=batch["keep"].long()).pooler_output
        torch.testing.assert_close(encoder.pool(LAYERS - 1, state), expected, rtol=1e-5, atol=2e-5)


@each_family
def test_a_row_does_not_depend_on_the_padding_behind_it(family: str, tmp_path: Path) -> None:
    _, encoder = from_disk(family, tmp_path, pooling="mean")
    model = MultiExit(encoder, range(1, LAYERS + 1), 3).eval()
    ids, types = rows()
    with torch.inference_mode():
        together = model(collate(ids, types, "cpu"))
        for i in range(len(ids)):
            alone = model(collate(ids[i : i + 1], types[i : i + 1], "cpu"))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=2e-5)


@each_family
def test_compaction_keeps_rows_and_masks_together(family: str, tmp_path: Path) -> None:
    _, encoder = from_disk(family, tmp_path)
    batch = collate(*rows(), "cpu")
    with torch.inference_mode():
        state = encoder.layer(0, encoder.embed(batch))
        chosen = torch.tensor([1, 4])
        cut = encoder.layer(1, state.select(chosen)).hidden
        whole = encoder.layer(1, state).hidden[chosen]
    torch.testing.assert_close(cut[0, :4], whole[0, :4], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(cut[1, :2], whole[1, :2], rtol=1e-5, atol=2e-5)


@each_family
def test_a_checkpoint_is_the_same_model(family: str, tmp_path: Path) -> None:
    _, encoder = from_disk(family, tmp_path, pooling="mean")
    model = MultiExit(encoder, [2, LAYERS], 3).eval()
    save_checkpoint(model, tmp_path / "checkpoint")
    again = load_checkpoint(tmp_path / "checkpoint", encoder_from_description)
    batch = collate(*rows(), "cpu")
    with torch.inference_mode():
        assert torch.equal(model(batch), again(batch))
    inner = 2 if family == "albert" else 1
    assert again.backbone.shape(3) == EncoderShape(
        layers=LAYERS,
        hidden=HIDDEN,
        intermediate=48,
        embedding=16 if family in NARROW else HIDDEN,
        head_width=HIDDEN,
        classes=3,
        full_layers=LAYERS,
        attention=(HIDDEN * inner,) * LAYERS,
        inner=inner,
    )


@each_family
def test_bf16_is_the_same_model_up_to_its_rounding(family: str, tmp_path: Path) -> None:
    _, encoder = from_disk(family, tmp_path)
    model = MultiExit(encoder, range(1, LAYERS + 1), 2).eval()
    batch = collate(*rows(), "cpu")
    with torch.inference_mode():
        full = model(batch)
        half = model.to(torch.bfloat16)(batch)
    assert half.dtype == torch.bfloat16
    assert torch.isfinite(half).all()
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)


@each_family
def test_under_autocast_a_frozen_encoder_has_the_features_of_training(family: str) -> None:
    """No dropout, so that only the arithmetic of the modes could differ; the sums of residuals stay float32."""
    names = ("dropout", "attention_dropout") if family == "distilbert" else (HIDDEN_RATE, ATTENTION_RATE)
    torch.manual_seed(0)
    encoder = Encoder(config_of(family, **dict.fromkeys(names, 0.0)), "mean")
    for lengths in (LENGTHS, (6, 6)):
        batch = collate(*rows(lengths), "cpu")
        with torch.no_grad():
            exact = states(encoder.eval(), batch)
            with torch.autocast("cpu", torch.bfloat16):
                training = states(encoder.train(), batch)
                frozen = states(encoder.eval(), batch)
                pooled = [encoder.pool(0, State(h, batch.get("keep"), None)) for h in frozen]
        assert pooled[-1].dtype == torch.bfloat16, "autocast was on"
        for mine, theirs in zip(frozen, training, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
        # On a CPU autocast leaves a layer norm in the type of its input, which ALBERT's projection makes bf16.
        assert frozen[-1].dtype == (torch.bfloat16 if family in NARROW else torch.float32)
        torch.testing.assert_close(frozen[-1].float(), exact[-1], rtol=0.05, atol=0.05)


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_only_answers_is_the_same_up_to_rounding(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Its weights are packed where the processor gains from it; pruned heads make odd shapes."""
    _, encoder = from_disk(family, tmp_path, pooling="mean")
    encoder.keep_heads([[0, 2, 3]] * len(encoder.blocks()))
    model = MultiExit(encoder, range(1, LAYERS + 1), 2).eval().to(dtype)
    packed = ready(copy.deepcopy(model), "cpu", dtype)
    assert {layer.weight.is_mkldnn for layer in linear_layers(packed)} == {packs(dtype)}
    assert not any(layer.weight.is_mkldnn for layer in linear_layers(model))
    rounding = 1e-5 if dtype == torch.float32 else 0.05
    for lengths in (LENGTHS, (6, 6), (1,), (9,)):
        batch = collate(*rows(lengths), "cpu")
        with torch.inference_mode():
            torch.testing.assert_close(packed(batch), model(batch), rtol=rounding, atol=rounding)


def linear_layers(model: MultiExit) -> list[torch.nn.Linear]:
    return [module for module in model.backbone.modules() if isinstance(module, torch.nn.Linear)]


@each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_live_equals_replay(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Same batches, one row each, so that both run the same kernels on the same shapes: equal to the bit."""
    _, encoder = from_disk(family, tmp_path)
    model = ready(MultiExit(encoder, range(1, LAYERS + 1), 3), "cpu", dtype)
    ids, types = rows(tuple(range(2, 26)), seed=1)
    batches = [collate(ids[i : i + 1], types[i : i + 1], "cpu") for i in range(len(ids))]
    with torch.inference_mode():
        centre(model, batches)
        logits = torch.cat([model(batch) for batch in batches]).float().numpy()
    for name, thresholds in {"patience": [0, 1, 2], "confidence": [0.5, 0.7, 0.95]}.items():
        criterion = make(name)
        swept = sweep(trace_of(logits), criterion, np.array(thresholds, dtype=np.float64))
        for at, threshold in enumerate(swept.thresholds):
            found = [LiveEngine(model, criterion, threshold)(batch) for batch in batches]
            np.testing.assert_array_equal(np.concatenate([a.exit_index for a in found]), swept.exit_index[at])
            np.testing.assert_array_equal(np.concatenate([a.logits for a in found]).argmax(-1), swept.predictions[at])
        assert len(set(swept.exit_index.ravel().tolist())) == LAYERS


def centre(model: MultiExit, batches: list[dict[str, Tensor]]) -> None:
    """Exits that answer differently on different rows: heads on pooled vectors brought to mean 0, deviation 1."""
    for index, head in enumerate(model.heads):
        assert isinstance(head, torch.nn.Linear)
        pooled = []
        for batch in batches:
            state = model.backbone.embed(batch)
            for layer in range(index + 1):
                state = model.backbone.layer(layer, state)
            pooled.append(model.backbone.pool(index, state))
        values = torch.cat(pooled).float()
        weight = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(index)).to(values.device)
        weight = weight / (values.std(dim=0) + 1e-6) / head.in_features**0.5
        head.weight.copy_(weight)
        head.bias.copy_(-weight @ values.mean(dim=0))


# Size


def number_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@each_family
@pytest.mark.parametrize("layers", [None, 2])
def test_parameters_are_counted_without_the_weights(family: str, layers: int | None, tmp_path: Path) -> None:
    if family == "albert":  # its layers are shared
        layers = None
    _, encoder = from_disk(family, tmp_path, layers=layers)
    found = parameters_of(BackboneSpec("mine", f"someone/{family}", layers=layers), tmp_path, None)
    assert found == pytest.approx(number_of(encoder), abs=HIDDEN * (HIDDEN + 1))  # at most a pooler more or less


@each_family
def test_a_checkpoint_with_a_head_for_pretraining(family: str, tmp_path: Path) -> None:
    """The tensors have a prefix then. The head is neither loaded nor counted."""
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(0)
    whole = AutoModelForMaskedLM.from_config(config_of(family))
    whole.save_pretrained(tmp_path)
    spec = BackboneSpec("mine", str(tmp_path))
    encoder = build_encoder(spec)
    plain = whole.base_model.state_dict()
    for name, value in encoder.state_dict().items():
        assert name.startswith("pooler.") or torch.equal(value, plain[name]), name
    assert parameters_of(spec, None, None) == number_of(encoder) - HIDDEN * (HIDDEN + 1)  # it has no pooler


@pytest.mark.parametrize("vocabulary", [50, 3000])
def test_parameters_of_the_demo_encoder(vocabulary: int) -> None:
    spec = BACKBONES["demo-albert"]
    assert parameters_of(spec, None, vocabulary) == pytest.approx(number_of(build_encoder(spec, vocabulary)), rel=0.02)


@pytest.mark.parametrize(("name", "width"), [("resnet8", 4), ("resnet20", 16)])
def test_parameters_of_a_residual_network(name: str, width: int) -> None:
    spec = resolve_backbone(name, BackboneSettings(width=width))
    assert parameters_of(spec, None, None) == number_of(ResNet(spec.depth, spec.width, (0.5,) * 3, (0.2,) * 3))


# Registry


@pytest.mark.parametrize("name", ["roberta-base", "distilbert", "bert-base", "albert-base"])
def test_known_backbones_need_no_settings(name: str) -> None:
    assert resolve_backbone(name, BackboneSettings()) == BACKBONES[name]


def test_layers_keeps_the_first(tmp_path: Path) -> None:
    plain, encoder = from_disk("bert", tmp_path, layers=2)
    batch = collate(*rows((6, 6)), "cpu")
    expected = expected_states(plain, "bert", batch)
    with torch.inference_mode():
        torch.testing.assert_close(states(encoder, batch)[-1], expected[2], rtol=1e-5, atol=2e-5)
    assert encoder.description()["layers"] == 2


def test_what_cannot_be_cut_or_loaded_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="layers: 5; the encoder has 4, give 4 or fewer"):
        Encoder(config_of("bert"), "first", LAYERS + 1)
    with pytest.raises(ParamsError, match="take `layers` out"):
        Encoder(config_of("albert"), "first", 2)
    from transformers import AutoConfig

    AutoConfig.for_model("gpt2", n_layer=1).save_pretrained(tmp_path / "models" / "someone" / "gpt2")
    with pytest.raises(ParamsError, match="'gpt2'; known families: bert, roberta"):
        build_encoder(BackboneSpec("mine", "someone/gpt2"), mirror=tmp_path)
    (tmp_path / "models" / "someone" / "none").mkdir()
    with pytest.raises(DataError, match="HUB_MIRROR"):
        build_encoder(BackboneSpec("mine", "someone/none"), mirror=tmp_path)
