"""BERxiT's learned exit: its loss by hand, what is trained and what is not, and the way from training to live."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from pipeline.errors import ParamsError
from pipeline.evaluation.choosing import Window
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.sweep import sweep
from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint, save_checkpoint
from pipeline.params import load_params
from pipeline.training.fit import Fit, run_fit
from pipeline.training.methods import METHODS, load_recipe
from pipeline.training.recipes.base import Moment, Start
from tests.chain import chain_from_description, chain_model
from tests.prepared import prepared, trained


def berxit_on(parent: MultiExit) -> MultiExit:
    return load_recipe("berxit").build(Start(lambda: None, parent.outputs, 0.1, parent))


def test_the_registry_knows_what_records_what() -> None:
    for name, criterion in CRITERIA.items():
        if criterion.recorded_by:
            assert criterion.reads in METHODS[criterion.recorded_by].channels, name


def test_loss_by_hand() -> None:
    recipe = load_recipe("berxit")
    logits = torch.tensor([[[2.0, 1.0], [0.0, 3.0]]])  # exit 1 says class 0, exit 2 class 1
    said = torch.cat([logits, torch.tensor([[[0.9], [0.4]]])], dim=2)
    right_then_wrong = recipe.loss(said, torch.tensor([0.0]))
    assert float(right_then_wrong) == pytest.approx(((0.9 - 1) ** 2 + 0.4**2) / 2)
    near = torch.tensor([[[2.0, 0.9]]])
    assert float(recipe.loss(near, torch.tensor([2.5]))) == pytest.approx((0.9 - (1 - np.tanh(0.5))) ** 2)


def test_the_head_alone_learns() -> None:
    parent = chain_model(3, channels=())
    model, recipe = berxit_on(parent), load_recipe("berxit")
    moved = recipe.trainable(model)
    assert sorted(p.numel() for p in moved) == [1, 16]
    x = {"x": torch.randn(8, 16)}
    recipe.training_mode(model)
    assert not model.training
    recipe.objective(model, x, torch.zeros(8), Moment(0.0)).backward()
    assert all(p.grad is not None for p in moved)
    assert all(p.grad is None or not p.grad.any() for head in model.heads for p in head.parameters())
    with torch.inference_mode():
        assert torch.equal(model(x), parent(x))  # the classifiers are the parent's
    assert model.parameter_counts()["early_exit_parameters"] == 5 * (16 * 3 + 3) + 17


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = berxit_on(chain_model(3, channels=()))
    save_checkpoint(model.eval(), tmp_path)
    again = load_checkpoint(tmp_path, chain_from_description)
    x = {"x": torch.randn(8, 16)}
    with torch.inference_mode():
        logits, said = model.record(x, ["lte"])
        logits_again, said_again = again.record(x, ["lte"])
    assert torch.equal(logits, logits_again)
    assert torch.equal(said["lte"], said_again["lte"])
    assert said["lte"].shape == (8, 6)


def test_a_checkpoint_of_before_channels_still_loads(tmp_path: Path) -> None:
    save_checkpoint(chain_model(3, channels=()), tmp_path)
    about = (tmp_path / "model.json").read_text(encoding="utf-8")
    (tmp_path / "model.json").write_text(about.replace(' "channels": [],\n', ""), encoding="utf-8")
    assert "channels" not in (tmp_path / "model.json").read_text(encoding="utf-8")
    assert list(load_checkpoint(tmp_path, chain_from_description).channels) == []


def test_shared_heads_need_one_width() -> None:
    class Widening(nn.Module):
        layers = 2

        def widths(self) -> list[int]:
            return [4, 8]

    with pytest.raises(ValueError, match="different widths"):
        MultiExit(Widening(), [1, 2], 3, channels=["lte"])


def test_training_learns_when_an_exit_is_right(tmp_path: Path) -> None:
    """An exit that is right exactly where its first hidden unit is positive: the head must find that unit."""
    parent = chain_model(3, layers=1, channels=())
    model, recipe = berxit_on(parent), load_recipe("berxit")
    x = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right = parent.backbone.layer(0, parent.backbone.embed({"x": x})).hidden[:, 0] > 0
        answers = parent({"x": x})[:, 0].argmax(-1)
        labels = torch.where(right, answers, (answers + 1) % 3).float()

    def evaluate(model: MultiExit) -> dict[str, float]:
        with torch.inference_mode():
            logits, said = model.record({"x": x}, model.channels)
        return {"selection": recipe.selection(logits, said, labels) or 0.0}

    fit = Fit(
        model=model,
        objective=lambda model, inputs, labels, done: recipe.objective(model, inputs, labels, Moment(done)),
        batches=lambda epoch: [({"x": part}, y) for part, y in zip(x.split(64), labels.split(64), strict=True)],
        steps_per_epoch=8,
        evaluate=evaluate,
        optimizer=torch.optim.AdamW(recipe.trainable(model), lr=0.05),
        schedule=lambda done: 1.0,
        epochs=20,
        stop_after=20,
        seed=0,
        training_mode=recipe.training_mode,
    )
    assert run_fit(fit, tmp_path, lambda row: None)["selection"] > 0.9
    with torch.inference_mode():
        _, said = load_checkpoint(tmp_path, chain_from_description).record({"x": x}, ["lte"])
    assert float(((said["lte"][:, 0] > 0.5) == right).float().mean()) > 0.95


def demo_params(path: Path, change: Callable[[dict[str, Any]], object]) -> Any:
    """The demo profile with a change, validated."""
    raw = yaml.safe_load((ROOT / "profiles/demo.yaml").read_text(encoding="utf-8"))
    change(raw)
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return load_params(path)


def test_params_name_any_criterion_that_a_method_serves(tmp_path: Path) -> None:
    every: dict[str, dict[str, float]] = {name: {} for name in CRITERIA}

    def all_of_them(raw: dict[str, Any]) -> None:
        raw["methods"] = ["single_exit", "joint", "berxit"]
        raw["evaluate"]["criteria"] = every

    assert set(demo_params(tmp_path / "p.yaml", all_of_them).evaluate.criteria) == set(CRITERIA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["evaluate"]["criteria"].update(learned={}), r"'learned' reads .* add 'berxit' to methods"),
        (lambda raw: raw.update(methods=["single_exit", "berxit"]), "'berxit' starts from 'joint'; add 'joint'"),
        (lambda raw: raw["attack"].update(criteria=["oracle"]), r"attack\.criteria: 'oracle' is a bound"),
        (lambda raw: raw["evaluate"]["criteria"].update(voting={"power": 2.0}), r"voting\.power: 2\.0 is not in"),
        (lambda raw: raw["evaluate"]["criteria"].update(temperature={"temperatures": 1.0}), "unknown setting of temp"),
    ],
)
def test_params_refuse_what_cannot_run(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        demo_params(tmp_path / "p.yaml", change)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo-sentences", "demo-similarity"])
def test_from_text_to_live(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train joint and berxit on generated text, record, write and read the trace, choose a threshold, run it live."""
    from pipeline.evaluation.trace import load_trace, save_trace
    from pipeline.models.names import BackboneSettings, resolve_backbone
    from pipeline.models.recording import record_traces
    from pipeline.tasks.names import resolve_task
    from pipeline.tasks.task import Rows, TaskSettings
    from pipeline.tasks.text.tokens import TokenStore

    monkeypatch.chdir(tmp_path)
    task = resolve_task(name, TaskSettings(rows=Rows(train=160, selection=64, report=64)))
    spec = resolve_backbone("demo-albert", BackboneSettings(layers=3))
    manifest = prepared(task, spec)
    trained(task, manifest, spec, "joint")
    score = trained(task, manifest, spec, "berxit", parent="joint").selection
    assert score is not None
    assert 0 < score <= 1

    traces = {}
    for split in ("selection", "validation"):
        save_trace(
            next(record_traces(HERE.trial("berxit"), manifest, "demo-albert", [split], "cpu")),
            tmp_path / f"{split}.safetensors",
        )
        traces[split] = load_trace(tmp_path / f"{split}.safetensors")
        plain = next(record_traces(HERE.trial("joint"), manifest, "demo-albert", [split], "cpu"))
        np.testing.assert_array_equal(traces[split].logits, plain.logits)
        assert plain.channels == {}
    trace = traces["validation"]
    assert trace.channels["lte"].shape == (64, 3)
    assert ((trace.channels["lte"] > 0) & (trace.channels["lte"] < 1)).all()

    evaluated = evaluate_group(
        Group("demo-albert", "berxit", True, (SeedTraces(1, "berxit", traces),)),
        {"learned": {}, "confidence": {}, "temperature": {}, "oracle": {}},
        task.metrics,
        Window(1.0, 3.0),
    )
    regression = ["learned", "oracle"]
    shown = regression if task.kind == "regression" else ["learned", "confidence", "temperature", "oracle"]
    assert [row.criterion for row in evaluated.rows] == [None, *shown]
    assert {point.criterion for point in evaluated.curves} == set(shown)
    if task.kind == "classification":
        assert len(evaluated.rows[3].point("berxit").fitted["temperatures"]) == 3

    model = load_checkpoint(HERE.trial("berxit"))
    store = TokenStore.open(HERE.tokens(name, "demo-albert", "validation"))
    first = np.sort(trace.channels["lte"][:, 0].astype(np.float64))
    threshold = (first[31] + first[32]) / 2  # half of the rows leave at exit 1
    swept = sweep(trace, make("learned"), np.array([threshold]))
    assert (swept.exit_index[0] == 0).sum() == 32
    live = LiveEngine(model, make("learned"), threshold)
    found = [live(store.batch([i], "cpu")).exit_index for i in range(64)]
    # One row at a time and in the batches of recording, products round differently: a row at the threshold may differ.
    assert int((np.concatenate(found) != swept.exit_index[0]).sum()) <= 1
