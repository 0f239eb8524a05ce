"""What the arguments of several verbs have in common."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
FAILURES = click.IntRange(min=0)


def keep_inputs(out: Path, *inputs: Path) -> None:
    """Refuse an output that would replace one of its inputs."""
    if out.resolve() in [path.resolve() for path in inputs]:
        raise click.UsageError(f"{out}: is an input, which --out would replace: choose another")
