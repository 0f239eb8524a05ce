"""Whether the weights of the encoder are at hand."""

from pipeline.doctor.finding import NOTE, OK, Finding

_FETCH = (
    "`pipeline weights --out vgg16.safetensors` fetches them; without a network, "
    "hand it a file with --from FILE"
)


def check_weights() -> Finding:
    """Whether the ImageNet weights are at hand without a network. Nothing is downloaded."""
    from pipeline.errors import UsageError
    from pipeline.weights import sources
    from pipeline.weights.weights_file import load_weights

    path = sources.cached_file()
    if not path.exists():
        return Finding("weights", NOTE, f"no VGG16 weights in {path.parent}", _FETCH)
    try:
        name = load_weights(path).name
    except UsageError as error:
        return Finding("weights", NOTE, str(error), _FETCH)
    if name != "imagenet":
        found = f"{path}: holds other weights ({name}), expected those of ImageNet"
        return Finding("weights", NOTE, found, _FETCH)
    return Finding("weights", OK, f"VGG16 ImageNet weights, their digest is right: {path}")
