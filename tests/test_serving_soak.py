"""10,000 requests of a real client, replicas killed meanwhile: none is lost or answered twice, each as undisturbed."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.identity.imports import ROOT
from pipeline.models.deploy.runtime import Deployed
from pipeline.serving.client import Client
from tests.exported_folders import texts
from tests.ray_cluster import ray_cluster
from tests.served import Served, kill, served

pytestmark = pytest.mark.cluster

REQUESTS, CLIENTS, REPLICAS, KILLS = 10_000, 12, 2, 12
RULES: tuple[tuple[str, float | None], ...] = (("patience", 1.0), ("confidence", 0.9), ("full", None))


def asked_by(number: int, rows: list[str]) -> tuple[list[str], str, float | None]:
    """Rows, criterion and threshold of a request."""
    first = number % (len(rows) - 3)
    return rows[first : first + 1 + number % 3], *RULES[number % len(RULES)]


def ask(address: str, numbers: Any, rows: list[str], told: list[tuple[int, dict[str, Any]]], sent: list[int]) -> None:
    with Client(address, attempts=40) as client:
        for number in numbers:
            part, criterion, threshold = asked_by(number, rows)
            told.append((number, client.answer(part, id=str(number), criterion=criterion, threshold=threshold)))
        sent.append(client.sent)


def kill_some(model: Served, told: list[Any], seed: int = 0) -> list[int]:
    """Kill a replica each time that a share of the requests was answered; their process ids."""
    chance, killed = random.Random(seed), []
    for i in range(1, KILLS + 1):
        while len(told) < i * REQUESTS // (KILLS + 1):
            time.sleep(0.02)
        replicas: list[psutil.Process] = []
        while not replicas:
            replicas = model.replicas()
        one = chance.choice(replicas)
        kill(one)
        killed.append(one.pid)
    return killed


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_no_request_is_lost_or_answered_twice(texts_model: Path, tmp_path: Path, precision: str) -> None:
    rows = texts(60, seed=5)
    told: list[tuple[int, dict[str, Any]]] = []
    sent: list[int] = []
    with served(texts_model, tmp_path, "--replicas", str(REPLICAS), "--precision", precision) as model:
        clients = [
            threading.Thread(target=ask, args=(model.address, range(i, REQUESTS, CLIENTS), rows, told, sent))
            for i in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        killed = kill_some(model, told)
        for client in clients:
            client.join()
    assert len(set(killed)) == KILLS
    assert Counter(number for number, _ in told) == Counter(range(REQUESTS))
    assert all(said["id"] == str(number) for number, said in told)
    print(f"{precision}: {sum(sent)} sent for {REQUESTS} answered, {KILLS} kills")
    assert sum(sent) > REQUESTS, "some died with their replica"
    undisturbed = Deployed.open(texts_model, precision)
    expected: dict[Any, Any] = {}
    for number, said in told:
        part, criterion, threshold = asked_by(number, rows)
        key = (tuple(part), criterion)
        if key not in expected:
            expected[key] = [vars(answer) for answer in undisturbed.answer(part, criterion, threshold)]
        check_equal(said["answers"], expected[key], precision)


def check_equal(said: list[dict[str, Any]], expected: list[dict[str, Any]], precision: str) -> None:
    """To the bit in int8; in float32 to what rounding in another batch leaves."""
    if precision == "int8":
        assert said == expected
        return
    for one, other in zip(said, expected, strict=True):
        assert {**one, "probabilities": None} == {**other, "probabilities": None}
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


APPLICATION = """
import sys
import ray
from ray import serve
from pipeline.running.ray.serving import application
from pipeline.serving.settings import Serving
ray.init("auto", log_to_driver=False)
serving = Serving(folder=sys.argv[1], precision="int8", replicas=2)
serve.run(application(serving), name="reviews", route_prefix="/reviews")
print("runs", flush=True)
"""


def test_a_cluster_that_runs_serves_it_by_the_command_and_as_an_application(texts_model: Path, tmp_path: Path) -> None:
    rows = texts(12, seed=9)
    expected = [vars(answer) for answer in Deployed.open(texts_model, "int8").answer(rows, "patience", 1.0)]
    with ray_cluster(cpus=4) as cluster:
        variables = cluster.environment | {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
        with served(texts_model, tmp_path, "--precision", "int8", variables=variables) as model:
            with Client(model.address) as client:
                assert client.answer(rows, criterion="patience", threshold=1.0)["answers"] == expected
            command = [sys.executable, "-c", APPLICATION, str(texts_model)]
            done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120)
            assert done.stdout.endswith("runs\n"), done.stderr
            with Client(f"{model.address}/reviews") as client:
                assert client.answer(rows, criterion="patience", threshold=1.0)["answers"] == expected
            for port, said in (
                ("9", "listens on 127.0.0.1:"),
                (model.address.rpartition(":")[2], "'early-exit': runs on"),
            ):
                second = [sys.executable, "-m", "pipeline", "serve", str(texts_model), "--port", port]
                refused = subprocess.run(second, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120)
                assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
                assert said in refused.stderr
        with Client(f"{model.address}/reviews") as client:
            again = client.answer(rows, criterion="patience", threshold=1.0)
            assert again["answers"] == expected, "the command took its own application along, and no other"
