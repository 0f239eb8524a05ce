"""Join the shards of an extraction that several jobs made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache import Failure, FeatureCache, merge, merge_virtual
from pipeline.errors import PipelineError, UsageError
from pipeline.tables import write_table


@dataclass(frozen=True)
class Merged:
    """What a merged cache holds."""

    images: int
    patches: int
    shards: int
    failures: list[Failure]
    virtual: bool = False

    def summary(self) -> str:
        """One line for a person."""
        text = f"{self.images} images, {self.patches} patches, of {self.shards} shards"
        text += ", which hold the features and must stay where they are" if self.virtual else ""
        return text + (f"; {len(self.failures)} images have no features" if self.failures else "")


def merge_shards(
    shards: Sequence[Path],
    out: Path,
    allow_failures: int = 0,
    overwrite: bool = False,
    virtual: bool = False,
) -> Merged:
    """Join all shards of one extraction into a cache, one shard after another in memory.

    Args:
        shards: outputs of `pipeline extract --shard`, in any order, or folders of them.
        out: the cache. Images without features are listed beside it, in `<stem>.failures.csv`.
        allow_failures: images that may have no features, in all shards together.
        overwrite: replace an output that exists.
        virtual: copy no features; the cache refers to the shards, which must lie in or below its
            folder.

    Raises:
        UsageError: there are no shards, or the output exists.
        PipelineError: too many images have no features.
        CacheError: a shard is missing, damaged, there twice, of another extraction or recipe,
            or, for a virtual cache, elsewhere.
        PublishError: the output cannot be written.
    """
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists already: choose another --out, or give --overwrite")
    files = _files(shards, out)
    failures = [failure for file in files for failure in _failures(file)]
    listing = out.with_name(f"{out.stem}.failures.csv")
    if failures:
        write_table(listing, Failure._fields, failures)
    else:
        listing.unlink(missing_ok=True)
    if len(failures) > allow_failures:
        raise PipelineError(
            f"{out}: not merged, as {len(failures)} images of the shards have no features (all are "
            f"in {listing}): mend them and extract again, or give --allow-failures {len(failures)}"
        )
    join = merge_virtual if virtual else merge
    join(files, out, {**_provenance(files), "merged": f"from {len(files)} shards"})
    with FeatureCache(out) as cache:
        return Merged(len(cache), cache.patches, len(files), failures, virtual)


def _files(shards: Sequence[Path], out: Path) -> list[Path]:
    files = []
    for place in shards:
        found = sorted(place.glob("*.h5")) if place.is_dir() else [place]
        if not found:
            raise UsageError(f"{place}: no shards (*.h5) in this folder")
        files += found
    if not files:
        raise UsageError("no shard was given: nothing to merge")
    if out.resolve() in {file.resolve() for file in files}:
        raise UsageError(f"{out}: is a shard itself, which --out would replace: choose another")
    return files


def _failures(file: Path) -> list[Failure]:
    with FeatureCache(file) as shard:
        return shard.failures


def _provenance(files: Sequence[Path]) -> Mapping[str, str]:
    """What the shards say of their making; where they differ, all that they say, in order."""
    said: dict[str, dict[str, None]] = {}
    for file in files:
        with FeatureCache(file) as shard:
            for name, text in shard.provenance.items():
                said.setdefault(name, {})[text] = None
    return {
        name: min(texts) if name == "created" else "; ".join(list(texts)[:_SHOWN])
        for name, texts in said.items()
    }


_SHOWN = 8
