"""Everything that is wrong with a cache, and with the images it was made from."""

from pathlib import Path

from cache import CacheError, verify
from pipeline.caches.sources import changed_images
from pipeline.progress import Progress, silent


def find_faults(cache_file: Path, root: Path | None, progress: Progress = silent) -> list[str]:
    """Check a cache and, unless `root` is None, its image files.

    Args:
        cache_file: the cache.
        root: folder to which the paths of the images are relative, see `changed_images`.
        progress: told of each image.

    Returns:
        One line for each fault, and a last one that counts the images; none if all is sound.
    """
    violations = verify(cache_file)
    if root is None:
        return violations
    try:
        changed, images = changed_images(cache_file, root, progress)
    except CacheError as error:
        return [*violations, f"{cache_file}: its images were not checked, because: {error}"]
    if not changed:
        return violations
    return [
        *violations,
        *changed,
        f"{len(changed)} of {images} images are not what the cache was made from "
        f"(relative paths were looked for in {root}, see --root)",
    ]
