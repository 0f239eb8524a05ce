"""The verb `pipeline app`. Heavy imports wait until it runs."""

from pathlib import Path
from typing import Any

import click

from pipeline.arguments import FILE


@click.command()
@click.option(
    "--models",
    required=True,
    type=click.Path(path_type=Path),
    help="A model, or a folder of `pipeline fit-lstm` or of the workflow.",
)
@click.option(
    "--cache", type=FILE, help="Features that they were fitted to [default: beside the models]."
)
@click.option("--manifest", type=FILE, help="Of its images [default: beside the cache].")
@click.option(
    "--weights", type=FILE, help="Weights that the features were made with [default: cached]."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to bind to; 0 takes a free one.",
)
@click.option("--device", default="auto", show_default=True, help="As for extract.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option(
    "--max-megabytes", type=click.IntRange(1, 512), default=64, show_default=True, help="An upload."
)
@click.option(
    "--max-megapixels", type=click.IntRange(1, 100), default=25, show_default=True, help="An image."
)
def app(
    models: Path,
    host: str,
    port: int,
    max_megabytes: int,
    max_megapixels: int,
    **choices: Any,  # noqa: ANN401 - handed on to AppOptions, which declares them
) -> None:
    """Open a local web page on which images are dropped and predicted.

    The page is for this computer only, unless --host says otherwise: there is no password. Needs
    the extra `app`: pip install -e ".[app]"

    \b
    Example:
      pipeline app --models results/demo
    """
    from pipeline.app.service import AppOptions, Service

    try:
        from pipeline.app.server import open_socket, serve
    except ImportError as error:
        raise click.UsageError(
            f'{error}: the app needs packages of its own: pip install -e ".[app]"'
        ) from error
    bound = open_socket(host, port)
    options = AppOptions(
        most_bytes=max_megabytes << 20, most_pixels=max_megapixels * 1_000_000, **choices
    )
    click.echo(f"loading the models of {models} …")
    service = Service.load(models, options)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"http://{shown}:{bound.getsockname()[1]}/ is ready; Ctrl-C stops it")
    serve(service, host, bound)
