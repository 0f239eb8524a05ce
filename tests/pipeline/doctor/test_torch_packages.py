"""torch and torchvision: another release, or one that does not compute, is told with advice."""

import pytest
import torch

from pipeline import torchvision_shim
from pipeline.doctor import torch_packages
from pipeline.doctor.finding import FAULT, OK
from pipeline.errors import PipelineError


def test_another_torch_than_the_pinned_one_is_a_fault_with_advice(require):
    require("torch==1.2.3")
    finding = torch_packages.check_torch()
    assert finding.state == FAULT
    assert finding.found == f"{torch.__version__}, expected torch==1.2.3"
    assert 'pip install "torch==1.2.3"' in finding.advice


def test_a_cpu_build_of_the_pinned_torch_is_the_pinned_torch(require):
    require(f"torch=={torch.__version__.partition('+')[0]}")
    assert torch_packages.check_torch().state == OK


@pytest.mark.parametrize("value", [float("nan"), 26.0])
def test_a_torch_that_computes_wrong_numbers_is_a_fault_with_advice(monkeypatch, value):
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda *arrays: torch.full((1, 4, 6, 6), value)
    )
    finding = torch_packages.check_torch()
    assert finding.state == FAULT
    assert f"gives {value:g}, expected 27" in finding.found
    assert "--force-reinstall" in finding.advice


def test_another_torchvision_than_the_pinned_one_is_a_fault_with_advice(require):
    require("torchvision==0.1.0")
    finding = torch_packages.check_torchvision()
    assert (finding.state, finding.advice) == (FAULT, 'pip install "torchvision==0.1.0"')


def test_a_torchvision_that_does_not_import_is_a_fault_with_the_pinned_release(
    require, monkeypatch
):
    def fails():
        raise PipelineError("torchvision cannot be imported (why)")

    require("torchvision==0.1.0")
    monkeypatch.setattr(torchvision_shim, "import_torchvision", fails)
    finding = torch_packages.check_torchvision()
    assert (finding.state, finding.found) == (FAULT, "torchvision cannot be imported (why)")
    assert finding.advice == 'pip install --force-reinstall "torchvision==0.1.0"'
