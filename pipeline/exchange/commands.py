"""The verbs `pipeline cache export` and `import`: parse and call. Heavy imports wait."""

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.arguments import FAILURES, FILE, FOLDER, keep_inputs

_SHOWN = 20


@click.command("export")
@click.argument("file", type=FILE, metavar="FEATURES")
@click.option(
    "--to",
    "layout",
    required=True,
    type=click.Choice(["trident", "clam", "stamp", "torchmil", "anndata", "numpy"]),
    help="Tool whose layout the files get.",
)
@click.option("--out", required=True, type=FOLDER, help="Folder to make.")
@click.option("--mpp", type=float, help="Micrometres a pixel of the images; for stamp.")
@click.option("--view", help="View to export, if FEATURES holds several.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
def export_cache(
    file: Path, layout: str, out: Path, mpp: float | None, view: str | None, overwrite: bool
) -> None:
    """Write FEATURES, a cache, as files that another tool reads.

    Beside them are images.csv, a manifest of the images, and export.json, which says how the
    features were made.

    \b
    Example:
      pipeline cache export features.h5 --to trident --out trident
    """
    from pipeline.exchange.exporting import export
    from pipeline.exchange.options import Options
    from pipeline.progress import bar

    result = export(file, layout, out, Options(mpp, view, overwrite), bar("exporting", "images"))
    click.echo(f"{out}: {result.summary()}")


@click.command("import")
@click.argument("folder", type=FOLDER)
@click.option(
    "--from",
    "tool",
    required=True,
    type=click.Choice(["trident", "clam", "stamp"]),
    help="Tool that made the files.",
)
@click.option("--manifest", required=True, type=FILE, help="Manifest of the images.")
@click.option("--out", required=True, type=FILE, help="Feature cache to write, an HDF5 file.")
@click.option("--mpp", type=float, help="Micrometres a pixel of the images; for stamp.")
@click.option("--encoder", help="Name of the encoder, where the files do not say it.")
@click.option(
    "--patch-size",
    type=click.IntRange(min=1),
    help="Side of a patch in pixels of the image, where the files do not say it.",
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Step between patches in pixels of the image.  [default: what the files say, or the "
    "patch size]",
)
@click.option(
    "--allow-failures",
    type=FAILURES,
    default=0,
    show_default=True,
    help="Images that may be left out.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
def import_cache(
    folder: Path,
    tool: str,
    manifest: Path,
    out: Path,
    mpp: float | None,
    encoder: str | None,
    patch_size: int | None,
    stride: int | None,
    allow_failures: int,
    overwrite: bool,
) -> None:
    """Read patch features that another tool made into a cache.

    FOLDER holds <image_id>.h5 for each image of the manifest, or the tool's subfolder that does.
    Images without a usable file are listed beside the cache, in <stem>.failures.csv.

    \b
    Example:
      pipeline cache import trident --from trident --manifest manifest.csv --out imported.h5
    """
    from pipeline.exchange.describe import Described
    from pipeline.exchange.importing import ImportOptions, import_files
    from pipeline.progress import bar

    keep_inputs(out, manifest)
    options = ImportOptions(mpp, Described(encoder, patch_size, stride), allow_failures, overwrite)
    result = import_files(folder, tool, manifest, out, options, bar("importing", "images"))
    click.echo(f"{out}: {result.summary()}")
    _report("images have no features", [failure.reason for failure in result.failures])
    _report("files are of no image of the manifest", result.extra)


def _report(what: str, lines: Sequence[str]) -> None:
    from pipeline.user_file import printable

    if lines:
        click.echo(f"{len(lines)} {what}:", err=True)
        for line in lines[:_SHOWN]:
            click.echo(f"  {printable(line)}", err=True)
        if len(lines) > _SHOWN:
            click.echo(f"  … and {len(lines) - _SHOWN} more", err=True)
