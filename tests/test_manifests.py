"""Clusters and the container as their files describe them: known fields, no shared disk, from zero, no secrets."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.identity.imports import ROOT
from ray_jobs.submit import STOP_SECONDS, job_environment

JOBS = ROOT / "ray_jobs"
SCHEMA = yaml.safe_load((ROOT / "tests/kuberay.schema.yaml").read_text(encoding="utf-8"))
MANIFESTS = ("kuberay.yaml", "kuberay-cluster.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((JOBS / name).read_text(encoding="utf-8")))


def manifest(name: str) -> dict[str, Any]:
    """The job or cluster of a file; a claim may follow it."""
    return documents(name)[0]


def cluster_of(resource: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = resource["spec"]
    return spec if resource["kind"] == "RayCluster" else spec["rayClusterSpec"]


def problems(resource: dict[str, Any]) -> list[str]:
    """Where a resource is not as the schema says: the innermost reasons."""
    # The kind is chosen here, since `oneOf` would only say that none fits.
    schema = {**SCHEMA["$defs"][resource["kind"]], "$defs": SCHEMA["$defs"]}
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(resource)
    ]


def pods(cluster: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_have_known_fields(name: str) -> None:
    assert [problems(resource) for resource in documents(name)] == [[], []]


def _typo(job: dict[str, Any]) -> None:
    job["spec"]["shutdownAfterJobFinish"] = True


def _number(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _unit(job: dict[str, Any]) -> None:
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    head["containers"][0]["resources"]["limits"]["memory"] = "16 GB"


def _misplaced(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["terminationGracePeriodSeconds"] = 90


@pytest.mark.parametrize("spoil", [_typo, _number, _unit, _misplaced])
def test_slips_are_seen(spoil: Callable[[dict[str, Any]], None]) -> None:
    spoiled = copy.deepcopy(manifest("kuberay.yaml"))
    spoil(spoiled)
    assert len(problems(spoiled)) == 1


def test_the_cluster_that_stays_is_that_of_the_job() -> None:
    job, cluster = map(manifest, MANIFESTS)
    assert cluster["spec"] == job["spec"]["rayClusterSpec"]
    assert documents(MANIFESTS[0])[1:] == documents(MANIFESTS[1])[1:]


@pytest.mark.parametrize("name", MANIFESTS)
def test_rays_autoscaler_reads_them(name: str) -> None:
    """Ray's own translation of the resource, which checks its result against ray-schema.json."""
    code = """
import json, sys
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
print(json.dumps(_derive_autoscaling_config_from_ray_cr(json.load(sys.stdin))))
"""
    resource = {**manifest(name), "spec": cluster_of(manifest(name))}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(resource), capture_output=True, text=True, check=True
    )
    scaled = json.loads(done.stdout.splitlines()[-1])
    kinds = scaled["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0, "no trials beside the driver"
    workers = {kind: node for kind, node in kinds.items() if kind != "headgroup"}
    assert len(workers) == 2
    for node in workers.values():
        assert (node["min_workers"], node["resources"]["GPU"]) == (0, 1)
        assert node["max_workers"] > 0
    assert scaled["max_workers"] == sum(node["max_workers"] for node in workers.values())


def test_ray_up_reads_its_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = manifest("cluster.yaml")
    validate_config(prepare_config(copy.deepcopy(cluster)))
    kinds = dict(cluster["available_node_types"])
    assert kinds.pop(cluster["head_node_type"])["resources"] == {"CPU": 0}
    assert {kind["node_config"]["InstanceType"] for kind in kinds.values()} == {"g6.xlarge", "g6e.xlarge"}
    assert all((kind["min_workers"], kind["resources"]["GPU"]) == (0, 1) for kind in kinds.values())
    assert cluster["max_workers"] == sum(kind["max_workers"] for kind in kinds.values())
    with pytest.raises(jsonschema.ValidationError, match="idle_minutes"):
        validate_config(prepare_config({**cluster, "idle_minutes": 5}))


@pytest.mark.parametrize("name", [*MANIFESTS, "cluster.yaml"])
def test_nodes_share_no_disk_and_the_file_has_no_secret(name: str) -> None:
    text = (JOBS / name).read_text(encoding="utf-8")
    assert not re.search(r"nfs|hostPath|/shared|ReadWriteMany", text, re.IGNORECASE)
    assert re.search("EARLY_EXIT_STORAGE(=|, value: .)s3://REPLACE_BUCKET/", text)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"SECRET_ACCESS_KEY|ACCESS_KEY_ID|PASSWORD|TOKEN", code), "by a Secret or the machine's role"


@pytest.mark.parametrize("name", MANIFESTS)
def test_only_the_head_keeps_a_disk(name: str) -> None:
    cluster, claim = cluster_of(manifest(name)), documents(name)[1]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for where, pod in pods(cluster):
        (volume,) = pod["volumes"]
        if where == "head":
            assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        else:
            assert set(volume) == {"name", "emptyDir"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_have_no_rights_and_time_to_end(name: str) -> None:
    cluster = cluster_of(manifest(name))
    assert f"ray=={cluster['rayVersion']} " in (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for where, pod in pods(cluster):
        (container,) = pod["containers"]
        settings = {entry["name"]: entry["value"] for entry in container["env"]}
        assert pod["securityContext"]["runAsNonRoot"], where
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert [mount["name"] for mount in container["volumeMounts"]] == [v["name"] for v in pod["volumes"]]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        wait = STOP_SECONDS if where == "head" else float(settings["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert wait + 15 < pod["terminationGracePeriodSeconds"]
        assert where == "head" or pod["automountServiceAccountToken"] is False
    (hook,) = (c["lifecycle"]["preStop"]["exec"]["command"] for c in dict(pods(cluster))["head"]["containers"])
    assert (ROOT / hook[-1].replace(".", "/")).with_suffix(".py").is_file()


def test_the_job_has_the_time_to_end_that_a_submitted_one_has() -> None:
    given = yaml.safe_load(manifest("kuberay.yaml")["spec"]["runtimeEnvYAML"])["env_vars"]
    assert set(given) - {"PYTHONPATH"} == set(job_environment({}))
    assert given["RAY_JOB_STOP_WAIT_TIME_S"] == str(STOP_SECONDS)
