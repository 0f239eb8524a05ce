"""The one parser of BreakHis file names.

A name is `SOB_<B|M>_<subtype>-<year>-<slide>-<magnification>-<sequence>.png`, after Spanhol et
al., "A Dataset for Breast Cancer Histopathological Image Classification", IEEE TBME 63(7), 2016.
"""

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.dataset.images import SUFFIXES

MAGNIFICATIONS = (40, 100, 200, 400)
LABELS = {"B": "benign", "M": "malignant"}
SUBTYPES = {
    ("B", "A"): "adenosis",
    ("B", "F"): "fibroadenoma",
    ("B", "PT"): "phyllodes_tumor",
    ("B", "TA"): "tubular_adenoma",
    ("M", "DC"): "ductal_carcinoma",
    ("M", "LC"): "lobular_carcinoma",
    ("M", "MC"): "mucinous_carcinoma",
    ("M", "PC"): "papillary_carcinoma",
}
"""Letter of the class and letters of the subtype → name of the subtype, as its folder is called."""

_LETTERS = {subtype: letters for letters, subtype in SUBTYPES.items()}

_STEM = re.compile(
    r"SOB_(?P<label>[BM])_(?P<subtype>[A-Z]+)"
    r"-(?P<case>[0-9]{2}-[0-9]+)(?P<block>[A-Z]*)"
    rf"-(?P<magnification>{'|'.join(map(str, MAGNIFICATIONS))})"
    r"-(?P<sequence>[0-9]{3}|[1-9][0-9]{3,5})"
)


class BreakHisName(NamedTuple):
    """What a BreakHis file name says.

    `slide` is year and number with the letters of its block, such as `14-22549AB`. `case` is the
    same without the letters: blocks of one number are very probably of one patient.
    """

    label: str
    subtype: str
    slide: str
    case: str
    magnification: int
    sequence: int

    @property
    def image_id(self) -> str:
        """The file's stem, such as `SOB_B_TA-14-4659-40-001`."""
        label, subtype = _LETTERS[self.subtype]
        return f"SOB_{label}_{subtype}-{self.slide}-{self.magnification}-{self.sequence:03d}"


def parse_name(file_name: str) -> BreakHisName | None:
    """Read a BreakHis file name, with the ending of any image format.

    Returns:
        What the name says, or None if it is not such a name, to the letter.
    """
    name = PurePosixPath(file_name)
    match = _STEM.fullmatch(file_name.removesuffix(name.suffix))
    if match is None or name.suffix.lower() not in SUFFIXES:
        return None
    subtype = SUBTYPES.get((match["label"], match["subtype"]))
    if subtype is None:
        return None
    return BreakHisName(
        label=LABELS[match["label"]],
        subtype=subtype,
        slide=match["case"] + match["block"],
        case=match["case"],
        magnification=int(match["magnification"]),
        sequence=int(match["sequence"]),
    )
