"""The arithmetic of training and of a GPU, as far as a machine without one can tell; tests/test_gpu.py has the rest."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import UnsupportedError
from pipeline.layout import HERE
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.names import BackboneSettings, resolve_backbone
from pipeline.models.precision import autocast_type, equal_bits
from pipeline.models.recording import record_traces
from pipeline.models.residual import ResNet
from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import Rows, TaskSettings
from pipeline.training.groups import identity_of
from pipeline.training.settings import ImageTraining, Training
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
    assert autocast_type("cuda", "float32") is None
    if expected is None:
        with pytest.raises(UnsupportedError, match=r"training\.precision: 'bf16' and this GPU has no bf16; set auto"):
            autocast_type("cuda", "bf16")
    else:
        assert autocast_type("cuda", "bf16") == expected


def test_precision_is_part_of_a_trial_s_key_where_it_is_set() -> None:
    for block in (Training, ImageTraining):
        assert "precision" not in identity_of(block()), "keys of before hold"
        assert identity_of(block(precision="bf16"))["precision"] == "bf16"
        assert identity_of(block(precision="float32"))["precision"] == "float32"
    with pytest.raises(ValidationError, match="precision"):
        Training.model_validate({"precision": "fp16"})


def test_rows_per_pass_are_part_of_the_key_where_networks_normalise_over_them() -> None:
    assert identity_of(Training(micro_batch=8)) == identity_of(Training())
    assert "micro_batch" not in identity_of(ImageTraining()), "keys of before hold"
    assert identity_of(ImageTraining(micro_batch=8))["micro_batch"] == 8
    torch.manual_seed(0)
    network, images = ResNet(8, 4, (0.5,) * 3, (0.5,) * 3), torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8)
    model = MultiExit(network, network.exit_places(), 2).train()
    whole, parts = model({"image": images}), torch.cat([model({"image": part}) for part in images.split(8)])
    assert not torch.allclose(whole, parts, atol=1e-3)


def test_the_cpu_is_left_as_it_is() -> None:
    equal_bits("cpu")
    assert not torch.are_deterministic_algorithms_enabled()
