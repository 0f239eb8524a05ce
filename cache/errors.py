"""The tree of errors of the feature cache."""


def printable(text: str) -> str:
    """`text` with what cannot be shown as escapes: a forged file may command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class CacheError(Exception):
    """Anything that is wrong with a cache, a shard, or the way they are used."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


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
