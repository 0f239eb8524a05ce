"""The verb `pipeline report`. Heavy imports wait until it runs."""

from pathlib import Path

import click

from pipeline.arguments import FILE, FOLDER, keep_inputs


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--out", required=True, type=FILE, help="Report to write, an HTML file.")
def report(run: Path, out: Path) -> None:
    """Make one HTML file of the results in RUN.

    RUN is a folder of the workflow, such as results/demo, or one that holds fits/, metrics.json,
    features.h5 and manifest.csv. The file needs no network, and nothing beside it.

    \b
    Example:
      pipeline report results/demo --out report.html
    """
    from pipeline.progress import bar
    from pipeline.report import report as stage

    keep_inputs(out, *(run / name for name in ("metrics.json", "features.h5", "manifest.csv")))
    stage.report(run, out, bar("reporting", "parts"))
    click.echo(f"{out}: open it in a browser")
