"""The verbs `pipeline cache …`: parse and call. Heavy imports wait for a verb."""

import json
from pathlib import Path

import click

from pipeline.arguments import FAILURES, FILE
from pipeline.exchange.commands import export_cache, import_cache

_FAULTS_SHOWN = 20


@click.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def info(file: Path, as_json: bool) -> None:
    """Show what is in a cache, on one screen.

    \b
    Example:
      pipeline cache info features.h5
    """
    from pipeline.caches.info import describe, to_text

    description = describe(file)
    click.echo(json.dumps(description, indent=2) if as_json else to_text(description))


@click.command()
@click.argument("file", type=FILE)
@click.option("--images", is_flag=True, help="Compare the image files with their SHA-256, too.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the manifest, to which the images' paths are relative  [default: FILE's]",
)
def verify(file: Path, images: bool, root: Path | None) -> None:
    """Check every value of a cache against its digests.

    \b
    Example:
      pipeline cache verify features.h5 --images
    """
    from pipeline.caches.verify import find_faults
    from pipeline.progress import bar

    if root and not images:
        raise click.UsageError("--root is for --images: give both")
    folder = (root or file.parent) if images else None
    faults = find_faults(file, folder, bar("hashing", "images"))
    for line in faults:
        click.echo(line, err=True)
    if faults:
        raise click.exceptions.Exit(1)
    click.echo(f"{file}: sound{', and so are its images' if images else ''}")


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--labels",
    required=True,
    type=FILE,
    help="CSV file with a column image_id, and one or more of label, subtype, slide, case, "
    "magnification, such as a corrected manifest. An empty field means that it is not known.",
)
@click.option("--out", required=True, type=FILE, help="Cache to write; may be FILE itself.")
def relabel(file: Path, labels: Path, out: Path) -> None:
    """Correct labels, slides and cases in a cache, without extracting again.

    Images that the CSV file does not name stay as they are, and so do all features.

    \b
    Example:
      pipeline cache relabel features.h5 --labels manifest.csv --out relabelled.h5
    """
    from pipeline.caches.labels import relabel_from

    click.echo(f"{out}: {relabel_from(file, labels, out)}")


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every difference.")
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Say in what two caches differ: how they were made, images, labels, features.

    The exit code is 0 if nothing differs except where and when they were made, 1 if anything
    else does.

    \b
    Example:
      pipeline cache diff features.h5 relabelled.h5
    """
    from cache import compare
    from pipeline.caches.diff import describe, to_text

    found = compare(a, b)
    names = str(a), str(b)
    click.echo(json.dumps(describe(found, *names), indent=2) if as_json else to_text(found, *names))
    if not found.same:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("file", type=FILE)
@click.option("--manifest", type=FILE, help="Manifest that FILE was extracted from.")
@click.option("--weights", type=FILE, help="Weights that FILE was extracted with.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads, at most those of the machine."
)
def repair(
    file: Path, manifest: Path | None, weights: Path | None, device: str, threads: int | None
) -> None:
    """Mend a damaged cache: keep what is proved intact, encode the rest again.

    FILE is replaced when that is done, and stays as it is if it cannot be. The manifest and the
    weights are needed only if images must be encoded again.

    \b
    Example:
      pipeline cache repair features.h5 --manifest manifest.csv --weights vgg16.safetensors
    """
    from pipeline.extraction import repair as stage
    from pipeline.progress import bar

    sources = stage.Sources(manifest, weights, device, threads)
    result = stage.repair(file, sources, bar("encoding", "images"))
    for line in result.faults[:_FAULTS_SHOWN]:
        click.echo(line, err=True)
    if len(result.faults) > _FAULTS_SHOWN:
        click.echo(f"… and {len(result.faults) - _FAULTS_SHOWN} more faults", err=True)
    click.echo(f"{file}: {result.summary()}")


@click.command("merge")
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=FILE, help="Cache to write.")
@click.option(
    "--allow-failures",
    type=FAILURES,
    default=0,
    show_default=True,
    help="Images of all shards that may have no features.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option(
    "--virtual",
    is_flag=True,
    help="Copy no features: the output refers to the SHARDS, which must lie in or below its folder "
    "and stay there. Move the folder as one.",
)
def merge_verb(
    shards: tuple[Path, ...], out: Path, allow_failures: int, overwrite: bool, virtual: bool
) -> None:
    """Join all SHARDS of `pipeline extract --shard`, files or folders, into one cache.

    It has the same features, byte for byte, as an extraction without shards.

    \b
    Example:
      pipeline cache merge shards/ --out merged.h5
    """
    from pipeline.caches.merge import merge_shards

    merged = merge_shards(shards, out, allow_failures, overwrite, virtual)
    click.echo(f"{out}: {merged.summary()}")


VERBS = [info, verify, merge_verb, relabel, diff, repair, export_cache, import_cache]
"""In the order of the help."""
