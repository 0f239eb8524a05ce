"""What a cache tells of each image's pixels: colour, perceptual hash and a digest, with proof."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError

COLOUR_NAMES = (
    *("mean_r", "mean_g", "mean_b", "sd_r", "sd_g", "sd_b"),
    *("correlation_rg", "correlation_rb", "correlation_gb"),
    *("percentile_5", "percentile_50", "percentile_95"),
)
"""The columns of `colour`, which FORMAT.md defines."""

HASH_BYTES = 32
COLOUR_DTYPE = np.dtype("<f4")
HASH_DTYPE = np.dtype("u1")

GROUP = "statistics"
ATTRIBUTE = "statistics_sha256"


class ImageStatistics(NamedTuple):
    """The statistics of one image.

    Attributes:
        colour: (12,) float32, see `COLOUR_NAMES`.
        perceptual_hash: (32,) uint8, 256 bits.
        pixels_sha256: SHA-256 of the image's shape and pixels.
    """

    colour: NDArray[np.float32]
    perceptual_hash: NDArray[np.uint8]
    pixels_sha256: str


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics of all N images of a cache.

    Attributes:
        colour: (N, 12) float32, see `COLOUR_NAMES`.
        perceptual_hash: (N, 32) uint8, 256 bits an image.
        pixels_sha256: (N,) text: equal where images have the same pixels.
    """

    colour: NDArray[np.float32]
    perceptual_hash: NDArray[np.uint8]
    pixels_sha256: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.colour)

    def __getitem__(self, image: int) -> ImageStatistics:
        """Those of the image at a position."""
        return ImageStatistics(
            self.colour[image], self.perceptual_hash[image], self.pixels_sha256[image]
        )

    @classmethod
    def stack(cls, images: Sequence[ImageStatistics]) -> Self:
        """Join the statistics of images."""
        colour = np.array([image.colour for image in images], COLOUR_DTYPE)
        hashes = np.array([image.perceptual_hash for image in images], HASH_DTYPE)
        return cls(
            colour.reshape(-1, len(COLOUR_NAMES)),
            hashes.reshape(-1, HASH_BYTES),
            np.array([image.pixels_sha256 for image in images], object),
        )

    def digests(self) -> list[bytes]:
        """SHA-256 of each image's statistics, in hexadecimal: colour, hash, then text."""
        texts = [text.encode() for text in self.pixels_sha256.tolist()]
        rows = zip(self.colour, self.perceptual_hash, texts, strict=True)
        return [
            hashlib.sha256(colour.tobytes() + bits.tobytes() + text).hexdigest().encode()
            for colour, bits, text in rows
        ]

    def sha256(self) -> str:
        """The `statistics_sha256` of FORMAT.md."""
        return joint_digest(self.digests())

    def unusable(self) -> list[int]:
        """Positions of images with a number that is not finite, or a text that is no digest."""
        infinite = set(np.flatnonzero(~np.isfinite(self.colour).all(axis=1)).tolist())
        texts = self.pixels_sha256.tolist()
        return [i for i, text in enumerate(texts) if i in infinite or not _is_digest(text)]


def joint_digest(digests: Sequence[bytes]) -> str:
    """SHA-256 of the digests of all images, 64 bytes each."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def check_statistics(image: ImageStatistics, where: str) -> ImageStatistics:
    """Check what is to be written of one image.

    Raises:
        CacheError: an array has another shape or type, a number is not finite, or the text is not
            a SHA-256.
    """
    for name, values, dtype, length in (
        ("colour", image.colour, COLOUR_DTYPE, len(COLOUR_NAMES)),
        ("perceptual_hash", image.perceptual_hash, HASH_DTYPE, HASH_BYTES),
    ):
        if values.shape != (length,) or values.dtype != dtype:
            raise CacheError(
                f"{where}: {name} is {values.dtype} {values.shape}, expected {dtype} ({length},)"
            )
    if Statistics.stack([image]).unusable():
        raise CacheError(
            f"{where}: statistics are not finite, or pixels_sha256 is not 64 hexadecimal digits"
        )
    return image


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")
