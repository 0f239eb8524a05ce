"""Choose what computes: engine, devices, precision."""

import logging
import re
from dataclasses import dataclass

import torch

from pipeline.errors import UsageError
from pipeline.extraction.encoders.choose import find_architecture
from pipeline.extraction.encoders.recipe import AnyWeights
from pipeline.extraction.engines.encoder import Encoder
from pipeline.extraction.engines.model_encoder import ModelEncoder
from pipeline.extraction.engines.ncnn_encoder import NcnnEncoder, ncnn_version
from pipeline.extraction.engines.round_robin import RoundRobin
from pipeline.extraction.engines.torch_encoder import TorchEncoder
from pipeline.extraction.recipe import ENCODER, PRECISIONS, PatchOptions
from pipeline.weights.weights_file import Weights

log = logging.getLogger(__name__)

ENGINES = ("auto", "ncnn", "torch")


@dataclass(frozen=True)
class Backend:
    """What computes: `ncnn` or `torch`, on devices of one type, in one of `PRECISIONS`."""

    engine: str
    devices: tuple[torch.device, ...]
    precision: str

    @property
    def device_type(self) -> str:
        """`cpu` or `cuda`."""
        return self.devices[0].type


def choose_backend(
    device: str = "auto", precision: str = "auto", engine: str = "auto", encoder: str = ENCODER
) -> Backend:
    """Resolve what a user chose; `auto` is the fastest that is there.

    Raises:
        UsageError: one of the choices does not exist, is not there or does not fit the others.
    """
    devices = choose_devices(device)
    chosen = choose_precision(precision, devices[0])
    if encoder != ENCODER:
        if engine == "ncnn":
            raise UsageError(f"engine ncnn: computes {ENCODER} only: use --engine torch")
        engine = "torch"
    return Backend(choose_engine(engine, devices[0]), devices, chosen)


def choose_devices(name: str) -> tuple[torch.device, ...]:
    """Resolve `auto`, `cpu`, `cuda` (both: all CUDA devices), or `cuda:N,cuda:M`.

    Raises:
        UsageError: it is none of these, or CUDA was asked for and is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return (torch.device("cpu"),)
    if name in ("auto", "cuda"):
        _check_cuda(name)
        return tuple(torch.device("cuda", n) for n in range(torch.cuda.device_count()))
    parts = name.split(",")
    if len(set(parts)) < len(parts) or not all(re.fullmatch("cuda:[0-9]{1,3}", p) for p in parts):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda, cuda:N or cuda:N,cuda:M")
    _check_cuda(name)
    devices = tuple(torch.device(part) for part in parts)
    count = torch.cuda.device_count()
    if max(device.index for device in devices) >= count:
        raise UsageError(
            f"device {name}: there are {count} CUDA devices, counted from 0: choose among them"
        )
    return devices


def _check_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        raise UsageError(
            f"device {name}: torch {torch.__version__} finds no CUDA device here: "
            "use --device cpu, or check the driver with nvidia-smi"
        )


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: float32 on the CPU, mixed float16 on CUDA.

    Raises:
        UsageError: it is none of `PRECISIONS`, or mixed precision was asked for on the CPU.
    """
    if name == "auto":
        return "float16" if device.type == "cuda" else "float32"
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r}: expected auto, {', '.join(PRECISIONS)}")
    if name != "float32" and device.type == "cpu":
        raise UsageError(f"precision {name}: on the CPU only float32 is offered")
    return name


def choose_engine(name: str, device: torch.device) -> str:
    """Resolve `auto`: ncnn on the CPU, torch on CUDA, and on a CPU without ncnn, which is told.

    Raises:
        UsageError: it is none of `ENGINES`, or ncnn was asked for and cannot be used.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r}: expected {', '.join(ENGINES)}")
    if name == "torch" or (name == "auto" and device.type == "cuda"):
        return "torch"
    if device.type == "cuda":
        raise UsageError(f"engine ncnn: computes on the CPU, not on {device}: use --engine torch")
    if ncnn_version() is not None:
        return "ncnn"
    if name == "ncnn":
        raise UsageError("engine ncnn: it is not installed: pip install ncnn, or --engine torch")
    log.warning("ncnn is not installed: torch encodes, which takes about three times as long")
    return "torch"


def make_encoder(
    weights: AnyWeights, backend: Backend, options: PatchOptions, threads: int
) -> Encoder:
    """Make an encoder, and set the threads that torch computes with.

    Args:
        weights: of the network.
        backend: what computes.
        options: what is computed.
        threads: CPU threads to use.
    """
    if backend.engine == "ncnn" and isinstance(weights, Weights):
        torch.set_num_threads(1)  # each thread that encodes pools on its own
        return NcnnEncoder(weights, options, threads)
    torch.set_num_threads(threads)
    encoders = [
        _on_torch(weights, device, backend.precision, options) for device in backend.devices
    ]
    return encoders[0] if len(encoders) == 1 else RoundRobin(encoders)


def _on_torch(
    weights: AnyWeights, device: torch.device, precision: str, options: PatchOptions
) -> TorchEncoder:
    if isinstance(weights, Weights):
        return TorchEncoder(weights, device, precision, options)
    return ModelEncoder(find_architecture(options.encoder), weights, device, precision)
