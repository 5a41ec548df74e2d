"""Help of a command with many settings, which lists only those that are changed most.

tyro has a mark that hides an option, but it belongs into the definition of a dataclass, which here
is read by more than the command line; and what it hides is not parsed either. So the help is made
of a copy with marks, and everything else of the original.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass, make_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro


def common_parameters(command: Callable[..., Any], common: Collection[str]) -> Callable[..., Any]:
    """Hide the rare options of a function from its help.

    Args:
        command: Function whose parameters are the options.
        common: Dotted names of the parameters and settings to show; those without a default are
            shown too.

    Returns:
        A function with the same parameters, for help only: tyro does not parse what it hides.
    """
    hints = get_type_hints(command, include_extras=True)

    shown = []
    for parameter in inspect.signature(command).parameters.values():
        name = parameter.name
        kind, value = _common_field(hints[name], parameter.default, name, common)
        shown.append(parameter.replace(annotation=kind, default=value))

    def show() -> None:
        """Never called: only its help is printed."""

    # tyro reads the parameters from these.
    show.__doc__ = command.__doc__
    show.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    show.__dict__["__signature__"] = inspect.Signature(shown)
    return show


def common_settings(settings: Any, common: Collection[str], prefix: str = "") -> Any:
    """Hide the rare fields of settings from their help.

    Args:
        settings: Instance of a dataclass, which may contain others.
        common: Dotted names of the fields to show.
        prefix: Dotted name of the settings within `common`, with a dot at the end; or empty.

    Returns:
        The same settings in a dataclass for help only: tyro does not parse what it hides. It is
        derived from the dataclass of `settings`, where tyro finds the text of each field.
    """
    hints = get_type_hints(type(settings), include_extras=True)

    kinds, values = {}, {}
    for field in fields(settings):
        name, value = field.name, getattr(settings, field.name)
        kinds[name], values[name] = _common_field(hints[name], value, f"{prefix}{name}", common)

    # Only keywords: fields without a default may then follow others.
    derived = make_dataclass(
        type(settings).__name__,
        kinds.items(),
        bases=(type(settings),),
        namespace={"__doc__": type(settings).__doc__},
        frozen=True,
        kw_only=True,
    )
    return derived(**values)


def _common_field(kind: Any, value: Any, name: str, common: Collection[str]) -> tuple[Any, Any]:
    """Type and default of an option, or of a group of options, with what is not common hidden."""
    if name in common or value is inspect.Parameter.empty:
        return kind, value

    # Nothing in a group is common.
    if not (is_dataclass(value) and any(other.startswith(f"{name}.") for other in common)):
        return Annotated[kind, tyro.conf.Suppress], value

    # The marks of a field, for example, shorten the names of its options.
    value = common_settings(value, common, f"{name}.")
    marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return Annotated[(type(value), *marks, tyro.conf.AvoidSubcommands)], value
