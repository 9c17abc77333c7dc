"""Regimes: the settings of an entry of `methods` train what they say, are told apart by their keys, or are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import sweep
from pipeline.layout import HERE
from pipeline.models.encoders.encoder import Encoder, Poolers
from pipeline.models.flops import encoder_flops
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint, save_checkpoint
from pipeline.params import Params
from pipeline.results import Inputs
from pipeline.tasks.text.tokens import TokenStore, collate
from pipeline.training.equilibrium import balanced
from pipeline.training.groups import Study, groups_of
from pipeline.training.methods import load_recipe
from pipeline.training.plan import Plan
from pipeline.training.recipes.base import Moment, exit_losses
from pipeline.training.regimes import MethodSettings, resolve_methods
from pipeline.training.trial import build_fit
from tests.chain import chain_model
from tests.prepared import prepared, trained
from tests.test_backbones import LAYERS, centre, each_family, from_disk, rows
from tests.test_criteria import trace_of
from tests.test_images import manifest_of
from tests.test_recipes import BATCH, LABELS, OUTPUTS, encoder_of, fine_tuned, start_from, train, weights

# Weights of the exits' losses


@pytest.mark.parametrize(
    ("regime", "expected"),
    [({}, [1, 2, 3, 4]), ({"weights": "uniform"}, [1, 1, 1, 1]), ({"weights": "descending"}, [4, 3, 2, 1])],
)
def test_weights_of_the_losses_and_of_the_scores(regime: dict[str, str], expected: list[int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 4, OUTPUTS)
    recipe = load_recipe("joint", regime)
    losses = exit_losses(logits, LABELS)
    shares = torch.tensor(expected) / sum(expected)
    torch.testing.assert_close(recipe.loss(logits, LABELS), (shares * losses).sum())
    assert recipe.selection_weights([0.25, 0.5, 0.75, 1.0]) == pytest.approx(shares.tolist())
    torch.testing.assert_close(load_recipe("joint").loss(logits, LABELS), (torch.arange(1, 5) / 10 * losses).sum())


def test_alternating_takes_the_last_exit_and_all_by_turns() -> None:
    model = chain_model(OUTPUTS, channels=())
    ids, types = rows()
    store = TokenStore(
        np.concatenate(ids),
        np.concatenate(types),
        np.cumsum([0, *map(len, ids)]),
        LABELS.double().numpy(),
        np.arange(6),
    )
    settings = {
        "modality": "text", "method": "alternating", "metrics": ["accuracy"], "batch_size": 2, "learning_rate": 0.01,
        "seed": 1, "training": {"epochs": 5, "stop_after": 3, "warmup": 0.1, "weight_decay": 0.0, "clip_norm": 1.0},
    }  # fmt: skip
    fit = build_fit(settings, start_from(None), store, store, "cpu")
    losses = exit_losses(model({"x": torch.ones(6, 16)}), LABELS)
    steps = fit.steps_per_epoch * fit.epochs
    assert steps == 15
    for step in range(1, steps + 1):
        loss = fit.objective(model, {"x": torch.ones(6, 16)}, LABELS, step / steps)
        torch.testing.assert_close(loss, losses[-1] if step % 2 else losses.sum())


def test_mixed_goes_on_from_the_fine_tuned_model_and_moves_all_of_it(tmp_path: Path) -> None:
    parent = fine_tuned()
    before = weights(parent)
    fresh = load_recipe("mixed").build(start_from(parent))
    assert fresh.exits == tuple(range(1, LAYERS + 1))
    with torch.inference_mode():
        assert torch.equal(fresh.eval()(BATCH)[:, -1], parent(BATCH)[:, 0])
    model = train("mixed", parent, tmp_path)
    after = model.state_dict()
    still = {name for name in before if name.startswith("backbone.") and torch.equal(before[name], after[name])}
    assert not {name for name in still if not name.endswith("key.bias")}  # attention cancels those
    assert torch.equal(load_checkpoint(tmp_path).heads[0].weight, model.heads[0].weight)


# Gradient equilibrium


def gradients(model: MultiExit, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_layer_s_gradient_is_the_mean_over_the_exits_behind_it() -> None:
    model, batch = chain_model(OUTPUTS, layers=4, channels=()), {"x": torch.randn(6, 16)}
    assert torch.equal(balanced(model, batch), model(batch))
    recipe = load_recipe("joint", {"gradients": "equilibrium", "weights": "descending"})
    mine = gradients(model, recipe.objective(model, batch, LABELS, Moment(0.0)))
    plain = load_recipe("joint", {"weights": "descending"})
    each = [gradients(model, (4 - j) / 10 * exit_losses(model(batch), LABELS)[j]) for j in range(4)]
    total = gradients(model, plain.objective(model, batch, LABELS, Moment(0.0)))
    for layer in range(4):
        name = f"backbone.linear.{layer}.weight"
        behind = [one[name] for one in each[layer:]]
        torch.testing.assert_close(mine[name], torch.stack(behind).sum(dim=0) / len(behind))
        torch.testing.assert_close(mine[f"heads.{layer}.weight"], total[f"heads.{layer}.weight"])
    assert not torch.allclose(mine["backbone.linear.0.weight"], total["backbone.linear.0.weight"])


def test_equilibrium_leaves_a_shared_pooler_s_gradient_as_it_is() -> None:
    model = MultiExit(encoder_of(), range(1, LAYERS + 1), OUTPUTS).eval()
    mine = gradients(model, load_recipe("joint", {"gradients": "equilibrium"}).loss(balanced(model, BATCH), LABELS))
    plain = gradients(model, load_recipe("joint").loss(model(BATCH), LABELS))
    torch.testing.assert_close(mine["backbone.pooler.weight"], plain["backbone.pooler.weight"])
    first = "backbone.encoder.layer.0.output.dense.weight"
    assert float(mine[first].norm()) < float(plain[first].norm())


# Heads


def test_own_poolers_start_as_the_shared_one_and_are_trained_apart(tmp_path: Path) -> None:
    shared, own = (MultiExit(encoder_of(), range(1, LAYERS + 1), OUTPUTS) for _ in range(2))
    own.heads.load_state_dict(shared.heads.state_dict())
    own.backbone.part_poolers("own_pooler")
    with torch.inference_mode():
        assert torch.equal(shared.eval()(BATCH), own.eval()(BATCH))
    pooler = sum(p.numel() for p in shared.backbone.pooler.parameters())
    early = (LAYERS - 1) * pooler
    assert own.parameter_counts()["early_exit_parameters"] == early + shared.parameter_counts()["early_exit_parameters"]
    assert own.parameter_counts()["parameters"] == early + shared.parameter_counts()["parameters"]
    found = gradients(own, exit_losses(own(BATCH), LABELS)[1])
    assert {name.split(".")[2] for name, value in found.items() if "own_poolers" in name and value.any()} == {"1"}
    with pytest.raises(ValueError, match="own_pooler"):
        own.backbone.part_poolers("linear")


@each_family
@pytest.mark.parametrize("heads", ["own_pooler", "linear"])
def test_heads_are_stored_and_live_equals_replay(heads: Poolers, family: str, tmp_path: Path) -> None:
    _, encoder = from_disk(family, tmp_path)
    encoder.part_poolers(heads)
    made = MultiExit(encoder, range(1, LAYERS + 1), OUTPUTS).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "own_poolers" in name:
                parameter.add_(torch.randn(parameter.shape))
    save_checkpoint(made, tmp_path / "c")
    model = load_checkpoint(tmp_path / "c")
    with torch.inference_mode():
        logits = model(BATCH)
        assert torch.equal(logits, made(BATCH))
        state = encoder.layer(0, encoder.embed(BATCH))
        if heads == "linear":
            assert torch.equal(encoder.pool(0, state), encoder.summary(state))
    ids, types = rows(tuple(range(2, 14)), seed=1)
    batches = [collate(ids[i : i + 1], types[i : i + 1], "cpu") for i in range(len(ids))]
    with torch.inference_mode():
        centre(model, batches)
        replayed = sweep(trace_of(torch.cat([model(batch) for batch in batches]).numpy()), make("patience"))
    assert len({*replayed.exit_index.ravel().tolist()}) > 2
    for threshold, exits in zip(replayed.thresholds, replayed.exit_index, strict=True):
        engine = LiveEngine(model, make("patience"), float(threshold))
        assert [int(engine(batch).exit_index[0]) for batch in batches] == exits.tolist()


def test_linear_heads_cost_no_pooler() -> None:
    def flops(heads: Poolers) -> np.ndarray:
        encoder: Encoder = encoder_of()
        if heads != "shared_pooler":
            encoder.part_poolers(heads)
        return encoder_flops(encoder.shape(OUTPUTS), np.array([8]), np.arange(1, LAYERS + 1))[0][0]

    width = encoder_of().width
    np.testing.assert_array_equal(flops("own_pooler"), flops("shared_pooler"))
    saved = flops("shared_pooler") - flops("linear")
    np.testing.assert_allclose(saved, 2 * width * width * np.arange(1, LAYERS + 1))


def test_two_stages_train_the_early_exits_own_poolers_and_nothing_else(tmp_path: Path) -> None:
    parent = fine_tuned()
    with torch.inference_mode():
        expected = parent(BATCH)[:, 0]
    parent.backbone.part_poolers("own_pooler")
    before = weights(parent)
    model = train("two_stage", parent, tmp_path)
    after = model.state_dict()
    changed = {name for name in before if name.startswith("backbone.") and not torch.equal(before[name], after[name])}
    assert {name.split(".")[2] for name in changed} == {str(layer) for layer in range(LAYERS - 1)}
    with torch.inference_mode():
        assert torch.equal(model.eval()(BATCH)[:, -1], expected)


# From params.yaml to trials


def study_of(methods: Any) -> Study:
    params = Params.model_validate(
        {"tasks": {"demo-sentences": {}, "demo-images": {}}, "backbones": {"demo-albert": {}, "resnet14": {}}}
        | {"methods": methods}
    )
    text = manifest_of({}).model_copy(
        update={"modality": "text", "inputs": {"demo-albert": Inputs(hash="t", splits={}, vocabulary=9)}}
    )
    tasks = [(params.task("demo-sentences"), text), (params.task("demo-images"), manifest_of({}))]
    entries = [*params.entries().values()]
    code = {(kind, entry.info.name): "c" for entry in entries for kind in entry.modalities}
    backbones = [params.backbone(name) for name in params.backbones]
    empty = dict.fromkeys(params.backbones, "")
    return Study(tasks, backbones, entries, params.grids(), params.trainings(), empty, code)


def test_a_list_and_names_without_settings_are_one_and_defaults_are_in_no_key() -> None:
    plain = ["single_exit", "joint", "alternating"]
    written = {"single_exit": {}, "joint": {"weights": "ascending"}, "alternating": {"weights": "uniform"}}
    listed, named = groups_of(study_of(plain)), groups_of(study_of(written))
    assert listed == named
    assert all("regime" not in group.settings for group in listed)


def test_each_regime_has_groups_and_keys_of_its_own() -> None:
    entries = {
        "single_exit": {}, "plain": {"recipe": "single_exit", "heads": "linear"}, "joint": {}, "berxit": {},
        "even": {"recipe": "joint", "weights": "uniform"}, "own": {"recipe": "two_stage", "heads": "own_pooler"},
        "mixed_plain": {"recipe": "mixed", "parent": "plain"}, "berxit_even": {"recipe": "berxit", "parent": "even"},
    }  # fmt: skip
    groups = groups_of(study_of(entries))
    names = {group.name: group for group in groups}
    images = [name.rpartition("/")[2] for name in names if name.startswith("demo-images")]
    assert images == ["single_exit", "joint", "even"]  # heads are of texts, and so is what starts from them
    assert names["demo-sentences/demo-albert/mixed_plain"].parent == "demo-sentences/demo-albert/plain"
    assert names["demo-sentences/demo-albert/berxit_even"].parent == "demo-sentences/demo-albert/even"
    own = names["demo-sentences/demo-albert/own"]
    assert (own.settings["method"], own.settings["regime"]) == ("two_stage", {"heads": "own_pooler"})
    plan = Plan(tuple(groups), (1,))
    keys = [plan.grid(group, group.parent)[0].key for group in groups]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"joint": {"weights": "rising"}}, "'ascending', 'uniform' or 'descending'"),
        ({"even": {"weights": "uniform"}}, "methods: unknown method 'even'"),
        ({"even": {"recipe": "jiont"}}, "methods.even.recipe: unknown method 'jiont'; did you mean 'joint'"),
        ({"joint": {"weights": "uniform"}}, "methods.joint: .* give it another name, with recipe: joint"),
        ({"joint": {"recipe": "mixed"}, "single_exit": {}}, "methods.joint: .* with recipe: mixed"),
        ({"a": {"recipe": "single_exit", "weights": "uniform"}}, "a.weights: 'uniform' means nothing to single_exit"),
        ({"a": {"recipe": "alternating", "gradients": "equilibrium"}}, "methods.a.gradients: .* one of joint, mixed"),
        ({"a": {"recipe": "shallow_deep", "heads": "linear"}}, "a.heads: 'linear' means nothing to shallow_deep"),
        ({"a": {"recipe": "single_exit", "heads": "own_pooler"}}, "methods.a.heads: .* a model with one exit"),
        ({"a": {"recipe": "mixed", "heads": "linear"}}, "methods.a.heads: .* set heads of the parent"),
        ({"a": {"recipe": "joint", "parent": "single_exit"}}, "a.parent: 'single_exit'; joint starts from no other"),
        ({"mixed": {}}, "methods: 'mixed' starts from 'single_exit'; add 'single_exit'"),
        ({"joint": {}, "a": {"recipe": "mixed", "parent": "joint"}}, "methods.a.parent: 'joint' is no start for mixed"),
        (
            {"single_exit": {}, "a": {"recipe": "berxit", "parent": "single_exit"}},
            "'single_exit' is no start for berxit; name one that trains early exits alone, such as joint",
        ),
        (
            {"l": {"recipe": "single_exit", "heads": "linear"},
             "a": {"recipe": "two_stage", "parent": "l", "heads": "own_pooler"}},
            "methods.a.heads: 'own_pooler', but its parent 'l' has no pooler",
        ),
        ({"joint": {}, "a": {"recipe": "joint", "weights": "ascending"}}, "'a' is 'joint' under another name"),
        ({"shallow_deep": {}, "a": {"recipe": "berxit", "parent": "shallow_deep"}}, "no start for berxit"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_in_one_line(entries: dict[str, Any], message: str) -> None:
    with pytest.raises((ParamsError, ValueError), match=message) as refused:
        resolve_methods({name: MethodSettings.model_validate(given) for name, given in entries.items()})
    assert isinstance(refused.value, ParamsError) == ("rising" not in str(entries))
    assert not isinstance(refused.value, ParamsError) or "\n" not in str(refused.value)


def test_regimes_from_tokens_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.models.names import BackboneSettings, resolve_backbone
    from pipeline.tasks.names import resolve_task
    from pipeline.tasks.task import Rows, TaskSettings

    monkeypatch.chdir(tmp_path)
    task = resolve_task("demo-sentences", TaskSettings(rows=Rows(train=64, selection=32, report=32)))
    spec = resolve_backbone("demo-albert", BackboneSettings(layers=3))
    manifest = prepared(task, spec)
    trained(task, manifest, spec, "joint", regime={"heads": "own_pooler", "gradients": "equilibrium"})
    trained(task, manifest, spec, "single_exit", regime={"heads": "linear"})
    trained(task, manifest, spec, "two_stage", parent="single_exit")
    found = {name: load_checkpoint(HERE.trial(name)) for name in ("joint", "single_exit", "two_stage")}
    assert [model.backbone.poolers for model in found.values()] == ["own_pooler", "linear", "linear"]
    poolers = [pooler.weight for pooler in found["joint"].backbone.own_poolers]
    assert not torch.equal(poolers[0], poolers[1])
