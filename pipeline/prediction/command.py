"""The verb `pipeline predict`. Heavy imports wait until it runs."""

from pathlib import Path
from typing import Any

import click

from pipeline.arguments import FAILURES, FILE, FOLDER, keep_inputs


@click.command()
@click.argument(
    "models_and_images",
    nargs=-1,
    required=True,
    metavar="MODEL… IMAGES…",
    type=click.Path(path_type=Path),
)
@click.option("--out", required=True, type=FILE, help="Predictions to write, a CSV file.")
@click.option(
    "--overlay",
    type=FOLDER,
    help="Folder for a picture of each image with what each patch contributes.",
)
@click.option(
    "--weights", type=FILE, help="Weights that the features were made with [default: cached]."
)
@click.option("--device", default="auto", show_default=True, help="As for extract.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "ncnn", "torch"]),
    default="auto",
    show_default=True,
    help="As for extract.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option(
    "--allow-failures",
    type=FAILURES,
    default=0,
    show_default=True,
    help="Images that may be left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the predictions as JSON.")
def predict(
    models_and_images: tuple[Path, ...],
    out: Path,
    as_json: bool,
    **choices: Any,  # noqa: ANN401 - handed on to PredictOptions, which declares them
) -> None:
    """Predict images that have no labels.

    A MODEL is a file `model.safetensors`, a folder of one fold, of `pipeline fit-lstm` or of the
    workflow; several are averaged. IMAGES are files, folders, or CSV files with a column path.
    The models know how to cut and encode; what would give other features is refused.

    \b
    Example:
      pipeline predict fits new-images/ --out predictions.csv --overlay overlays
    """
    from pipeline.prediction import predict as stage
    from pipeline.prediction.find_models import split_models
    from pipeline.progress import bar

    models, images = split_models(models_and_images)
    keep_inputs(out, *models_and_images)
    options = stage.PredictOptions(**choices)
    result = stage.predict(models, images, out, options, bar("predicting", "images"))
    click.echo(result.to_json() if as_json else f"{out}: {result.summary()}")
