"""A model over HTTP: through the real service in this process, and through Ray Serve."""

import asyncio
import json
import socket
import sys
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from starlette.requests import Request

from pipeline.__main__ import cli
from pipeline.errors import ArtifactError, ParamsError, UnsupportedError
from pipeline.evaluation.leaving import Rule
from pipeline.models.deploy.runtime import Deployed
from pipeline.serving.client import Client, UnansweredError
from pipeline.serving.engine import ClosedError, Engine
from pipeline.serving.http import Service
from pipeline.serving.pool import Pool
from pipeline.serving.requests import Limits, Ready, Said
from pipeline.serving.settings import Serving
from pipeline.serving.watching import Nobody
from tests.exported_folders import texts
from tests.served import kill, served
from tests.test_ask import invoke

Requests = Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]


@pytest.fixture
def service(texts_model: Path) -> Iterator[Service]:
    limits = Limits(rows=8, characters=200, body_bytes=4000)
    made = Service(Serving(folder=texts_model, waiting_rows=20, limits=limits))
    yield made
    made.engine.close()


def ask(service: Service, requests: Requests) -> Any:
    """Run requests against a service, in one event loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = await service(Request(scope, receive))
        await response(scope, receive, send)

    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await requests(client)

    return asyncio.run(run())


class Bad(Nobody):
    """A watch that fails at its first request."""

    def __init__(self) -> None:
        self.asked = 0

    def deepest(self, criterion: str, rule: Rule) -> int | None:
        self.asked += 1
        if self.asked == 1:
            raise ValueError("a watch of one's own")
        return None


def ready(model: Deployed) -> Ready:
    return Ready(model.inputs(["w1 w2"]), model.segments.rule(None, np.inf), "full")


def test_a_request_that_cannot_start_is_told_and_others_go_on(texts_model: Path) -> None:
    model = Deployed.open(texts_model)
    engine = Engine(Pool(model.segments, watch=Bad()), waiting_rows=8)

    async def asked() -> None:
        with pytest.raises(ValueError, match="a watch of one's own"):
            await asyncio.wait_for(engine.answer(ready(model)), 30)
        assert (await asyncio.wait_for(engine.answer(ready(model)), 30)).logits.shape == (1, 3)

    asyncio.run(asked())
    engine.close()


def test_a_request_to_an_engine_that_dies_meanwhile_is_told(texts_model: Path) -> None:
    """The thread ends between the look at it and the request's place in its inbox."""
    model = Deployed.open(texts_model)
    engine = Engine(Pool(model.segments), waiting_rows=8)
    inbox = engine._inbox

    class Late:
        def put(self, job: object) -> None:
            inbox.put(None)
            engine._thread.join()  # it has emptied its inbox
            inbox.put(job)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> Any:
            return getattr(inbox, name)

    engine._inbox = Late()  # type: ignore[assignment]
    with pytest.raises(ClosedError, match="send the request again"):
        asyncio.run(asyncio.wait_for(engine.answer(ready(model)), 30))


def test_requests_at_once_are_answered_as_each_alone(service: Service) -> None:
    rows = texts(40, seed=7)
    parts = [rows[i : i + 4] for i in range(0, 20, 4)]
    asked = [("patience", 1.0), ("confidence", 0.9), ("full", None), ("confidence", None), (None, None)]

    async def requests(client: httpx.AsyncClient) -> Any:
        bodies = [
            {"rows": part, "criterion": name, "threshold": at, "id": str(i)}
            for i, (part, (name, at)) in enumerate(zip(parts, asked, strict=True))
        ]
        return await asyncio.gather(*(client.post("/answer", json=body) for body in bodies))

    model = service.model
    for i, (response, part, (name, at)) in enumerate(zip(ask(service, requests), parts, asked, strict=True)):
        assert response.status_code == 200
        said = Said.model_validate(response.json())
        alone = model.answer(part, name, at)
        assert [(answer.label, answer.exit, answer.layer) for answer in said.answers] == [
            (answer.label, answer.exit, answer.layer) for answer in alone
        ]
        for mine, other in zip(said.answers, alone, strict=True):
            assert mine.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert (said.id, said.precision) == (str(i), "float32")
        assert 0 < said.seconds < 60


def test_what_the_model_is(service: Service) -> None:
    async def requests(client: httpx.AsyncClient) -> Any:
        return [await client.get(path) for path in ("/model", "/healthz", "/metrics")]

    model, health, metrics = ask(service, requests)
    described = model.json()
    assert (described["labels"], described["layers"], described["precision"]) == (
        ["bad", "so-so", "good"],
        4,
        "float32",
    )
    assert described["criteria"]["patience"] == {"threshold": 1.0, "settings": {}}
    assert described["limits"] == {"rows": 8, "characters": 200, "body_bytes": 4000}
    assert health.json() == {"status": "ok"}
    assert (metrics.status_code, metrics.headers["content-type"].partition(";")[0]) == (200, "text/plain")


BAD: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"content": b"{"}, 400, "body: no JSON"),
    ({"json": {"rows": ["w5"], "threshold": "1"}}, 400, "threshold: '1' is no number; give one"),
    ({"content": b'{"rows": ["w5"], "threshold": NaN}'}, 400, "threshold: nan is not finite; give a number"),
    ({"json": {"rows": ["w5"], "criterion": "patiense"}}, 400, "criterion: unknown criterion 'patiense'; did you mean"),
    ({"json": {"rows": ["w5"], "criterion": "learned"}}, 400, "criterion 'learned': no threshold was chosen"),
    ({"json": {"rows": ["w5"], "settings": {"tua": 1}}}, 400, "criterion.patience: unknown setting of patience 'tua'"),
    ({"json": {"rows": []}}, 400, "rows: [] holds no row; give one or more"),
    ({"json": {"rows": ["w5"] * 9}}, 413, "rows: 9 are more than 8; send them in several requests"),
    ({"json": {"rows": ["w" * 201]}}, 413, "rows.0: 201 characters are more than 200; shorten the text"),
    ({"json": {"rows": ["w5"], "row": 1}}, 400, "'row': no such key; did you mean 'rows'?"),
    ({"content": b" " * 4001}, 413, "body: more than 4,000 bytes; send the rows in several requests"),
)


def test_a_bad_request_is_one_line(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    async def without_length() -> Any:
        for _ in range(100):
            yield b" " * 1000

    async def requests(client: httpx.AsyncClient) -> Any:
        answers = [await client.post("/answer", **request) for request, _, _ in BAD]
        others = [client.post("/answer", content=without_length()), client.get("/answer"), client.get("/nothing")]
        return answers, [await other for other in others]

    answers, (endless, method, path) = ask(service, requests)
    for response, (_, status, said) in zip(answers, BAD, strict=True):
        assert response.status_code == status, said
        assert list(response.json()) == ["error"]
        assert response.json()["error"].startswith(said)
        assert "\n" not in response.json()["error"]
    assert (endless.status_code, endless.json()) == (413, answers[-1].json())
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert (path.status_code, "/answer" in path.json()["error"]) == (404, True)
    assert capsys.readouterr().err == ""


def test_more_rows_than_may_wait_are_refused(service: Service) -> None:
    async def requests(client: httpx.AsyncClient) -> Any:
        body = {"rows": texts(8), "criterion": "full"}
        return await asyncio.gather(*(client.post("/answer", json=body) for _ in range(6)))

    answers = ask(service, requests)
    refused = [response for response in answers if response.status_code != 200]
    assert 0 < len(refused) < 6
    assert {response.status_code for response in refused} == {503}
    assert "rows wait already; send the request again later" in refused[0].json()["error"]
    assert refused[0].headers["retry-after"] == "1"


def test_a_model_that_answers_nan_is_the_server_s_fault(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    heads = service.model.segments.heads
    before = [weight.copy() for weight, _ in heads]
    for weight, _ in heads:
        weight[:] = np.nan

    async def requests(client: httpx.AsyncClient) -> Any:
        bad = await client.post("/answer", json={"rows": ["w5"]})
        for (weight, _), kept in zip(heads, before, strict=True):
            weight[:] = kept
        return bad, await client.post("/answer", json={"rows": ["w5"]})

    bad, good = ask(service, requests)
    assert bad.status_code == 500
    assert bad.json()["error"].startswith("the model could not answer (live: the model answered NaN")
    assert "Traceback" not in bad.text
    assert "Traceback" in capsys.readouterr().err, "the server's log has it"
    assert good.status_code == 200


def test_who_hangs_up_leaves_no_row_behind(service: Service) -> None:
    async def requests(client: httpx.AsyncClient) -> None:
        body = {"rows": texts(8), "criterion": "full"}
        asked = [asyncio.ensure_future(client.post("/answer", json=body)) for _ in range(2)]
        await asyncio.sleep(0.005)
        asked[0].cancel()
        assert (await asked[1]).status_code == 200
        assert (await client.post("/answer", json=body)).status_code == 200
        assert not service.engine._jobs
        assert not len(service.engine.pool)

    ask(service, requests)


def test_a_closed_model_says_so(service: Service) -> None:
    service.engine.close()

    async def requests(client: httpx.AsyncClient) -> Any:
        return await client.post("/answer", json={"rows": ["w5"]}), await client.get("/healthz")

    answer, health = ask(service, requests)
    assert (answer.status_code, health.status_code) == (503, 503)


# The command


def test_bad_input_of_the_command_is_one_line(
    texts_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, error, said in (
        ([str(tmp_path / "none")], ArtifactError, "no such folder; name one that `python -m pipeline export` wrote"),
        ([str(tmp_path)], ArtifactError, r"model\.json: no such file; name a folder that"),
        ([str(texts_model), "--precision", "int7"], ParamsError, "unknown precision 'int7'; did you mean 'int8'"),
    ):
        with pytest.raises(error, match=said):
            invoke("serve", *arguments)
    for option in ("--check-share", "--extra-layers"):
        for value in ("nan", "inf"):
            ran = CliRunner().invoke(cli, ["serve", str(texts_model), option, value])
            assert (ran.exit_code, f"Invalid value for '{option}'" in ran.output) == (2, True), ran.output
    for package, said in (
        ("onnxruntime", r"onnxruntime is not installed; `pip install -e '\.\[deploy,serve\]'`"),
        ("ray.serve", r"Ray Serve is not installed; `pip install -e '\.\[serve\]'`"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UnsupportedError, match=said):
                invoke("serve", str(texts_model))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParamsError, match=rf"--port {port}: Address already in use; end what listens there"):
            invoke("serve", str(texts_model), "--port", str(port))


def test_the_command_serves_on_loopback_alone(texts_model: Path, tmp_path: Path) -> None:
    rows = texts(12, seed=9)
    expected = [vars(answer) for answer in Deployed.open(texts_model, "int8").answer(rows, "patience", 1.0)]
    with served(texts_model, tmp_path, "--precision", "int8", "--max-rows", "12") as model:
        assert {address.removeprefix("::ffff:") for address in model.listening()} == {"127.0.0.1"}
        with Client(model.address) as client:
            assert client.answer(rows, criterion="patience", threshold=1.0)["answers"] == expected
            with pytest.raises(UnansweredError, match="rows: 13 are more than 12"):
                client.answer([*rows, "w5"])
            (replica,) = model.replicas()
            kill(replica)
            assert client.answer(rows, criterion="patience", threshold=1.0)["answers"] == expected, (
                "from another replica"
            )
        with urllib.request.urlopen(f"{model.address}/model") as response:
            assert json.load(response)["precision"] == "int8"
