"""torch and torchvision: the pinned releases, and that they compute."""

from typing import TYPE_CHECKING

from pipeline.doctor.finding import FAULT, OK, Finding
from pipeline.doctor.requirements import ANEW, pip_install, required, unmet

if TYPE_CHECKING:  # it may be missing, which a check then tells
    import torch


def check_torch() -> Finding:
    """That torch imports, is the release that is pinned, and computes."""
    import torch

    version, wanted = torch.__version__, unmet("torch", torch.__version__)
    if wanted:
        advice = f"features are compared bit for bit: {pip_install(wanted)}"
        return Finding("torch", FAULT, f"{version}, expected {wanted}", advice)
    problem = convolution_problem(torch.device("cpu"))
    if problem:
        advice = f"install it again: {pip_install(required('torch'), options=ANEW)}"
        return Finding("torch", FAULT, f"{version}: {problem}", advice)
    return Finding("torch", OK, f"{version}, {torch.get_num_threads()} threads")


def convolution_problem(device: "torch.device") -> str:
    """What is wrong with a small convolution on a device; empty if nothing is."""
    import torch

    try:
        kernels = torch.ones(4, 3, 3, 3, device=device)
        sums = torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8, device=device), kernels)
        right = torch.allclose(sums, torch.full_like(sums, 27), rtol=1e-3)
    except RuntimeError as error:
        return f"a small convolution fails ({error})"
    return "" if right else f"a small convolution gives {sums.flatten()[0]:g}, expected 27"


def check_torchvision() -> Finding:
    """That torchvision imports, and is the release that is pinned."""
    from pipeline.errors import PipelineError
    from pipeline.torchvision_shim import import_torchvision

    try:
        version = str(import_torchvision().__version__)
    except PipelineError as error:
        return Finding(
            "torchvision", FAULT, str(error), pip_install(required("torchvision"), options=ANEW)
        )
    wanted = unmet("torchvision", version)
    if wanted:
        return Finding("torchvision", FAULT, f"{version}, expected {wanted}", pip_install(wanted))
    return Finding("torchvision", OK, version)
