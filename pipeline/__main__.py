"""`python -m pipeline`: the command line under the interpreter that is running."""

from pipeline.cli import run

run()
