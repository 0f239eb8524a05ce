"""Write the features of a cache in the layout of another tool."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import FeatureCache
from pipeline.dataset.manifest import write_manifest
from pipeline.errors import UsageError
from pipeline.exchange.folders import check_replaceable, publish_folder
from pipeline.exchange.micrometres import check_mpp
from pipeline.exchange.options import Facts, Options
from pipeline.exchange.record import write_record
from pipeline.exchange.source import Source, find_view
from pipeline.exchange.to_anndata import write_anndata
from pipeline.exchange.to_clam import write_clam
from pipeline.exchange.to_numpy import write_numpy
from pipeline.exchange.to_stamp import write_stamp
from pipeline.exchange.to_torchmil import write_torchmil
from pipeline.exchange.to_trident import write_trident
from pipeline.interrupts import watch_signals
from pipeline.progress import Progress, silent

_WRITERS: dict[str, Callable[[Source, Path, Options], Facts]] = {
    "trident": write_trident,
    "clam": write_clam,
    "stamp": write_stamp,
    "torchmil": write_torchmil,
    "anndata": write_anndata,
    "numpy": write_numpy,
}


@dataclass(frozen=True)
class ExportResult:
    """What an export holds."""

    images: int
    patches: int
    feature_dim: int

    def summary(self) -> str:
        """One line for a person."""
        return f"{self.images} images, {self.patches} patches of {self.feature_dim} features"


def export(
    path: Path,
    layout: str,
    folder: Path,
    options: Options | None = None,
    progress: Progress = silent,
) -> ExportResult:
    """Write a cache as the files of another tool, a folder that appears whole.

    Beside them are `images.csv`, a manifest of the images, and `export.json`.

    Args:
        path: the cache.
        layout: `trident`, `clam`, `stamp`, `torchmil`, `anndata` or `numpy`.
        folder: the folder to publish.
        options: see `Options`.
        progress: told of each image.

    Raises:
        UsageError: an option is wrong, or the folder exists.
        PipelineError: a package is missing, or the layout cannot hold what the cache holds.
        CacheError: the cache is not sound.
        PublishError: the folder cannot be written.
        StoppedError: a signal came; nothing was published.
    """
    options = options or Options()
    _check(path, layout, folder, options)
    with FeatureCache(path, seal="whole") as cache:
        view = find_view(path, cache.recipe, options.view)
        with (
            watch_signals("stopping after this image") as interruption,
            publish_folder(folder) as content,
            progress(len(cache), 0) as advance,
        ):
            source = Source(cache, view, interruption, advance)
            facts = _WRITERS[layout](source, content, options)
            write_manifest(content / "images.csv", cache.images.rows())
            write_record(content, layout, source, {"mpp": options.mpp, **facts})
        return ExportResult(len(cache), int(source.offsets[-1]), cache.recipe.feature_dim)


def _check(path: Path, layout: str, folder: Path, options: Options) -> None:
    if path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{folder}: holds {path.name}, the input: choose another --out")
    check_mpp(options.mpp)
    if options.mpp is not None and layout != "stamp":
        raise UsageError(
            f"--mpp is for stamp: the coordinates of {layout} are pixels: leave it out"
        )
    check_replaceable(folder, options.overwrite)
