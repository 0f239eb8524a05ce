"""`python -m pipeline`: the command line under the interpreter that is running."""

from pipeline.cli import main

main(prog_name="pipeline")
