"""ResNet-50 and ViT-B/16 of torchvision, up to the classifier."""

from torch import nn

from pipeline.extraction.encoders.architecture import Architecture
from pipeline.torchvision_shim import import_torchvision

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _resnet50() -> nn.Module:
    network: nn.Module = import_torchvision().models.resnet50(weights=None)
    network.fc = nn.Identity()
    return network


def _vit_b_16() -> nn.Module:
    network: nn.Module = import_torchvision().models.vit_b_16(weights=None)
    network.heads = nn.Identity()
    return network


RESNET50 = Architecture(
    name="resnet50",
    library="torchvision",
    layer="avgpool",
    feature_dim=2048,
    input_size=None,
    mean=IMAGENET_MEAN,
    sd=IMAGENET_SD,
    build=_resnet50,
)
VIT_B_16 = Architecture(
    name="vit_b_16",
    library="torchvision",
    layer="class token after the last norm",
    feature_dim=768,
    input_size=224,
    mean=IMAGENET_MEAN,
    sd=IMAGENET_SD,
    build=_vit_b_16,
)
