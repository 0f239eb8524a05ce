"""The verb `pipeline completion`: what a shell reads to complete verbs and options."""

import click
from click.shell_completion import get_completion_class

_PROGRAM = "pipeline"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes verbs and options.

    Write it once to where the shell looks for it, make the folder before if need be, and start a
    new shell:

    \b
    bash: pipeline completion bash > ~/.local/share/bash-completion/completions/pipeline
    zsh:  pipeline completion zsh > ~/.zfunc/_pipeline
    fish: pipeline completion fish > ~/.config/fish/completions/pipeline.fish

    bash needs the package bash-completion for that. zsh needs `fpath+=~/.zfunc` in ~/.zshrc, above
    `autoload -Uz compinit && compinit`. Both may do without: put `eval "$(pipeline completion
    bash)"` at the end of ~/.bashrc, or the same with zsh at the end of ~/.zshrc.

    \b
    Example:
      pipeline completion bash
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell}: this click has no completion for it: update click")
    command = click.get_current_context().find_root().command
    click.echo(kind(command, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
