"""The verb `pipeline doctor`: parse and call. Heavy imports wait for the verb."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Folder for outputs, whose disk is checked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(folder: Path, as_json: bool) -> None:
    """Check the installation, and say what to do about each fault.

    Nothing is installed, downloaded or left behind. A note is about something that works without
    being at its best. The exit code is 0 without a fault, 1 with one.

    \b
    Example:
      pipeline doctor --folder .
    """
    from pipeline.doctor.checks import examine
    from pipeline.doctor.finding import FAULT, to_json, to_text

    findings = examine(folder)
    click.echo(to_json(findings) if as_json else to_text(findings))
    if any(finding.state == FAULT for finding in findings):
        raise click.exceptions.Exit(1)
