"""An exported model that answers requests: what is asked and said, the pool of rows, HTTP."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ClusterError, PipelineError
from pipeline.models.deploy.runtime import Deployed
from pipeline.running.ray import serving
from pipeline.serving.requests import Limits, RequestError, TooLargeError, identity, prepare, read_request, reply
from tests.exported_folders import texts

SMALL = Limits(rows=3, characters=20, body_bytes=30_000)


@pytest.fixture(scope="module")
def model(texts_model: Path) -> Deployed:
    return Deployed.open(texts_model)


def body(**request: Any) -> bytes:
    return json.dumps(request).encode()


# Requests


def test_what_is_said_is_what_the_model_answers(model: Deployed) -> None:
    rows = texts(6)
    asked = read_request(body(rows=rows, criterion="patience", threshold=1.0, id="a"), Limits())
    ready = prepare(model, asked)
    said = reply(model, asked, model.segments.answer(ready.inputs, ready.rule), 0.25)
    assert [answer.model_dump() for answer in said.answers] == [
        vars(answer) for answer in model.answer(rows, "patience", 1.0)
    ]
    assert (said.id, said.criterion, said.threshold, said.precision) == ("a", "patience", 1.0, "float32")
    assert said.model == identity(model)
    assert said.model.task == "reviews"
    assert len({answer.exit for answer in said.answers}) > 1


def test_without_a_criterion_it_is_patience_where_it_was_chosen(model: Deployed) -> None:
    asked = read_request(body(rows=["w4"]), Limits())
    ready = prepare(model, asked)
    assert (ready.criterion, ready.rule.threshold) == ("patience", 1.0)
    full = prepare(model, read_request(body(rows=["w4"], criterion="full"), Limits()))
    said = reply(model, asked, model.segments.answer(full.inputs, full.rule), 0.0)
    assert (said.criterion, said.threshold, said.answers[0].layer) == ("full", None, 4)


WRONG: tuple[tuple[Any, type[PipelineError], str], ...] = (
    (b"{", RequestError, "body: no JSON"),
    (b"\xff\xfe", RequestError, "body: no JSON"),
    (b"[" * 20_000, RequestError, "body: no JSON"),
    (b" " * 40_000, TooLargeError, "body: more than 30,000 bytes; send the rows in several requests"),
    (b'{"rows": ["a"], "threshold": 1' + b"0" * 5000 + b"}", RequestError, "body: no JSON"),
    ([], RequestError, r"body: \[\] is no object"),
    ({}, RequestError, "rows: is missing; give it"),
    ({"rows": []}, RequestError, r"rows: \[\] holds no row; give one or more"),
    ({"rows": "a text"}, RequestError, "rows: 'a text' is no list"),
    ({"rows": ["a"] * 4}, TooLargeError, "rows: 4 are more than 3"),
    ({"rows": ["a", "b" * 21]}, TooLargeError, r"rows\.1: 21 characters are more than 20; shorten"),
    ({"rows": [1]}, RequestError, r"rows\.0: 1 is not a text; give a text per row"),
    ({"rows": [["a", "b"]]}, RequestError, r"rows\.0: \['a', 'b'\] is not a text"),
    ({"rows": ["a", None]}, RequestError, r"rows\.1: None is not a text"),
    (b'{"rows": ["\\ud800"]}', RequestError, r"rows\.0: .* lone surrogate"),
    ({"rows": ["a"], "treshold": 1}, RequestError, "'treshold': no such key; did you mean 'threshold'"),
    (b'{"rows": ["a"], "threshold": NaN}', RequestError, "threshold: nan is not finite; give a number"),
    (b'{"rows": ["a"], "threshold": Infinity}', RequestError, "threshold: inf is not finite"),
    ({"rows": ["a"], "threshold": "1"}, RequestError, "threshold: '1' is no number"),
    ({"rows": ["a"], "threshold": True}, RequestError, "threshold: True is no number"),
    ({"rows": ["a"], "criterion": 5}, RequestError, "criterion: 5 is no text"),
    ({"rows": ["a"], "criterion": "patiense"}, PipelineError, "unknown criterion 'patiense'; did you mean 'patience'"),
    ({"rows": ["a"], "criterion": "entropy"}, PipelineError, "criterion 'entropy': no threshold was chosen"),
    ({"rows": ["a"], "criterion": "oracle", "threshold": 1}, PipelineError, "'oracle' is a bound"),
    ({"rows": ["a"], "settings": {"tua": 1}}, PipelineError, r"criterion\.patience: unknown setting .*'tua'"),
    (b'{"rows": ["a"], "settings": {"tau": NaN}}', PipelineError, r"patience\.tau: nan is not a finite number"),
    ({"rows": ["a"], "settings": {"tau": "1"}}, RequestError, r"settings\.tau: '1' is no number"),
    ({"rows": ["a"], "settings": 1}, RequestError, "settings: 1 is no object"),
    ({"rows": ["a"], "id": ""}, RequestError, "id: '' is empty"),
    ({"rows": ["a"], "id": "x" * 200}, RequestError, "id: 'xx.* is too long"),
    ({"rows": ["a"], "id": 7}, RequestError, "id: 7 is no text"),
)


@pytest.mark.parametrize(("request_", "error", "said"), WRONG, ids=range(len(WRONG)))
def test_a_bad_request_has_one_line(model: Deployed, request_: Any, error: type[PipelineError], said: str) -> None:
    given = request_ if isinstance(request_, bytes) else json.dumps(request_).encode()
    with pytest.raises(error, match=said) as raised:
        prepare(model, read_request(given, SMALL))
    assert "\n" not in str(raised.value)
    assert getattr(raised.value, "status", 400) == (413 if error is TooLargeError else 400)


def test_images_are_nested_numbers(images_model: Path) -> None:
    model, limits = Deployed.open(images_model), Limits()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    ready = prepare(model, read_request(body(rows=images.tolist()), limits))
    np.testing.assert_array_equal(ready.inputs["image"], images)
    wrong = images.tolist()
    wrong[1][0][0][0] = 256
    ragged = images.tolist()
    ragged[1][0].pop()
    for rows in (wrong, ragged, [images[0].tolist(), "a"], [images[0].tolist(), (images[0] / 255.0).tolist()]):
        with pytest.raises(RequestError, match=r"rows\.1: .* is no image; give 32 rows of 32 pixels"):
            prepare(model, read_request(body(rows=rows), limits))


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")  # of ray.serve's import
def test_a_proxy_that_was_killed_as_too_slow_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Serve starts another by itself; which one a start meets is a race that cannot be brought about at will."""
    import ray.serve
    from ray.exceptions import ActorDiedError

    started: list[dict[str, Any]] = []

    def dies(**options: Any) -> None:
        started.append(options)
        if len(started) < 3:
            raise ActorDiedError

    monkeypatch.setattr(ray.serve, "start", dies)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    serving._start("127.0.0.1", 8000)
    assert [one["http_options"]["port"] for one in started] == [8000] * 3
    monkeypatch.setattr(serving, "STARTS", 2)
    started.clear()
    with pytest.raises(
        ClusterError, match=r"^Ray Serve's proxy on 127.0.0.1:8000 does not come up \(.*; give the mach"
    ):
        serving._start("127.0.0.1", 8000)
    assert len(started) == 2
