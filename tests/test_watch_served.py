"""The watch of a served model: over HTTP in this process, and on Ray Serve with several replicas."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.models.deploy.runtime import Deployed
from pipeline.serving.client import Client
from pipeline.serving.http import Service
from pipeline.serving.settings import Serving, WatchSettings
from pipeline.serving.watch import PromiseWatch
from tests.exported_folders import texts
from tests.served import served
from tests.test_serving_http import ask
from tests.test_watch import slow


@pytest.fixture
def service(texts_model: Path) -> Iterator[Service]:
    made = Service(Serving(folder=texts_model, watch=WatchSettings(check_share=0.5)))
    yield made
    made.engine.close()


def values(page: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"early_exit_{name}"
    }


async def post(client: httpx.AsyncClient, rows: list[str], criterion: str = "confidence") -> list[dict[str, Any]]:
    """Answers to rows, eight at a time."""
    parts = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    return [(await client.post("/answer", json={"rows": part, "criterion": criterion})).json() for part in parts]


def test_a_server_warns_of_slow_texts_and_not_of_others(service: Service) -> None:
    attack = slow(service.model, "confidence")[:40]

    async def requests(client: httpx.AsyncClient) -> Any:
        pages = []
        for rows in (texts(240, seed=4), attack):
            await post(client, rows)
            pages.append((await client.get("/metrics")).text)
        return pages

    before, after = ask(service, requests)
    assert values(before, "drift")[("confidence",)] == 0
    assert values(after, "drift")[("confidence",)] == 1
    assert values(after, "requests_total") == {("200",): 35}
    assert sum(values(after, "rows_total").values()) == 280
    deadline = time.monotonic() + 20
    while len(service.engine.pool) and time.monotonic() < deadline:  # rows that go on after their answer
        time.sleep(0.01)
    checked = values(service.watch.metrics(), "checked_rows_total")[("confidence",)]
    assert 100 < checked < 180, "half of them"


def test_a_server_with_a_cap_answers_slow_texts_at_the_promised_exit(texts_model: Path) -> None:
    settings = WatchSettings(extra_layers_per_minute=40, check_share=0)
    service = Service(Serving(folder=texts_model, watch=settings, replicas=2))
    attack = slow(service.model, "confidence")[:80]

    async def requests(client: httpx.AsyncClient) -> Any:
        told = await post(client, attack)
        more = iter(attack)
        while not (said := (await post(client, [next(more)]))[0])["capped"]:
            told.append(said)
        return [*told, said, *await post(client, texts(8, seed=4), "full")], (await client.get("/metrics")).text

    told, page = ask(service, requests)
    service.engine.close()
    assert isinstance(service.watch, PromiseWatch)
    point, exits = service.watch.points["confidence"], service.model.segments.exits
    free = [said for said in told if not said["capped"]]
    held = [said for said in told if said["capped"]]
    assert {answer["layer"] for said in free for answer in said["answers"]} == {exits[-1]}
    assert max(answer["layer"] for said in held[:-1] for answer in said["answers"]) == exits[point.deepest]
    extra = sum(answer["layer"] - point.layers for said in told[:-1] for answer in said["answers"])
    assert extra <= 20 + 8 * (exits[-1] - point.layers), "its half of the cap, and the request in flight"
    assert sum(len(said["answers"]) for said in told) * (exits[-1] - point.layers) > 3 * 20, "without a cap"
    assert told[-1]["criterion"] == "full"
    assert told[-1]["capped"], "all layers are no way around the cap"
    held_rows = sum(len(said["answers"]) for said in held)
    assert sum(values(page, "capped_rows_total").values()) == held_rows
    assert values(page, "requests_total") == {("200",): len(told)}


def test_settings_of_a_request_have_no_promise(texts_model: Path) -> None:
    """Patience with another tolerance is another criterion, at the same threshold or not."""
    service = Service(Serving(folder=texts_model))
    limit = service.model.points["patience"].threshold

    async def requests(client: httpx.AsyncClient) -> Any:
        for settings, threshold in ((None, None), ({"tau": 0.5}, None), ({"tau": 1.0}, limit)):
            body = {"rows": texts(8), "criterion": "patience", "settings": settings, "threshold": threshold}
            assert (await client.post("/answer", json=body)).status_code == 200
        return (await client.get("/metrics")).text

    page = ask(service, requests)
    service.engine.close()
    by_source: dict[str, float] = {}
    for (_, _, source), value in values(page, "rows_total").items():
        by_source[source] = by_source.get(source, 0) + value
    assert by_source == {"exported": 16, "request": 8}


@pytest.mark.slow
def test_the_page_has_the_numbers_of_all_replicas(texts_model: Path, tmp_path: Path) -> None:
    with served(texts_model, tmp_path, "--replicas", "2") as model:
        seen: dict[str, float] = {}
        asked, deadline = 0, time.monotonic() + 60
        while (len(seen) < 2 or sum(seen.values()) < asked) and time.monotonic() < deadline:
            if len(seen) < 2:
                with Client(model.address) as client:
                    client.answer(texts(3, seed=asked))
                asked += 3
            page = httpx.get(f"{model.address}/metrics").text
            seen = {}
            for labels, value in values(page, "rows_total").items():
                replica = labels[2]  # criterion, exit, replica, threshold
                seen[replica] = seen.get(replica, 0) + value
        assert len(seen) == 2
        assert sum(seen.values()) == asked
        assert page.count("# TYPE early_exit_rows_total counter") == 1
    assert Deployed.open(texts_model).points
