"""Importing torchvision, each time in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

from pipeline import torchvision_shim
from pipeline.errors import PipelineError
from pipeline.weights.weights_file import LAYERS

USE = """
import json, sys
try:
    import torchvision
except RuntimeError:
    pass  # as beside a CPU-only torch; the shim must work after that too
from pipeline.torchvision_shim import import_torchvision
module = import_torchvision()
assert import_torchvision() is module is sys.modules["torchvision"]
import torch
from torchvision.models import vgg16
from torchvision.transforms import v2
schemas = [str(getattr(torch.ops.torchvision, name).default._schema) for name in ("nms", "qnms")]
v2.CenterCrop(2)(torch.zeros(3, 4, 4))
with torch.device("meta"):
    state = vgg16().features.state_dict()
print(json.dumps([schemas, {f"features.{k}": tuple(v.shape) for k, v in state.items()}]))
"""

PRESENT = """
import torch
torch.library.define("torchvision::nms", "(Tensor mine, Tensor scores, float t) -> Tensor")
from pipeline.torchvision_shim import import_torchvision
import_torchvision()
assert "Tensor mine" in str(torch.ops.torchvision.nms.default._schema)
assert torch.ops.torchvision.qnms
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_torchvision_imports_and_its_vgg16_has_the_layers_of_the_weights():
    schemas, layers = json.loads(run(USE))
    arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    assert schemas == [f"torchvision::{name}{arguments}" for name in ("nms", "qnms")]
    assert list(layers.items()) == [(name, list(shape)) for name, shape in LAYERS.items()]


@pytest.mark.slow
def test_an_operator_that_exists_is_not_defined_again():
    run(PRESENT)


def test_a_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setattr(torchvision_shim.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(PipelineError, match="torchvision is not installed"):
        torchvision_shim.import_torchvision()
