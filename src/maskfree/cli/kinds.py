"""Commands whose first argument names a kind, such as `prepare entities` or `evaluate tracking`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc

from maskfree.cli.parsing import HELP_ALL, parse_call


@dataclass(frozen=True)
class Kind:
    """One kind of a command, with options of its own."""

    summary: str
    """What it does, in one short sentence, for the help of the command."""
    load: Callable[[], Callable[..., int]]
    """Imports its function; what is not used is not imported, so that --help is fast."""
    common: tuple[str, ...] = ()
    """Dotted names of the parameters and settings that its --help lists; all if empty."""


def run_kind(
    command: Callable[..., int], kinds: Mapping[str, Kind], arguments: Sequence[str]
) -> int:
    """Run the kind of a command that the first argument names, or print the command's help.

    Args:
        command: Function of the command, for its name and description.
        kinds: Kinds by name.
        arguments: Command line after the command.

    Returns:
        Exit status.

    Raises:
        ValueError: The first argument is not a kind.
    """
    name = command.__name__
    if asks_help(arguments):
        example = f"`maskfree {name} {next(iter(kinds))} --help`"
        heading = f"The first argument is one of these; {example} lists the options of one:"
        described = describe(command, kinds, heading)
        return parse_call(command, f"maskfree {name}", arguments, description=described)()

    if not arguments:
        raise ValueError(f"say what to {name}: {', '.join(kinds)}")
    title = arguments[0]
    if title not in kinds:
        raise ValueError(f"cannot {name} {title!r}: choose from {', '.join(kinds)}")

    kind = kinds[title]
    return parse_call(kind.load(), f"maskfree {name} {title}", arguments[1:], kind.common)()


def asks_help(arguments: Sequence[str]) -> bool:
    """Tell whether the help of a command is wanted, rather than that of one of its kinds.

    Args:
        arguments: Command line after the command.

    Returns:
        Whether it begins with the option for help.
    """
    return arguments[:1] in (["-h"], ["--help"], [HELP_ALL])


def describe(command: Callable[..., int], kinds: Mapping[str, Kind], heading: str) -> str:
    """Describe a command and its kinds, for its help.

    Args:
        command: Function of the command.
        kinds: Kinds by name.
        heading: Text above the kinds.

    Returns:
        The description in its docstring, the heading, and a line for each kind.
    """
    description = (getdoc(command) or "").partition("\n\nArgs:")[0]
    width = max(map(len, kinds))

    lines = [f"  {name:{width}}  {kind.summary}" for name, kind in kinds.items()]
    return "\n".join([description, "", heading, *lines])
