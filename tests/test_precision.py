"""The arithmetic of a GPU, as far as a machine without one can tell; tests/test_gpu.py has the rest."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.layout import HERE
from pipeline.models.live import LiveEngine
from pipeline.models.names import BackboneSettings, resolve_backbone
from pipeline.models.precision import autocast_type, equal_bits
from pipeline.models.recording import record_traces
from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import Rows, TaskSettings
from tests.chain import chain_model
from tests.prepared import prepared, trained


def test_tf32_is_off_wherever_a_model_trains_or_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has it on for convolutions, unless it is told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    task = resolve_task("demo-sentences", TaskSettings(rows=Rows(train=40, selection=12, report=12)))
    spec = resolve_backbone("demo-albert", BackboneSettings(layers=1))
    manifest = prepared(task, spec)
    for use in (
        lambda: trained(task, manifest, spec, "joint"),
        lambda: next(record_traces(HERE.trial("joint"), manifest, "demo-albert", ["validation"], "cpu")),
        lambda: LiveEngine(chain_model(3), None),
    ):
        torch.backends.cudnn.allow_tf32 = True
        use()
        assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("major", "expected"), [(7, None), (8, torch.bfloat16), (9, torch.bfloat16)])
def test_bf16_is_taken_where_the_chip_has_it(
    major: int, expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A V100 is 7.0; Torch emulates bf16 there, and counts it as supported."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    assert autocast_type("cuda") == expected
    assert autocast_type("cpu") is None


def test_the_cpu_is_left_as_it_is() -> None:
    equal_bits("cpu")
    assert not torch.are_deterministic_algorithms_enabled()
