"""What a damaged cache still holds, as far as it can be proved."""

from collections.abc import Sequence

from cache.errors import CacheDamagedError
from cache.proof import damaged_statistics
from cache.reader import FeatureCache
from cache.schema import ImageRow
from cache.sequences import damaged_images
from cache.table import ImageTable
from cache.verify import content_fits


def intact_images(cache: FeatureCache) -> list[int]:
    """The positions of the images of which everything but their row is as it was written."""
    try:
        damaged = {*_damaged_sequences(cache), *damaged_statistics(cache)}
    except CacheDamagedError:
        return []
    return [image for image in range(len(cache)) if image not in damaged]


def _damaged_sequences(cache: FeatureCache) -> list[int]:
    try:
        return damaged_images(cache)
    except CacheDamagedError:  # it is the digests of images that are damaged, or the offsets
        if content_fits(cache):
            return []
        raise


def proved_rows(cache: FeatureCache, manifest: Sequence[ImageRow] = ()) -> list[ImageRow]:
    """The image table of a cache, or the same rows from a manifest if the table is damaged.

    Args:
        cache: the cache.
        manifest: rows of which those that did not fail may be the cache's.

    Raises:
        CacheDamagedError: neither has the digest that the cache declares.
    """
    try:
        cache.expect("manifest_sha256", cache.images.sha256())
        return cache.images.rows()
    except CacheDamagedError as error:
        failed = {failure.image_id for failure in cache.failures}
        rows = [row for row in manifest if row.image_id not in failed]
        if ImageTable.from_rows(rows).sha256() == cache.attributes["manifest_sha256"]:
            return rows
        raise CacheDamagedError(f"{cache.path}: its image table is damaged ({error})") from error
