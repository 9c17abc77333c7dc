"""Recipes: each trains, keeps and freezes what it says; what it leaves out is gone, and is not run."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import InvalidLogitsError, ParamsError
from pipeline.layout import HERE
from pipeline.models.encoders.encoder import Encoder, build_encoder
from pipeline.models.encoders.families import FAMILIES
from pipeline.models.encoders.thinning import thinned
from pipeline.models.flops import encoder_flops
from pipeline.models.multi_exit import MultiExit, load_checkpoint, save_checkpoint
from pipeline.models.names import BackboneSpec
from pipeline.tasks.text.tokens import TokenStore, collate
from pipeline.training.fit import Fit, factor_at, run_fit
from pipeline.training.methods import METHODS as EVERY_METHOD
from pipeline.training.methods import load_recipe
from pipeline.training.optimisation import steps, warmup_linear
from pipeline.training.recipes import head_prune
from pipeline.training.recipes.base import Moment, Start
from pipeline.training.recipes.head_prune import _gated, head_importance, most_important
from pipeline.training.recipes.patient_distillation import layerwise, patience_loss
from pipeline.training.recipes.theseus import around, mixed
from pipeline.training.trial import DECISION, build_fit, judge
from tests.chain import Chain, chain_from_description, chain_model
from tests.prepared import prepared, trained
from tests.test_backbones import LAYERS, LENGTHS, config_of, each_family, from_disk, rows

METHODS = {name: info for name, info in EVERY_METHOD.items() if "text" in info.modalities}

OUTPUTS = 3
BATCH = collate(*rows(), "cpu")
BATCHES = [BATCH, collate([row[:-2] for row in rows()[0][:4]], [row[:-2] for row in rows()[1][:4]], "cpu")]
LABELS = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
SINGLE = [name for name, info in METHODS.items() if not info.multi_exit]


def encoder_of(family: str = "bert", seed: int = 0, layers: int = LAYERS) -> Encoder:
    torch.manual_seed(seed)
    config = config_of(family)
    config.num_hidden_layers = layers
    return Encoder(config, "first")


def start_from(parent: MultiExit | None, outputs: int = OUTPUTS, family: str = "bert", bias: float = 0.0) -> Start:
    return Start(lambda: encoder_of(family), outputs, 0.0, parent, bias)


def fine_tuned(outputs: int = OUTPUTS, family: str = "bert") -> MultiExit:
    """A single-exit model that stands for a trained one."""
    encoder = encoder_of(family)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return MultiExit(encoder, (encoder.layers,), outputs).eval()


def train(method: str, parent: MultiExit | None, folder: Path, epochs: int = 6, rate: float = 0.01) -> MultiExit:
    """Train on one batch; returns the model that was trained (not the one that is kept)."""
    recipe, better = load_recipe(method), itertools.count()
    torch.manual_seed(0)
    model = recipe.build(start_from(parent))
    recipe.change(model, recipe.decide(model, [(BATCH, LABELS)]))
    moving = {id(p) for p in recipe.trainable(model)}
    for p in [*model.parameters(), *(parent.parameters() if parent else ())]:
        p.requires_grad_(id(p) in moving)
    fit = Fit(
        model=model,
        objective=lambda m, inputs, labels, done: recipe.objective(m, inputs, labels, Moment(done, parent)),
        batches=lambda epoch: [(BATCH, LABELS)] * 4,
        steps_per_epoch=4,
        evaluate=lambda m: {"selection": float(next(better))},  # the last epoch is kept
        optimizer=torch.optim.AdamW(recipe.trainable(model), lr=rate),
        schedule=lambda done: 1.0,
        epochs=epochs,
        stop_after=epochs,
        seed=0,
        training_mode=recipe.training_mode,
        served=recipe.served(model),
    )
    run_fit(fit, folder, lambda row: None)
    return model


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before: Mapping[str, Tensor], after: torch.nn.Module) -> set[str]:
    return {name for name, value in after.state_dict().items() if not torch.equal(before[name], value)}


def counted(encoder: Encoder) -> list[int]:
    """Layers that the encoder runs from now on, in order."""
    seen: list[int] = []
    run = encoder.layer

    def layer(index: int, state: Any) -> Any:
        seen.append(index)
        return run(index, state)

    encoder.layer = layer  # type: ignore[method-assign]
    return seen


# All of them


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_is_the_one_that_is_named(method: str) -> None:
    recipe = load_recipe(method)
    assert recipe.name == method
    exits = recipe.exits(range(1, 7))
    assert len(exits) > 1 or not METHODS[method].multi_exit
    assert sum(recipe.selection_weights([layer / 6 for layer in exits])) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("task_name", ["demo-sentences", "demo-similarity"])
def test_every_recipe_from_tokens_to_a_trace(task_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train each on generated text, parents first; the checkpoint records a trace that says what was left out."""
    from pipeline.models.names import BackboneSettings, resolve_backbone
    from pipeline.models.recording import record_traces
    from pipeline.tasks.names import resolve_task
    from pipeline.tasks.task import Rows, TaskSettings

    monkeypatch.chdir(tmp_path)
    task = resolve_task(task_name, TaskSettings(rows=Rows(train=64, selection=32, report=32)))
    spec = resolve_backbone("demo-albert", BackboneSettings(layers=4))
    manifest = prepared(task, spec)
    kept = {"first_half": 2, "first_three_quarters": 3, "layer_drop": 2, "patient_distillation": 2, "theseus": 2}
    for method, info in METHODS.items():
        more = {"parent": info.parent} if info.parent else {}
        assert trained(task, manifest, spec, method, **more).layers == 4
        trace = next(record_traces(HERE.trial(method), manifest, "demo-albert", ["validation"], "cpu"))
        assert trace.all_layers == 4
        assert trace.layers[-1] == kept.get(method, 4)
        assert (trace.exits > 1) == info.multi_exit
        spent = trace.full_flops.sum() / trace.flops[:, -1].sum()
        assert (trace.last_cost <= trace.flops[:, -1]).all()
        assert (
            spent == pytest.approx(1.0)
            if method == "single_exit"
            else (spent > 1.05) == (method in {*kept, "head_prune"})
        )


# Fewer layers


@each_family
def test_some_layers_are_those_layers(family: str, tmp_path: Path) -> None:
    _, whole = from_disk(family, tmp_path)
    if family == "albert":
        with pytest.raises(Exception, match="an ALBERT of 2 groups, take `layers` out"):
            thinned(whole, [1, 3])
        return
    cut = thinned(whole, [1, 3]).eval()
    assert (cut.layers, cut.full_layers) == (2, LAYERS)
    with torch.inference_mode():
        state = whole.embed(BATCH)
        for index in (1, 3):
            state = whole.layer(index, state)
        found = cut.embed(BATCH)
        for index in range(2):
            found = cut.layer(index, found)
    assert torch.equal(found.hidden, state.hidden)
    kept = MultiExit(cut, (2,), 2)
    save_checkpoint(kept, tmp_path / "c")
    again = load_checkpoint(tmp_path / "c")
    assert (again.backbone.layers, again.backbone.full_layers) == (2, LAYERS)
    with torch.inference_mode():
        assert torch.equal(again(BATCH), kept.eval()(BATCH))


def test_an_albert_of_one_block_runs_it_less_often() -> None:
    config = config_of("albert")
    config.num_hidden_groups = 1
    whole = Encoder(config, "first").eval()
    seen = counted(cut := thinned(whole, [1, 3]).eval())
    model = MultiExit(cut, (2,), 2).eval()
    model(BATCH)
    assert seen == [0, 1]
    assert cut.chain is whole.chain


@pytest.mark.parametrize(("method", "layers"), [("first_half", 2), ("first_three_quarters", 3)])
def test_first_layers_start_as_the_pretrained_ones(method: str, layers: int) -> None:
    model = load_recipe(method).build(start_from(None))
    whole = encoder_of()
    assert model.exits == (layers,)
    assert torch.equal(
        model.backbone.chain.layer[layers - 1].output.dense.weight, whole.chain.layer[layers - 1].output.dense.weight
    )
    assert len(model.backbone.chain.layer) == layers


def test_a_dropped_layer_is_not_run_and_the_kept_ones_are_every_other(tmp_path: Path) -> None:
    recipe = load_recipe("layer_drop")
    model = recipe.build(start_from(None))
    model.train()
    seen = counted(model.backbone)
    runs = 300
    torch.manual_seed(0)
    for _ in range(runs):
        recipe.objective(model, BATCH, LABELS, Moment(0.0))
    shares = np.bincount(seen, minlength=LAYERS) / runs
    assert np.abs(shares - 0.8).max() < 0.08  # three standard deviations are 0.07

    trained = train("layer_drop", None, tmp_path)
    kept = load_checkpoint(tmp_path)
    assert kept.exits == (2,)
    for mine, theirs in ((0, 1), (1, 3)):
        ours = kept.backbone.chain.layer[mine].state_dict()
        assert all(torch.equal(ours[n], v) for n, v in trained.backbone.chain.layer[theirs].state_dict().items())
    assert torch.equal(kept.heads[0].weight, trained.heads[0].weight)


# Fewer heads


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_head_is_gone_and_the_rest_answers_as_if_it_were_silent(family: str, tmp_path: Path) -> None:
    model = fine_tuned(family=family)
    encoder = model.backbone
    kept = [[0, 2], [1], [0, 1, 2, 3], [3]]
    silent = [torch.tensor([[float(head in stay) for head in range(4)]]).expand(len(LENGTHS), 4) for stay in kept]
    with torch.inference_mode():
        expected = _gated(model, BATCH, silent)
        whole = model(BATCH)
    flops, full = encoder_flops(encoder.shape(OUTPUTS), np.array([8]), np.array([LAYERS]))
    before = model.parameter_counts()["parameters"]
    encoder.keep_heads(kept)
    with torch.inference_mode():
        torch.testing.assert_close(model(BATCH)[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)
        assert (whole - expected).abs().max() > 1e-3
    width = encoder.head_size
    query = encoder.blocks()[1].get_submodule(encoder.family.parts["query"])
    assert tuple(query.weight.shape) == (width, encoder.width)
    gone = 16 - 8
    assert before - model.parameter_counts()["parameters"] == gone * (4 * width * encoder.width + 3 * width)
    fewer, same = encoder_flops(encoder.shape(OUTPUTS), np.array([8]), np.array([LAYERS]))
    often = 2 if family == "albert" else 1  # its layers 1 and 2 are one group of two blocks, and so are 3 and 4
    per_head = 2 * 8 * 4 * encoder.width * width + 4 * 8 * 8 * width
    assert same == full
    assert flops[0, 0] - fewer[0, 0] == pytest.approx(gone * often * per_head)
    save_checkpoint(model, tmp_path)
    again = load_checkpoint(tmp_path)
    with torch.inference_mode():
        assert torch.equal(again(BATCH), model(BATCH))
    model.train()
    model(BATCH).sum().backward()  # and it can be trained


def test_importance_is_the_derivative_of_each_row_s_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model, recipe = fine_tuned(), load_recipe("head_prune")
    found = head_importance(model, [(BATCH, LABELS)], recipe)  # type: ignore[arg-type]
    monkeypatch.setattr(head_prune, "ROWS", 3)  # however many rows go at a time
    torch.testing.assert_close(head_importance(model, [(BATCH, LABELS)], recipe), found)  # type: ignore[arg-type]
    step, block, head = 1e-3, 2, 1

    def losses(factor: float) -> Tensor:
        gates = [torch.ones(len(LENGTHS), 4) for _ in range(LAYERS)]
        gates[block][:, head] = factor
        with torch.inference_mode():
            return functional.cross_entropy(_gated(model, BATCH, gates)[:, 0], LABELS.long(), reduction="none")

    slopes = (losses(1 + step) - losses(1 - step)) / (2 * step)
    assert float(found[block][head]) == pytest.approx(float(slopes.abs().mean()), rel=0.05)


def test_half_of_the_heads_go_over_the_whole_model(tmp_path: Path) -> None:
    parent = fine_tuned()
    importance = head_importance(parent, [(BATCH, LABELS)], load_recipe("head_prune"))  # type: ignore[arg-type]
    expected = [len(stay) for stay in most_important(importance, 0.5)]
    train("head_prune", parent, tmp_path, epochs=1)
    kept = load_checkpoint(tmp_path)
    assert list(kept.backbone.heads) == expected
    assert sum(expected) == 8
    assert min(expected) >= 1


@pytest.mark.parametrize("again", ["other heads", "as many of other blocks"])
def test_a_resumed_pruning_keeps_the_heads_of_its_state(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the importance may differ in its last bits, and with it the heads of a second start."""
    ids, types = rows()
    offsets = np.cumsum([0, *map(len, ids)])
    store = TokenStore(np.concatenate(ids), np.concatenate(types), offsets, LABELS.double().numpy(), np.arange(6))
    settings = {
        "modality": "text", "method": "head_prune", "metrics": ["accuracy"], "batch_size": 3, "learning_rate": 0.01,
        "seed": 1, "training": {"epochs": 3, "stop_after": 3, "warmup": 0.1, "weight_decay": 0.0, "clip_norm": 1.0},
    }  # fmt: skip
    kept = [[[0, 1], [2, 3], [0], [1, 2, 3]], [[2, 3], [0], [1, 2, 3], [0, 1]]]
    if again == "other heads":
        kept[1] = [[2, 3], [0, 1], [3], [0, 1, 2]]
    starts = iter(kept)
    monkeypatch.setattr(head_prune, "most_important", lambda importance, share: next(starts))

    def fit(folder: Path) -> Any:
        return build_fit(settings, start_from(fine_tuned()), store, store, "cpu", None, folder / DECISION)

    def kill(row: dict[str, float]) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run_fit(fit(tmp_path), tmp_path, kill)
    resumed = fit(tmp_path)
    told: list[float] = []
    run_fit(resumed, tmp_path, lambda row: told.append(row["epoch"]))
    assert told == [1, 2, 3]
    starts = iter(kept)
    whole = fit(tmp_path / "whole")
    run_fit(whole, tmp_path / "whole", lambda row: None)
    assert not moved(weights(whole.model), resumed.model)
    assert list(resumed.model.backbone.heads) == [2, 2, 1, 3]


# Distillation


def test_self_distilled_loss_by_hand() -> None:
    recipe = load_recipe("self_distilled")
    logits = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]]])
    p = torch.softmax(logits[0].double(), dim=1).numpy()
    expected = sum(float(np.sum(p[j] * np.log(p[j] / p[2]))) for j in (0, 1))
    assert float(recipe.loss(logits, torch.tensor([1.0]))) == pytest.approx(expected, rel=1e-5)
    real = torch.tensor([[[1.0], [4.0], [2.0]]])
    assert float(recipe.loss(real, torch.tensor([9.0]))) == pytest.approx(1.0 + 4.0)


@pytest.mark.parametrize("method", ["two_stage", "self_distilled"])
def test_the_frozen_part_does_not_move(method: str, tmp_path: Path) -> None:
    parent = fine_tuned()
    before = weights(parent)
    model = train(method, parent, tmp_path)
    assert not moved(before, parent)
    assert torch.equal(model.heads[-1].weight, parent.heads[-1].weight)
    with torch.inference_mode():
        assert torch.equal(model.eval()(BATCH)[:, -1], parent(BATCH)[:, 0])


def test_self_distilled_exits_near_the_last(tmp_path: Path) -> None:
    parent, recipe = fine_tuned(), load_recipe("self_distilled")
    fresh = recipe.build(start_from(parent)).eval()
    trained = train("self_distilled", parent, tmp_path, epochs=20, rate=0.05).eval()
    with torch.inference_mode():
        assert recipe.loss(trained(BATCH), LABELS) < 0.1 * recipe.loss(fresh(BATCH), LABELS)


def test_patient_loss_by_hand() -> None:
    student = [torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])]
    teacher = [torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2), torch.zeros(1, 2)]
    # Two of four layers: student layer 1 learns from teacher layer 2, (0.6, 0.8) from (0, 1); the last from none.
    assert float(patience_loss(student, teacher)) == pytest.approx(0.36 + 0.04)


def test_the_distilled_student_nears_its_teacher(tmp_path: Path) -> None:
    parent = fine_tuned()
    before = weights(parent)
    fresh = load_recipe("patient_distillation").build(start_from(parent)).eval()
    train("patient_distillation", parent, tmp_path, epochs=20)
    trained = load_checkpoint(tmp_path)
    assert trained.exits == (2,)
    assert not moved(before, parent)
    with torch.inference_mode():
        theirs, _ = layerwise(parent, BATCH)
        apart = [float(patience_loss(layerwise(student, BATCH)[0], theirs)) for student in (fresh, trained)]
    assert apart[1] < 0.5 * apart[0]


# Replacement


def test_theseus_moves_successors_alone_until_the_rate_is_1(tmp_path: Path) -> None:
    parent, recipe = fine_tuned(), load_recipe("theseus")
    model = recipe.build(start_from(parent))
    assert torch.equal(model.heads[0].weight, parent.heads[0].weight)
    own = [p for block in model.backbone.blocks() for p in block.parameters()]
    assert len(own) + len(around(model)) == len(list(model.parameters()))
    for p in parent.parameters():
        p.requires_grad_(False)
    model.train()
    recipe.objective(model, BATCH, LABELS, Moment(0.2, parent)).backward()
    assert all(p.grad is None for p in around(model))
    assert any(p.grad is not None and p.grad.any() for p in own)
    seen = counted(parent.backbone)
    recipe.objective(model, BATCH, LABELS, Moment(0.5, parent)).backward()
    assert seen == []  # at rate 1 no predecessor runs
    assert model.heads[0].weight.grad is not None
    before = weights(parent)
    trained = train("theseus", parent, tmp_path)
    assert not moved(before, parent)
    assert moved(weights(recipe.build(start_from(parent))), trained)


def test_theseus_replaces_at_the_rate_it_says() -> None:
    parent, recipe = fine_tuned(), load_recipe("theseus")
    model = recipe.build(start_from(parent))
    seen, runs = counted(model.backbone), 400
    torch.manual_seed(0)
    for _ in range(runs):
        recipe.objective(model, BATCH, LABELS, Moment(0.25, parent))
    # Each of two at 0.65; where neither is drawn, one is: 2 * 0.65 + 0.35 ** 2 successors a batch.
    assert len(seen) / runs == pytest.approx(1.3 + 0.1225, abs=0.08)


def test_modules_cover_the_predecessor() -> None:
    parent = fine_tuned()
    model = load_recipe("theseus").build(start_from(parent)).eval()
    seen = counted(parent.backbone)
    with torch.inference_mode():
        state = mixed(model.backbone, parent.backbone, [False, False], BATCH)
        assert torch.equal(model.answer(0, state), parent(BATCH)[:, 0])
        seen.clear()
        mixed(model.backbone, parent.backbone, [True, False], BATCH)
    assert seen == [2, 3]


# Regression heads


@pytest.mark.parametrize("method", [m for m, info in METHODS.items() if info.parent is None])
def test_new_regression_heads_start_at_the_mean_label(method: str) -> None:
    model = load_recipe(method).build(start_from(None, outputs=1, bias=2.7))
    assert all(head.bias.item() == pytest.approx(2.7) for head in model.heads)


@pytest.mark.parametrize("method", [m for m, info in METHODS.items() if info.parent == "single_exit"])
def test_a_head_that_was_trained_keeps_its_bias(method: str) -> None:
    parent = fine_tuned(outputs=1)
    torch.nn.init.constant_(parent.heads[0].bias, 1.5)
    biases = [h.bias.item() for h in load_recipe(method).build(start_from(parent, outputs=1, bias=2.7)).heads]
    fresh = {"patient_distillation": 2.7}.get(method, 1.5)
    assert biases == pytest.approx([2.7] * (len(biases) - 1) + [fresh])


# The loop


class KilledError(BaseException):
    """What nothing catches."""


@dataclass
class RowsOfX:
    """Selection rows of a chain, as `judge` reads them."""

    x: Tensor
    labels: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        return np.ones(len(self))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: np.ndarray, device: Any) -> dict[str, Tensor]:
        return {"x": self.x[torch.from_numpy(rows)]}

    def in_order(self) -> Iterator[np.ndarray]:
        yield np.arange(len(self))


def chain_fit(
    objective: Callable[..., Tensor] | None = None, micro_batch: int | None = None, compiler: str | None = None
) -> Fit:
    model = chain_model(3, channels=())
    recipe = load_recipe("joint")
    x, y = torch.randn(16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(16.0) % 3
    return Fit(
        model=model,
        objective=objective or (lambda m, inputs, labels, done: recipe.objective(m, inputs, labels, Moment(done))),
        batches=lambda epoch: [({"x": part}, labels) for part, labels in zip(x.split(10), y.split(10), strict=True)],
        steps_per_epoch=2,
        evaluate=lambda m: {"selection": 0.0},
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        schedule=lambda done: 1.0,
        epochs=3,
        stop_after=3,
        seed=0,
        clip_norm=0.5,
        micro_batch=micro_batch,
        compiler=compiler,
    )


EVERY_SCHEDULE = {
    "images": steps,
    **{f"warm-up {share}": warmup_linear(share) for share in (0.0, 0.1, 0.5, 0.999)},
}


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE.values(), ids=EVERY_SCHEDULE)
def test_a_run_of_any_length_trains(schedule: Callable[[float], float], tmp_path: Path) -> None:
    for total in range(1, 12):
        factors = [factor_at(schedule, step, total) for step in range(1, total + 1)]
        assert max(factors) > 0, total
        if total > 1:  # as ever
            assert factors == [schedule(step / total) for step in range(1, total + 1)]
    one, whole = chain_fit(), chain_fit()
    before = weights(one.model)
    for fit, chosen in ((one, schedule), (whole, lambda done: 1.0)):
        batches = fit.batches(1)
        alone = replace(fit, batches=lambda epoch, b=batches: b[:1], steps_per_epoch=1, epochs=1, schedule=chosen)
        run_fit(alone, tmp_path / str(chosen is schedule), lambda row: None)
    assert moved(before, one.model)
    assert not moved(weights(whole.model), one.model), "the only step goes at the full rate"


@pytest.mark.parametrize("warm", [0, 1, 3, 9])
def test_the_schedule_of_texts_is_transformers_own_one_step_later(warm: int) -> None:
    from transformers import get_linear_schedule_with_warmup

    total, optimizer = 10, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, warm, total)
    rates = []
    for _ in range(total + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = [factor_at(warmup_linear(warm / total), step, total) for step in range(1, total + 1)]
    assert ours == pytest.approx(rates[1:])


NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "best", "run"),
    [
        ([NAN, 0.2, 0.1], 2, 3),
        ([0.1, NAN, 0.2], 3, 3),
        ([0.2, NAN, 0.1], 1, 3),
        ([NAN, NAN, NAN, NAN], 1, 3),
        ([NAN, NAN, 0.1, 0.3], 4, 4),
        ([-0.4, NAN, -0.2, NAN, NAN], 3, 5),
        ([0.1, NAN, NAN, 0.2], 1, 3),  # an epoch without a score is no better one: training stops
    ],
)
@pytest.mark.parametrize("killed", [False, True])
def test_the_weights_of_the_epoch_that_is_reported_are_kept(
    scores: list[float], best: int, run: int, killed: bool, tmp_path: Path
) -> None:
    """Also where the process died behind each epoch."""
    after: list[dict[str, Tensor]] = []

    def evaluate(model: MultiExit) -> dict[str, float]:
        after.append(weights(model))
        return {"selection": scores[len(after) - 1]}

    died: set[float] = set()

    def stop(row: dict[str, float]) -> None:
        if killed and row["epoch"] not in died:
            died.add(row["epoch"])
            raise KilledError

    def fit() -> Fit:
        return replace(chain_fit(), evaluate=evaluate, epochs=len(scores), stop_after=2)

    result = None
    while result is None:
        with suppress(KilledError):
            result = run_fit(fit(), tmp_path, stop)
    assert (result["best_epoch"], result["epochs_run"]) == (best, run)
    assert result["selection"] == (None if math.isnan(scores[best - 1]) else scores[best - 1])
    assert not moved(after[best - 1], load_checkpoint(tmp_path, chain_from_description))


def test_a_kill_between_the_state_and_the_weights_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after: list[dict[str, Tensor]] = []

    def evaluate(model: MultiExit) -> dict[str, float]:
        after.append(weights(model))
        return {"selection": 1.0 / len(after) if len(after) > 2 else float(len(after))}

    def killed(model: MultiExit, folder: Path) -> None:
        if len(after) == 2:
            raise KilledError
        save_checkpoint(model, folder)

    def fit() -> Fit:
        return replace(chain_fit(), evaluate=evaluate)

    monkeypatch.setattr("pipeline.training.fit.save_checkpoint", killed)
    with pytest.raises(KilledError):
        run_fit(fit(), tmp_path, lambda row: None)
    monkeypatch.undo()
    assert run_fit(fit(), tmp_path, lambda row: None)["best_epoch"] == 2
    assert not moved(after[1], load_checkpoint(tmp_path, chain_from_description))


def test_a_state_of_another_model_starts_over(tmp_path: Path) -> None:
    def kill(row: dict[str, float]) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run_fit(chain_fit(), tmp_path, kill)
    other = chain_model(3, layers=4, channels=())
    fit = replace(chain_fit(), model=other, optimizer=torch.optim.SGD(other.parameters(), lr=0.1))
    assert run_fit(fit, tmp_path, lambda row: None)["epochs_run"] == 3
    assert len(load_checkpoint(tmp_path, chain_from_description).exits) == 4


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("metrics", [("accuracy",), ("accuracy", "f1"), ("pearson", "spearman")])
def test_answers_that_are_not_finite_are_no_answers(metrics: tuple[str, ...], bad: float) -> None:
    outputs = 1 if "pearson" in metrics else 2
    model, recipe = chain_model(outputs, channels=()), load_recipe("joint")
    rows = RowsOfX(torch.randn(20, 16, generator=torch.Generator().manual_seed(0)), np.arange(20.0) % 2)
    assert abs(judge(model, recipe, rows, metrics, "cpu")["selection"]) <= 1
    with torch.no_grad():
        model.heads[2].bias[-1] = bad
    with pytest.raises(InvalidLogitsError, match=r"^logits of 20 of 20 selection rows are not finite, .*; lower the"):
        judge(model, recipe, rows, metrics, "cpu")


def test_a_channel_that_is_not_finite_is_no_answer() -> None:
    model, recipe = chain_model(2), load_recipe("berxit")
    rows = RowsOfX(torch.randn(20, 16, generator=torch.Generator().manual_seed(0)), np.arange(20.0) % 2)
    assert 0 < judge(model, recipe, rows, ("accuracy",), "cpu")["selection"] < 1
    torch.nn.init.constant_(model.channels["lte"].bias, NAN)
    with pytest.raises(InvalidLogitsError, match=r"^lte of 20 of 20 selection rows"):
        judge(model, recipe, rows, ("accuracy",), "cpu")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_model_that_diverges_fails_with_one_line(epoch: int, tmp_path: Path) -> None:
    """Its loss may still be finite: the last step of an epoch is seen by the judge alone."""
    base, seen = chain_fit(), []

    def objective(model: MultiExit, inputs: Any, labels: Tensor, done: float) -> Tensor:
        loss = base.objective(model, inputs, labels, done)
        seen.append(done)
        return loss * (NAN if len(seen) == 2 * epoch else 1.0)

    with pytest.raises(InvalidLogitsError, match=rf"^epoch {epoch}: the training loss is nan, .*; lower the learning"):
        run_fit(replace(chain_fit(), objective=objective), tmp_path, lambda row: None)


def close(one: Fit, other: Fit) -> None:
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_accumulated_gradients_are_the_batch_s(tmp_path: Path) -> None:
    whole, parted = chain_fit(), chain_fit(micro_batch=3)
    before = copy.deepcopy(whole.model)
    assert run_fit(whole, tmp_path / "a", lambda row: None)["micro_batch"] is None
    assert run_fit(parted, tmp_path / "b", lambda row: None)["micro_batch"] == 3
    close(whole, parted)
    assert not torch.equal(before.heads[0].weight, whole.model.heads[0].weight)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_encoder_is_one_graph_and_answers_as_before(family: str) -> None:
    encoder = encoder_of(family)
    model = MultiExit(encoder, range(1, encoder.layers + 1), OUTPUTS).train()
    torch.manual_seed(0)
    expected = [model(batch) for batch in BATCHES]
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model.compile(dynamic=True, backend=backend)
    torch.manual_seed(0)
    for batch, logits in zip(BATCHES, expected, strict=True):
        torch.testing.assert_close(model(batch), logits)
    assert len(graphs) == 1, "a whole forward pass, for every shape of batch"


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_weights(tmp_path: Path) -> None:
    plain, compiled = chain_fit(), chain_fit(compiler="aot_eager")
    run_fit(plain, tmp_path / "a", lambda row: None)
    run_fit(compiled, tmp_path / "b", lambda row: None)
    assert compiled.model._compiled_call_impl is not None
    close(plain, compiled)


def test_compiling_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ParamsError, match=r"training.compile: true needs a C\+\+ compiler \(no-such-compiler\)"):
        run_fit(chain_fit(compiler="inductor"), tmp_path, lambda row: None)


def test_a_batch_that_does_not_fit_is_parted(tmp_path: Path) -> None:
    recipe = load_recipe("joint")

    def crowded(model: MultiExit, inputs: Any, labels: Tensor, done: float) -> Tensor:
        if len(labels) > 4:
            raise torch.OutOfMemoryError("no room")
        return recipe.objective(model, inputs, labels, Moment(done))

    whole, parted = chain_fit(), chain_fit(crowded)
    run_fit(whole, tmp_path / "a", lambda row: None)
    assert run_fit(parted, tmp_path / "b", lambda row: None)["micro_batch"] == 3
    close(whole, parted)


def test_a_row_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    def full(model: MultiExit, inputs: Any, labels: Tensor, done: float) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        run_fit(chain_fit(full), tmp_path, lambda row: None)


def test_an_own_backbone_needs_no_library() -> None:
    assert isinstance(chain_model(2).backbone, Chain)
    assert build_encoder(BackboneSpec("demo", None), 100).layers == 12
