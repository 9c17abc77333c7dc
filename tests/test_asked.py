"""What is asked of a model, and what it says: one rule and one form for every engine that answers."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.commands.ask import Opened, explain, predict
from pipeline.commands.ask_lines import explanation_as_json, lines_of
from pipeline.commands.served import Engine, Graphs, PyTorch
from pipeline.errors import ArtifactError, InvalidLogitsError, ParamsError, PipelineError
from pipeline.evaluation.asked import ALL, FULL, Decision, asked, decision_of
from pipeline.evaluation.criteria import make
from pipeline.evaluation.point import point_of
from pipeline.evaluation.trace import Trace
from pipeline.models.deploy.folder import DESCRIPTION, TOKENIZER
from pipeline.models.deploy.runtime import Deployed, answers_of
from pipeline.models.multi_exit import MultiExit
from pipeline.results import Manifest
from pipeline.serving.http import Service
from pipeline.serving.requests import BATCH, Asked, Limits, Said, check_request
from pipeline.serving.settings import Serving, WatchSettings
from pipeline.serving.watch import PromiseWatch
from pipeline.tasks.text.tokens import load_tokenizer
from tests.exported_folders import texts
from tests.replayed import residual_model
from tests.selections import group_of
from tests.test_deploy import text_model
from tests.test_serving_http import ask

LABELS = ("bad", "so-so", "good")


def fitted(name: str, settings: Mapping[str, float] | None = None) -> Any:
    """A criterion that learned from random rows of a model of four exits and three classes."""
    random = np.random.default_rng(0)
    depth = np.arange(1.0, 5.0)
    trace = Trace(
        "classification", random.normal(size=(60, 4, 3)).astype(np.float32), random.integers(0, 3, 60) * 1.0,
        np.arange(60), depth, np.tile(depth, (60, 1)), np.full(60, 4.0), channels={},
    )  # fmt: skip
    return make(name, settings).fit(trace)


CHOSEN: dict[str, tuple[Any, Mapping[str, float], float]] = {
    "patience": (make("patience"), {}, 1.0),
    "voting": (make("voting"), {}, 1.2),
    "patient_confidence": (make("patient_confidence", {"tau": 0.5}), {"tau": 0.5}, 1.0),
    "scheduled": (fitted("scheduled", {"speedup": 1.25}), {"speedup": 1.25}, 0.0),
    "temperature": (fitted("temperature"), {}, 0.34),
}
"""Criteria with their settings in params.yaml and their thresholds."""
POINTS = {name: Decision(criterion, threshold) for name, (criterion, _, threshold) in CHOSEN.items()}


def left_with(folder: Path, into: Path, names: Sequence[str]) -> Path:
    """A copy of an exported folder with these operating points, of which much the same was promised."""
    shutil.copytree(folder, into)
    described = json.loads((into / DESCRIPTION).read_text(encoding="utf-8"))
    for precision in described["precisions"].values():
        stored = [point_of(*CHOSEN[name]).model_dump(mode="json") for name in names]
        precision |= {"points": stored, "promises": [precision["promises"][0]] * len(stored)}
    (into / DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")
    return into


def opened(
    model: MultiExit, points: Mapping[str, Decision], tokenizer: Any = None, labels: Sequence[str] = LABELS
) -> Opened:
    """A model as `predict` has it, without a run."""
    columns = ("sentence",) if tokenizer else ("image",)
    manifest = Manifest.model_construct(task="reviews", label_names=tuple(labels), columns=columns)
    group = group_of("reviews", "small", "joint", {1: "0123456789abcdef"})
    return Opened(manifest, group, points, asked(points, None), True, model, tokenizer, "cpu")


@pytest.fixture(scope="module")
def folder(texts_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_with(texts_model, tmp_path_factory.mktemp("asked") / "model", list(CHOSEN))


@pytest.fixture(scope="module")
def bare(texts_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without operating points, as `export T --method single_exit` writes it."""
    return left_with(texts_model, tmp_path_factory.mktemp("bare") / "model", [])


@pytest.fixture(scope="module")
def engines(folder: Path) -> dict[str, Engine]:
    """The same model behind the two engines of MLflow."""
    tokenizer = load_tokenizer(folder / TOKENIZER)
    return {
        "graphs": Graphs(folder, ("float32", "int8")),
        "pytorch": PyTorch(opened(text_model("albert"), POINTS, tokenizer)),
    }


def request(rows: Any, **given: Any) -> Asked:
    return check_request({"rows": list(rows), **given}, Limits(rows=1000))


def said(engine: Engine, rows: Any, **given: Any) -> Said:
    return engine(request(rows, **given), "float32", time.perf_counter())


# What is asked


@pytest.mark.parametrize(
    ("name", "threshold", "settings", "decision"),
    [
        (None, None, None, POINTS["patience"]),
        (None, 3, None, Decision(make("patience"), 3.0)),
        ("scheduled", None, None, POINTS["scheduled"]),
        ("scheduled", None, {"speedup": 1.25}, POINTS["scheduled"]),
        ("scheduled", 0.1, {"speedup": 1.25, "sharpness": 20}, Decision(POINTS["scheduled"].criterion, 0.1)),
        ("temperature", None, {}, POINTS["temperature"]),
        ("voting", None, {"power": 0.5}, POINTS["voting"]),
        ("voting", 2.0, {"power": 0}, Decision(make("voting", {"power": 0}), 2.0)),
        ("patient_confidence", None, {"tau": 0.5}, POINTS["patient_confidence"]),
        ("patient_confidence", 2.0, {}, Decision(make("patient_confidence"), 2.0)),
        ("confidence", 0.9, None, Decision(make("confidence"), 0.9)),
        ("confidence", 0.9, {}, Decision(make("confidence"), 0.9)),
        ("confidence", -5, None, Decision(make("confidence"), -5.0)),
        ("learned", 0.5, None, Decision(make("learned"), 0.5)),  # it reads a channel, and learns nothing by itself
        (FULL, None, None, ALL),
        (FULL, None, {}, ALL),
    ],
)
def test_what_is_asked_is_what_decides(name: Any, threshold: Any, settings: Any, decision: Decision) -> None:
    assert asked(POINTS, name, threshold, settings) == decision


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    # A threshold belongs to the settings for which it was chosen.
    ({"criterion": "voting", "settings": {"power": 0}}, "settings: the threshold of 'voting' was chosen for others"),
    ({"criterion": "patience", "settings": {"tau": 1}}, "settings: the threshold of 'patience' was chosen for others"),
    ({"criterion": "patient_confidence", "settings": {}}, "settings: the threshold of 'patient_confidence' was chosen"),
    # What was learned was learned under its settings.
    ({"criterion": "scheduled", "settings": {"speedup": 10}}, "settings: 'scheduled' learned under others"),
    ({"criterion": "scheduled", "settings": {}, "threshold": 0.1}, "settings: 'scheduled' learned under others"),
    ({"criterion": "scheduled", "settings": {"speedup": 1.25, "sharpness": 1}}, "settings: 'scheduled' learned under"),
    # Without a fit a criterion would be another one of the same name.
    ({"criterion": "gates", "threshold": 0.9}, "criterion 'gates': learns from selection rows, and this model has no"),
    (
        {"criterion": "gates", "threshold": 0.9, "settings": {"trade_off": 1}},
        "this model has no fit of it; take one of",
    ),
    ({"criterion": "ensemble", "threshold": 0.9}, "take one of patience, voting, .*, temperature, full"),
    ({"criterion": "confidence"}, "criterion 'confidence': no threshold was chosen for it; give one"),
    ({"criterion": "confidence", "settings": {}}, "criterion 'confidence': no threshold was chosen for it; give one"),
    ({"criterion": "nose"}, "criterion: unknown criterion 'nose'"),
    ({"criterion": "nose", "threshold": 1}, "criterion: unknown criterion 'nose'"),
    ({"criterion": "voting", "settings": {"powr": 0}}, r"criterion\.voting: unknown setting of voting 'powr'"),
    ({"criterion": "voting", "threshold": 1, "settings": {"power": 2}}, r"criterion\.voting\.power: 2.* is not in"),
    # All layers have neither.
    ({"criterion": "full", "threshold": 0.5}, "threshold: 0.5, but no row leaves early at criterion 'full'"),
    ({"criterion": "full", "settings": {"nonsense": 1}}, "settings: criterion 'full' has none; leave them out"),
)


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=range(len(REFUSED)))
def test_every_engine_refuses_what_would_decide_otherwise(
    engines: dict[str, Engine], folder: Path, given: dict[str, Any], words: str
) -> None:
    model, opened_model = Deployed.open(folder), engines["pytorch"].opened  # type: ignore[attr-defined]
    own = {"criterion": None, "threshold": None, "settings": None} | given
    for ways in (
        lambda: said(engines["graphs"], ["w5"], **given),
        lambda: said(engines["pytorch"], ["w5"], **given),
        lambda: model.answer(["w5"], **own),
        lambda: opened_model.at(**own),
    ):
        with pytest.raises(ParamsError, match=words) as raised:
            ways()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf")])
def test_a_threshold_is_a_number(engines: dict[str, Engine], folder: Path, threshold: float) -> None:
    model, opened_model = Deployed.open(folder), engines["pytorch"].opened  # type: ignore[attr-defined]
    for name in (None, "patience", "confidence"):
        for ways in (lambda n=name: model.answer(["w5"], n, threshold), lambda n=name: opened_model.at(n, threshold)):
            with pytest.raises(ParamsError, match=f"threshold: {threshold} is not finite; give a number"):
                ways()


def test_http_refuses_it_with_its_line(folder: Path) -> None:
    service = Service(Serving(folder=folder))

    async def requests(client: Any) -> Any:
        return [await client.post("/answer", json={"rows": ["w5"], **given}) for given, _ in REFUSED]

    responses = ask(service, requests)
    service.engine.close()
    assert [response.status_code for response in responses] == [400] * len(REFUSED)


# Without operating points


def test_a_model_without_operating_points_answers_by_all_layers(bare: Path) -> None:
    model, rows = Deployed.open(bare), texts(5)
    assert (model.default, model.points) == (FULL, {})
    assert model.answer(rows) == model.answer(rows, FULL)
    assert {answer.layer for answer in model.answer(rows)} == {4}
    assert model.answer(rows, "confidence", 0.6) != model.answer(rows)
    with pytest.raises(ParamsError, match=r"threshold: 0\.5, but no row leaves early at criterion 'full'"):
        model.answer(rows, threshold=0.5)
    service = Service(Serving(folder=bare))

    async def requests(client: Any) -> Any:
        return await client.post("/answer", json={"rows": rows}), await client.get("/model")

    answer, description = ask(service, requests)
    service.engine.close()
    assert answer.status_code == 200, answer.text
    assert (answer.json()["criterion"], answer.json()["threshold"]) == ("full", None)
    assert description.json()["criteria"] == {}
    served = said(Graphs(bare, ("float32",)), rows)
    assert served.criterion == "full"


@pytest.mark.parametrize(
    ("names", "default"), [(["voting", "patience"], "voting"), (["temperature", "voting"], "temperature")]
)
def test_the_default_is_the_first_which_selection_rows_prefer(
    texts_model: Path, tmp_path: Path, names: Sequence[str], default: str
) -> None:
    model = Deployed.open(left_with(texts_model, tmp_path / "model", names))
    assert model.criterion(None, None) == POINTS[default]


def test_a_cap_is_refused_where_nothing_was_promised(bare: Path, folder: Path) -> None:
    capped = WatchSettings(extra_layers_per_minute=20)
    words = r"watch\.extra_layers_per_minute \(--extra-layers\): 20, but the model was exported without operating"
    for ways in (
        Serving(folder=bare, watch=capped).check,
        lambda: PromiseWatch(Deployed.open(bare), capped),
        lambda: Service(Serving(folder=bare, watch=capped)),
    ):
        with pytest.raises(ParamsError, match=words) as raised:
            ways()
        assert "\n" not in str(raised.value)
    Serving(folder=bare).check()
    Serving(folder=folder, watch=capped).check()


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"criterion": "gates", "settings": {}, "fitted": {}}, r"fitted\.gates: missing, and 'gates' learns it"),
        ({"criterion": "patience", "settings": {"tua": 1.0}, "fitted": {}}, "unknown setting of patience 'tua'"),
        ({"criterion": "patiense", "settings": {}, "fitted": {}}, "unknown criterion 'patiense'"),
    ],
)
def test_a_folder_with_a_point_that_no_criterion_has(
    bare: Path, tmp_path: Path, point: dict[str, Any], words: str
) -> None:
    into = shutil.copytree(bare, tmp_path / "model")
    described = json.loads((into / DESCRIPTION).read_text(encoding="utf-8"))
    described["precisions"]["float32"]["points"] = [point | {"threshold": 1.0}]
    (into / DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"model\.json: operating point.*{words}"):
        Deployed.open(into)


def test_a_stored_point_is_what_it_was() -> None:
    for criterion, settings, threshold in CHOSEN.values():
        for limit in (threshold, np.inf):
            point = point_of(criterion, settings, limit).model_dump(mode="json")
            assert decision_of(point) == Decision(criterion, limit)
            assert decision_of(point).stored_threshold == point["threshold"]
    assert decision_of(point_of(None, {}, np.inf).model_dump()) == ALL


# What is said


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"criterion": "full"},
        {"criterion": "scheduled"},
        {"criterion": "confidence", "threshold": 0.5},
        {"criterion": "voting", "threshold": 2.0, "settings": {"power": 0.0}},
    ],
)
def test_engines_say_the_same_in_one_form(engines: dict[str, Engine], given: dict[str, Any]) -> None:
    rows = texts(BATCH + 6, seed=3)  # more than run together
    graphs, pytorch = (said(engines[name], rows, id="a", **given) for name in ("graphs", "pytorch"))
    assert graphs.model_dump(exclude={"answers", "model", "seconds"}) == pytorch.model_dump(
        exclude={"answers", "model", "seconds"}
    )
    for one, other in zip(graphs.answers, pytorch.answers, strict=True):
        assert (one.label, one.exit, one.layer) == (other.label, other.exit, other.layer)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        for answer in (one, other):
            assert answer.probabilities is not None
            assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-12), "not rounded"
            assert max(answer.probabilities, key=lambda name, p=answer.probabilities: p[name]) == answer.label


def test_a_row_of_any_batch_is_named_by_its_place_in_the_request(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        with pytest.raises(PipelineError, match=rf"rows\.{BATCH + 1}: None is not a text"):
            said(engine, [*["w5"] * (BATCH + 1), None])


def test_what_is_said_of_logits() -> None:
    logits, exit_index = np.array([[0.0, 40.0, 0.0], [1e-20, 0.0, 0.0], [0.0, 0.0, 1e-20]], np.float32), np.arange(3)
    answers = answers_of(LABELS, (2, 4, 6), logits, exit_index)
    assert [(answer.label, answer.exit, answer.layer) for answer in answers] == [
        ("so-so", 1, 2),
        ("bad", 2, 4),
        ("good", 3, 6),  # of the logits, whose probabilities are equal to the last bit
    ]
    assert answers[0].probability == 1 / (1 + 2 * np.exp(-40.0))
    assert answers[0].probabilities is not None
    assert answers[0].probabilities["bad"] == pytest.approx(np.exp(-40.0), rel=1e-9)
    (value,) = answers_of((), (2, 4, 6), np.array([[3.25]], np.float32), np.array([1]))
    assert (value.label, value.probabilities, value.probability, value.layer) == (3.25, None, None, 4)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 9.0])
def test_a_value_is_said_and_explained(folder: Path, threshold: float) -> None:
    encoder = text_model("albert").backbone
    model = MultiExit(encoder, range(1, encoder.layers + 1), 1).eval()
    points = {"patience": Decision(make("patience", {"tau": 0.01}), threshold)}
    own = opened(model, points, load_tokenizer(folder / TOKENIZER), labels=())
    (answer,), why = predict(own, ["w5 w6"]), explain(own, "w5 w6")
    assert (answer.probabilities, answer.probability) == (None, None)
    assert (why.answer.label, why.answer.exit) == (pytest.approx(answer.label, abs=1e-5), answer.exit)
    read = json.loads(json.dumps(explanation_as_json(why)))
    assert (read["answer"], read["probability"], read["threshold"]) == (why.answer.label, None, threshold)
    assert [set(at) for at in read["exits"]] == [{"exit", "layer", "answer", "probability", "score", "value"}] * 4
    lines = lines_of(own, why)
    assert lines[0] == "small, joint, patience (PABEE)"
    assert lines[1].split() == ["exit", "layer", "value", "score"]
    assert f"{why.answer.label:.4f}" in lines[1 + answer.exit]
    assert lines[1 + answer.exit].endswith("<- leaves here")
    assert lines[-1].startswith(f"{why.answer.label:.4f} at exit {answer.exit}: ")
    assert ("is the first to reach t = " in lines[-1]) == (answer.exit < 4)


# Images


WRONG_IMAGES = {
    "another size": np.zeros((1, 8, 8, 3), np.uint8),
    "one that is larger": np.zeros((1, 64, 64, 3), np.uint8),
    "a channel": np.zeros((1, 32, 32, 1), np.uint8),
    "shares": np.full((1, 32, 32, 3), 0.5),
    "beyond a byte": np.full((1, 32, 32, 3), 300, np.int64),
    "below 0": np.full((1, 32, 32, 3), -1, np.int64),
    "yes and no": np.ones((1, 32, 32, 3), bool),
}


@pytest.fixture(scope="module")
def image_engines(images_model: Path) -> dict[str, Engine]:
    points = {"patience": Decision(make("patience"), 1.0), "confidence": Decision(make("confidence"), 0.6)}
    return {
        "graphs": Graphs(images_model, ("float32",)),
        "pytorch": PyTorch(opened(residual_model()[0], points)),
    }


@pytest.mark.parametrize("what", WRONG_IMAGES)
def test_every_engine_refuses_what_is_no_image(image_engines: dict[str, Engine], what: str) -> None:
    for engine in image_engines.values():
        with pytest.raises(PipelineError, match=r"rows\.0: .* is no image; give 32 rows of 32 pixels of 3 whole"):
            said(engine, WRONG_IMAGES[what])


def test_every_engine_answers_images_of_whole_numbers(image_engines: dict[str, Engine]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3))
    for kind in (np.uint8, np.int64):
        graphs, pytorch = (said(engine, images.astype(kind)) for engine in image_engines.values())
        for one, other in zip(graphs.answers, pytorch.answers, strict=True):
            assert (one.exit, one.layer) == (other.exit, other.layer)
            shares = [list((answer.probabilities or {}).values()) for answer in (one, other)]
            assert shares[0] == pytest.approx(shares[1], abs=1e-4)


# NaN


@pytest.mark.parametrize("name", [*CHOSEN, FULL])
def test_a_model_that_answers_nan_is_refused_by_predict_and_explain(folder: Path, name: str) -> None:
    model = text_model("albert")
    with torch.no_grad():
        model.heads[0].bias.fill_(torch.nan)
        model.heads[-1].bias.fill_(torch.nan)
    broken = opened(model, POINTS, load_tokenizer(folder / TOKENIZER)).at(name)
    for ways in (predict, lambda one, rows: explain(one, rows[0])):
        with pytest.raises(InvalidLogitsError, match="the model answered NaN"):
            ways(broken, ["w5 w6"])


def test_an_explanation_is_of_what_predict_says(engines: dict[str, Engine]) -> None:
    exits = set()
    for name in (*CHOSEN, FULL):
        model = engines["pytorch"].opened.at(name)  # type: ignore[attr-defined]
        for text in texts(12, seed=8):
            (answer,), why = predict(model, [text]), explain(model, text)
            assert (why.answer.label, why.answer.exit) == (answer.label, answer.exit)
            assert why.answer.probabilities == pytest.approx(answer.probabilities, abs=1e-5)
            assert [one.exit for one in why.exits] == [1, 2, 3, 4]
            assert why.scores[-1] is None
            scores = [score for score in why.scores if score is not None]
            assert len(scores) == (0 if name == FULL else 3)
            reached = [index for index, score in enumerate(scores) if score >= model.decision.threshold]
            assert answer.exit == 1 + (reached[0] if reached else 3)
            exits.add(answer.exit)
    assert {2, 3, 4} <= exits
