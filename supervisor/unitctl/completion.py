"""`completion` and `help`, and what the TAB key needs."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from .codes import DONE
from .session import Session, command

VARIABLE = "_UNITCTL_COMPLETE"

# bash cuts words at colons (COMP_WORDBREAKS), and unit names have them: the whole line up to the cursor is handed
# over, and what bash takes for earlier words is cut off the answers again.
_BASH = """\
%(complete_func)s() {
    local line=${COMP_LINE:0:$COMP_POINT} type value cut=""
    if [[ $COMP_WORDBREAKS == *:* ]]; then
        cut=${line##*[[:space:]]}
        if [[ $cut == *:* ]]; then cut=${cut%%:*}:; else cut=""; fi
    fi
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$cut"}") ;;
        esac
    done < <(env COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class UnitctlBash(BashComplete):
    """Bash, with words that hold colons."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor's, and what there is of that one."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        return words[1:], incomplete


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, session: Session, shell: str) -> int:
    """Print the script that completes on the TAB key.

    Commands, options and the names of units are completed.

    For bash: unitctl completion bash > /etc/bash_completion.d/unitctl
    """
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(ctx.find_root().command, {}, "unitctl", VARIABLE)
    session.terminal.out(ShellComplete.source(made))  # not kind's own, which runs bash to learn its version
    return DONE


@command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(ctx: click.Context, session: Session, names: tuple[str, ...]) -> int:
    """Explain unitctl, or one of its commands; `help fleet restart` one of a group."""
    explained = ctx.find_root()
    for name in names:
        group = explained.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{explained.command_path} has no commands of its own")
        _, found, _ = group.resolve_command(explained, [name])
        assert found is not None
        explained = click.Context(found, info_name=name, parent=explained)
    session.terminal.out(f"{explained.get_help()}\n")
    return DONE
