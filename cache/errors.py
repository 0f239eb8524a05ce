"""The tree of errors of the feature cache."""


class CacheError(Exception):
    """Anything that is wrong with a cache, a shard, or the way they are used."""


class CacheFormatError(CacheError):
    """The file is not a cache of a version that this software reads."""


class CacheIncompleteError(CacheError):
    """The file was never finished."""


class CacheDamagedError(CacheError):
    """The content does not agree with the digests or the structure it declares."""


class RecipeError(CacheError):
    """A recipe is malformed, or two recipes that must agree differ."""


class ImageTableError(CacheError):
    """A row of the image table holds a value that the format does not allow."""


class UnknownImageError(CacheError):
    """An image was asked for that the cache does not hold."""


class PublishError(CacheError):
    """A finished file could not be put in its place."""
