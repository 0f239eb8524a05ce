"""The command line: parse, call, turn errors into exit codes. Heavy imports wait for a verb."""

import click


@click.group()
def main() -> None:
    """Features of histology images, extracted once; classifiers fitted in seconds."""
