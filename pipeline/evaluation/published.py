"""Published figures for BreakHis at 100X, each with its protocol; never mixed with leaking ones."""

from typing import NamedTuple


class Published(NamedTuple):
    """One published result, in percent.

    Attributes:
        source: who.
        protocol: how training and test images were kept apart.
        patient: patient recognition rate, mean ± sd over folds; empty if not given.
        image: image-level accuracy.
    """

    source: str
    protocol: str
    patient: str
    image: str


_OFFICIAL = "patient-disjoint, the official five folds"
_OWN = "patient-disjoint, own 60/20/20 folds"

DISJOINT = (
    Published("PFTAS (Spanhol 2016)", _OFFICIAL, "82.1 ± 4.9", ""),
    Published("CNN (Spanhol 2016)", _OFFICIAL, "84.5 ± 2.4", "85.0 ± 4.8"),
    Published("DeCAF (Spanhol 2017)", _OFFICIAL, "83.9 ± 5.9", "84.8 ± 4.2"),
    Published("MIL-NP (Sudharshan 2019)", _OFFICIAL, "89.1 ± 5.2", "85.6 ± 4.3"),
    Published("ResNet-50 fine-tuned (MPCS)", _OWN, "91.2 ± 5.1", "92.2 ± 4.2"),
    Published("EfficientNet-b2 (MPCS)", _OWN, "93.6 ± 3.4", "93.4 ± 2.8"),
)
"""Of studies that kept patients apart."""

LEAKING = (Published("VGG16 + LSTM, the study reproduced here", "image-level: LEAKS", "", "90.05"),)
"""Of studies that let a patient's images fall on both sides."""


def published_beside(
    classes: tuple[str, ...], magnifications: set[int], leaks: bool
) -> tuple[Published, ...]:
    """What may be shown beside a result: of the same task, and of a protocol of the same kind.

    Args:
        classes: of the result.
        magnifications: of its test images.
        leaks: whether its protocol does.
    """
    if set(classes) != {"benign", "malignant"} or magnifications != {100}:
        return ()
    return LEAKING if leaks else DISJOINT
