"""Completion in a shell: the scripts are whole, and what they ask is answered."""

import os
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pipeline.completion import completion

RUN = "from pipeline.cli import run; run()"


def script(shell):
    """What the verb prints, below a group as it is in the command line."""
    group = click.Group("pipeline", commands=[completion])
    result = CliRunner().invoke(group, ["completion", shell])
    assert result.exit_code == 0, result.output
    return result.stdout


def complete(*words):
    environment = {
        **os.environ,
        "_PIPELINE_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_bash_script_is_sound():
    done = subprocess.run(["bash", "-n"], input=script("bash"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_verb_is_completed():
    assert complete("pipeline", "cac") == ["plain,cache"]


def test_an_option_is_completed():
    assert complete("pipeline", "extract", "--wei") == ["plain,--weights"]


def test_bash_completes_a_verb_by_the_script(tmp_path):
    program = tmp_path / "pipeline"
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{RUN}' \"$@\"\n")
    program.chmod(0o755)
    ask = (
        'COMP_WORDS=(pipeline cac); COMP_CWORD=1; _pipeline_completion pipeline; echo "$COMPREPLY"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script('bash')}\n{ask}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("cache\n", "")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _pipeline_completion pipeline"),
        ("zsh", "#compdef pipeline"),
        ("fish", 'complete --no-files --command pipeline --arguments "(_pipeline_completion)";'),
    ],
)
def test_each_script_is_of_its_shell_and_asks_the_command_line_that_there_is(shell, line):
    text = script(shell)
    assert line in map(str.strip, text.splitlines())
    assert f"_PIPELINE_COMPLETE={shell}_complete" in text


def test_the_help_says_where_each_shell_looks():
    text = CliRunner().invoke(completion, ["--help"]).stdout
    for shell in ("bash", "zsh", "fish"):
        assert f"pipeline completion {shell} > ~/" in text


def test_another_shell_is_refused_by_name():
    result = CliRunner().invoke(completion, ["tcsh"])
    assert (result.exit_code, "'tcsh' is not one of" in result.stderr) == (2, True)
