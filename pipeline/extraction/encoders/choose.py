"""Find the architecture that a user names, or that a recipe was made by."""

from pipeline.errors import UsageError
from pipeline.extraction.encoders.architecture import Architecture
from pipeline.extraction.encoders.timm_models import timm_architecture
from pipeline.extraction.encoders.timm_names import PREFIX
from pipeline.extraction.encoders.torchvision_models import RESNET50, VIT_B_16

_KNOWN = {one.name: one for one in (RESNET50, VIT_B_16)}


def find_architecture(name: str) -> Architecture:
    """The architecture of a name, such as `resnet50`, `timm:resnet18` or `timm:FOLDER`.

    Raises:
        UsageError: there is none of that name.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    if name.startswith(PREFIX):
        return timm_architecture(name.removeprefix(PREFIX))
    raise UsageError(
        f"encoder {name!r}: expected vgg16, {', '.join(_KNOWN)}, or {PREFIX}<name or folder>"
    )


def name_in(identifier: str) -> str:
    """The name that the identifier in a recipe begins with."""
    return identifier.partition(",")[0]
