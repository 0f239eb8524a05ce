"""Import torchvision also where its compiled part cannot load.

Beside a CPU-only torch the registry's torchvision, a CUDA build, cannot load its compiled part,
and its import fails with `operator torchvision::nms does not exist` (pytorch/vision #9085).
"""

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from pipeline.errors import PipelineError

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""The operators whose schemas the import needs, as torchvision's own sources declare them."""


def import_torchvision() -> ModuleType:
    """Import torchvision; where its compiled part cannot load, without its operators.

    `torchvision.models` and `torchvision.transforms.v2` work either way. Without the compiled
    part `torchvision.io` and the detection operators do not. May be called any number of times.

    Returns:
        The module.

    Raises:
        PipelineError: torchvision is not installed, or does not fit the installed torch.
    """
    if "torchvision" not in sys.modules:
        _define_missing_operators(_package_folder())
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError, AttributeError) as error:
        raise PipelineError(
            f"torchvision cannot be imported ({error}): "
            "install the release that pairs with the installed torch"
        ) from error


def _package_folder() -> Path:
    """Where torchvision is installed, found without importing it."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise PipelineError("torchvision is not installed: install this project's dependencies")
    return Path(spec.origin).parent


def _define_missing_operators(package: Path) -> None:
    import torch

    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        _load(package / f"_C{suffix}")
    for name, schema in _SCHEMAS.items():
        # The real operators come first: a schema defined before them would stop them loading.
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)


def _load(library: Path) -> bool:
    """Load a compiled library; False where there is none or it does not fit this torch."""
    import torch

    if not library.is_file():
        return False
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
