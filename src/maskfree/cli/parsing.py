"""Parsing of command lines into calls and settings, with usage errors in one line."""

from __future__ import annotations

import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeVar

import tyro

from maskfree.cli.common import BAD_INPUT
from maskfree.cli.short_help import common_parameters, common_settings

HELP_ALL = "--help-all"
"""Option that lists every setting of a command whose `--help` lists only the common ones."""

# Wider than any line that tyro prints, so that it breaks none.
_MAX_COLUMNS = 100_000

# Number of similar options that the error of an unknown option names.
_MAX_OPTIONS = 3

# Spaces before options in an error, and before what they mean.
_OPTION_INDENT, _MEANING_INDENT = 4, 9

# Parts of the text that tyro prints.
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WORDS_BEFORE_HELP = re.compile(r"^For full helptext, (run|see):? ")
_DATACLASS = re.compile(r"^Error parsing (?!-)[\w.-]*[a-z][\w.-]*: ")

Result = TypeVar("Result")
Settings = TypeVar("Settings")


def parse_call(
    command: Callable[..., Result],
    program: str,
    arguments: Sequence[str],
    common: Collection[str] = (),
    description: str | None = None,
) -> Callable[[], Result]:
    """Parse the arguments of a function.

    Args:
        command: Function whose parameters are the options.
        program: How the command is called, for its help.
        arguments: Command line after `program`.
        common: Dotted names of the parameters and settings that `--help` lists, in any order;
            empty: all. `--help-all` lists all.
        description: Text above the options in the help; None: the docstring of the function.

    Returns:
        The call of the function with these arguments.

    Raises:
        ValueError: The arguments are wrong; the message is one line.
        SystemExit: The help was printed.
    """
    target = _deferred(command)
    if _wants_common(arguments, common):
        target = common_parameters(target, common)

    shown = description or _description(command, common)
    return _parse(target, program, arguments, description=shown)


def parse_settings(
    kind: type[Settings],
    program: str,
    arguments: Sequence[str],
    default: Settings | None = None,
    common: Collection[str] = (),
) -> Settings:
    """Parse the arguments of a command whose options are the fields of a dataclass.

    Args:
        kind: The dataclass.
        program: How the command is called, for its help.
        arguments: Command line after `program`.
        default: Settings before the arguments change them; None: the defaults of the fields.
        common: Dotted names of the fields that `--help` lists, in any order; empty: all.
            `--help-all` lists all.

    Returns:
        The settings, changed by the arguments.

    Raises:
        ValueError: The arguments are wrong; the message is one line.
        SystemExit: The help was printed.
    """
    description = _description(kind, common)
    if default is None:
        return _parse(kind, program, arguments, description=description)

    if _wants_common(arguments, common):
        default = common_settings(default, common)
    return _parse(type(default), program, arguments, default=default, description=description)


def parse_command(
    commands: Mapping[str, Callable[..., Result]],
    program: str,
    arguments: Sequence[str],
    description: str,
) -> Callable[[], Result]:
    """Parse a command line that begins with the name of a command.

    Args:
        commands: Functions whose parameters are the options, by the names of the commands.
        program: How the program is called.
        arguments: Command line after `program`.
        description: What the program does, for its help.

    Returns:
        The call of the command with its arguments.

    Raises:
        ValueError: The arguments are wrong; the message is one line.
        SystemExit: The help was printed.
    """
    deferred = {name: _deferred(command) for name, command in commands.items()}
    arguments = _without_help_all(arguments)

    with _errors_in_one_line(arguments):
        return tyro.extras.subcommand_cli_from_dict(
            deferred, prog=program, description=description, args=arguments
        )


def _parse(target: Any, program: str, arguments: Sequence[str], **more: Any) -> Any:
    """Call tyro.cli, for which --help-all is the --help of the whole target."""
    arguments = _without_help_all(arguments)

    with _errors_in_one_line(arguments):
        return tyro.cli(target, prog=program, args=arguments, **more)


def _without_help_all(arguments: Sequence[str]) -> list[str]:
    """The arguments with --help for --help-all, which tyro does not know."""
    return ["--help" if argument == HELP_ALL else argument for argument in arguments]


def _deferred(command: Callable[..., Result]) -> Callable[..., Callable[[], Result]]:
    """A function with the same parameters that returns the call instead of calling."""

    @functools.wraps(command)
    def call_later(*values: Any, **named: Any) -> Callable[[], Result]:
        return functools.partial(command, *values, **named)

    return call_later


def _wants_common(arguments: Sequence[str], common: Collection[str]) -> bool:
    """Whether the arguments ask for the help of the common options only."""
    wants_help = "--help" in arguments or "-h" in arguments
    return wants_help and bool(common) and HELP_ALL not in arguments


def _description(target: Any, common: Collection[str]) -> str | None:
    """Text above the options in the help; None for the docstring of the target."""
    if not common:
        return None

    paragraphs = inspect.cleandoc(target.__doc__).partition("Args:")[0].strip()
    return f"{paragraphs} {HELP_ALL} shows every setting."


@contextmanager
def _errors_in_one_line(arguments: Sequence[str]) -> Iterator[None]:
    """Turn the boxes that tyro draws around errors into a ValueError of one line.

    tyro has no public hook for its errors. Their text is read from what it prints, so that a
    change of its layout can only change the wording of the line.
    """
    printed = io.StringIO()
    try:
        with redirect_stderr(printed), _unwrapped(arguments):
            yield
    except SystemExit as end:
        if end.code != BAD_INPUT:
            raise
        raise ValueError(_line_of_box(printed.getvalue())) from None

    # Without an error this is a warning, for example.
    sys.stderr.write(printed.getvalue())


@contextmanager
def _unwrapped(arguments: Sequence[str]) -> Iterator[None]:
    """Let tyro print lines of any length, except the lines of the help."""
    if "--help" in arguments or "-h" in arguments:
        yield
        return

    # tyro asks shutil.get_terminal_size, which looks here first.
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_MAX_COLUMNS)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _line_of_box(box: str) -> str:
    """The text of an error box as one line, without what the options mean."""
    # The frame is of lines, or of spaces where the terminal's encoding has no lines.
    lines = [line[1:].rstrip(" │") for line in _COLORS.sub("", box).splitlines()]

    # The first and last line are of the frame; rules separate the sections.
    sections: list[list[str]] = [[]]
    for line in lines[1:-1]:
        if line.strip(" ─-"):
            sections[-1].append(line)
        else:
            sections.append([])

    return "; ".join(filter(None, map(_line_of_section, sections)))


def _line_of_section(lines: Sequence[str]) -> str:
    """A section of an error box as part of a line; empty where it only explains an option."""
    head, options = [], []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if indent < _OPTION_INDENT:
            head.append(line.strip())
        elif indent < _MEANING_INDENT:
            options.append(line.strip())

    text = " ".join([*head, ", ".join(options[:_MAX_OPTIONS])]).strip().rstrip(".")
    if text.startswith("Argument helptext"):
        return ""
    if text.startswith("For full helptext"):
        return f"see {_WORDS_BEFORE_HELP.sub('', text)}"

    # An option is named, but not a dataclass whose own check has raised the error.
    text = _DATACLASS.sub("", text).removeprefix("Error parsing ")
    return text[:1].lower() + text[1:]
