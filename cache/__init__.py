"""The feature cache: one HDF5 file that holds the patch features of a data set.

`FORMAT.md` in this folder specifies the file. This package needs NumPy and h5py only.

Example:
    >>> from cache import FeatureCache
    >>> with FeatureCache("features.h5") as cache:      # doctest: +SKIP
    ...     print(len(cache), cache.recipe.encoder, cache.sequence(0).shape)
"""

from cache.compare import Comparison, FeatureDifference, ImageDifference, compare
from cache.errors import (
    CacheDamagedError,
    CacheError,
    CacheFormatError,
    CacheIncompleteError,
    ImageTableError,
    PublishError,
    RecipeError,
    UnknownImageError,
)
from cache.merge import merge, merge_virtual
from cache.reader import FeatureCache
from cache.relabel import RELABELLED, relabel
from cache.schema import FORMAT_VERSION, Failure, ImageRow, Recipe, ShardPlace
from cache.statistics import COLOUR_NAMES, ImageStatistics, Statistics
from cache.table import ImageTable
from cache.verify import check, verify
from cache.writer import CacheWriter, write_cache

__all__ = [
    "COLOUR_NAMES",
    "FORMAT_VERSION",
    "RELABELLED",
    "CacheDamagedError",
    "CacheError",
    "CacheFormatError",
    "CacheIncompleteError",
    "CacheWriter",
    "Comparison",
    "Failure",
    "FeatureCache",
    "FeatureDifference",
    "ImageDifference",
    "ImageRow",
    "ImageStatistics",
    "ImageTable",
    "ImageTableError",
    "PublishError",
    "Recipe",
    "RecipeError",
    "ShardPlace",
    "Statistics",
    "UnknownImageError",
    "check",
    "compare",
    "merge",
    "merge_virtual",
    "relabel",
    "verify",
    "write_cache",
]
