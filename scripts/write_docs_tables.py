"""Rewrites the tables in docs/ that come from the code: settings, options, errors, models, commands.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. `make docs` rewrites them;
`--check` changes nothing and exits with 1 when one is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from enlarger.api.problems import status_of
from enlarger.cli import app
from enlarger.engine.networks.catalogue import (
    DEFAULT_FACE_MODEL,
    DEFAULT_MODEL,
    FACE_MODELS,
    MODELS,
    WeightsFile,
)
from enlarger.engine.options import Ask, Options, asks
from enlarger.errors import error_classes, error_from
from enlarger.jobs.job import Job
from enlarger.jobs.view import vendor_code
from enlarger.settings import PREFIX, Settings

DOCS = Path(__file__).parent.parent / "docs"
REGION = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = Iterable[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; a cell may hold no line break."""
    lines = [head, ["---" for _ in head], *rows]
    return (
        "\n"
        + "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)
        + "\n"
    )


def code(value: object) -> str:
    return f"`{value}`" if value not in ("", (), None) else "empty"


def limits(schema: dict[str, Any]) -> str:
    """The range in words of JSON Schema, for people."""
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {schema[word]:g}" for word, sign in signs.items() if schema.get(word) is not None]
    return ", ".join(bounds) or ", ".join(code(choice) for choice in schema.get("enum") or ())


def settings() -> str:
    schemas = Settings.model_json_schema()["properties"]
    rows = (
        (code(PREFIX + name.upper()), code(field.default), limits(schemas[name]), field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return table(("variable", "default", "range", "meaning"), rows)


def options() -> str:
    def bounds(ask: Ask) -> str:
        words = {"exclusiveMinimum": ask.over, "minimum": ask.low, "maximum": ask.high}
        return limits({**words, "enum": ask.choices})

    def shown(default: object) -> str:
        return code(str(default).lower() if isinstance(default, bool) else default)

    rows = (
        (code(name), shown(getattr(Options(), name)), bounds(ask), ask.doc) for name, ask in asks().items()
    )
    return table(("option", "default", "range", "meaning"), rows)


def errors() -> str:
    job = Job(id="", key_id="", model="", input={}, options={}, created_at=0.0)
    rows = (
        (
            code(name),
            code(cls.__name__),
            (cls.__doc__ or "").strip(),
            str(status_of(error_from(name, ""))),
            str(vendor_code(replace(job, error_code=name))),
        )
        for name, cls in error_classes().items()
    )
    return table(("code", "class", "meaning", "HTTP status", "`code` of the prediction"), rows)


def megabytes(files: Iterable[WeightsFile], *, packaged: bool) -> str:
    return next((f"{file.bytes / 1e6:.1f} MB" for file in files if bool(file.package) is packaged), "")


def models() -> str:
    rows = (
        (
            code(name) + (" (default)" if name == DEFAULT_MODEL else ""),
            spec.summary,
            f"{spec.net}, × {spec.scale}",
            f"{spec.mflops_per_pixel:g}",
            f"{spec.overlap_fast} / {spec.overlap_exact}",
            megabytes(spec.files, packaged=False),
            megabytes(spec.files, packaged=True),
        )
        for name, spec in MODELS.items()
    )
    head = (
        "model",
        "for",
        "network",
        "MFLOP a pixel",
        "overlap fast / exact, px",
        "official file",
        "comes with the installation",
    )
    return table(head, rows)


def face_models() -> str:
    rows = (
        (
            code(name) + (" (default)" if name == DEFAULT_FACE_MODEL else ""),
            spec.role,
            spec.summary,
            megabytes((file for file in spec.files if file.url), packaged=False),
            spec.licence,
            f"[{spec.origin.split('/')[4]}]({spec.origin})",
        )
        for name, spec in FACE_MODELS.items()
    )
    return table(("model", "role", "for", "official file", "licence", "from"), rows)


def commands() -> str:
    def walk(command: Any, words: str) -> Iterator[str]:
        for name, child in getattr(command, "commands", {}).items():
            if not child.hidden:
                yield from walk(child, f"{words} {name}")
        if not hasattr(command, "commands"):
            rows = [(flag(parameter), shown(parameter), parameter.help or "") for parameter in command.params]
            described = table(("argument", "default", "meaning"), rows) if rows else "\n"
            yield f"\n## `{words}`\n\n{(command.help or '').strip()}\n{described}".removesuffix("\n")

    def flag(parameter: Any) -> str:
        if parameter.param_type_name == "argument":
            return code(parameter.name.upper())
        return ", ".join(code(word) for word in [*parameter.opts, *parameter.secondary_opts])

    def shown(parameter: Any) -> str:
        if parameter.required:
            return "required"
        return (
            "off"
            if parameter.default is False
            else ""
            if parameter.default is None
            else code(parameter.default)
        )

    return "".join(walk(typer.main.get_command(app), "enlarger")) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (settings, options, errors, models, face_models, commands)
}


def rewritten(text: str) -> str:
    """`text` with every table as the code has it now."""
    return REGION.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], text)


def main() -> None:
    stale = {
        path: new
        for path in sorted(DOCS.glob("*.md"))
        if (new := rewritten(old := path.read_text("utf-8"))) != old
    }
    for path, text in stale.items():
        print(f"out of date: docs/{path.name}")
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
    sys.exit(1 if stale and "--check" in sys.argv else 0)


if __name__ == "__main__":
    main()
