"""Command-line flags for every field of Options, made from what the field says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from enlarger.engine.options import Ask, Options, asks

Command = TypeVar("Command", bound=Callable[..., Any])

_TYPES: dict[str, type] = {"number": float, "integer": int, "boolean": bool}


def with_option_flags(command: Command) -> Command:
    """Give a command that takes `**options` one flag a field: `tile_mode` becomes --tile-mode."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    flags = [_flag(name, ask) for name, ask in asks().items()]
    command.__signature__ = inspect.Signature([*own, *flags])  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
    return command


def _flag(name: str, ask: Ask) -> inspect.Parameter:
    default = getattr(Options(), name)
    kind: Any = _TYPES.get(ask.kind, str)
    if ask.choices:
        kind = type(ask.choices[0])
    spelling = f"--{name.replace('_', '-')}"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if ask.nullable else kind, typer.Option(spelling, help=_help(ask))],
    )


def _help(ask: Ask) -> str:
    if ask.choices:
        return f"{ask.doc} One of {', '.join(map(str, ask.choices))}."
    if ask.high is None:
        return ask.doc
    if ask.low is None:
        return f"{ask.doc} Above {ask.over:g}, at most {ask.high:.10g}."
    return f"{ask.doc} {ask.low:.10g} to {ask.high:.10g}."
