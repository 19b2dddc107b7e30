"""The command line: words in, one call, words out."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from enlarger import __version__
from enlarger.cli_models import WeightsDir, models_app
from enlarger.cli_options import with_option_flags
from enlarger.errors import EnlargerError, InvalidOption
from enlarger.finding import Finding

app = typer.Typer(
    name="enlarger",
    help="Upscale pictures with Real-ESRGAN: on this machine, or as a WaveSpeed-compatible server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys of the server.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the database, the pictures and the key.")
]

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="TCP port; the next free one if it is taken.")]


def main() -> None:
    """Entry point: runs a command; an error of ours becomes one line on stderr and exit code 1."""
    try:
        app()
    except EnlargerError as error:
        print(f"enlarger: {error.message} [{error.code}]", file=sys.stderr)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"enlarger {__version__}")
        raise typer.Exit


@app.command()
@with_option_flags
def upscale(
    file: Annotated[Path, typer.Argument(help="Picture to upscale; its format is told by its content.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its extension sets the format.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda:0, mps or gpu; see `enlarger doctor`.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 lets the runtime choose.", min=0)] = 0,
    weights_dir: WeightsDir = None,
    json_report: Annotated[bool, typer.Option("--json", help="Print the report of the result.")] = False,
    **options: Any,
) -> None:
    """Upscale one picture."""
    from enlarger.engine.options import Options
    from enlarger.engine.pictures.codec import format_of
    from enlarger.engine.pipeline import Engine
    from enlarger.engine.tiles import Watch

    if output is not None and (by_name := format_of(output)) is not None:
        options["output_format"] = by_name
    chosen = Options(**options)
    if output is not None:
        _check_target(output, file)  # before the work, which may be long
    data = _read(file)
    with _progress_bar(quiet=json_report) as finished:
        engine = Engine(device=device, threads=threads, weights_dir=weights_dir)
        result = engine.upscale(data, chosen, watch=Watch(finished=finished))
    target = output or file.with_name(
        f"{file.stem}-{result.size.width}x{result.size.height}.{_extension(result.format)}"
    )
    _check_target(target, file)
    result.save(target)
    if json_report:
        print(json.dumps({"file": str(target), **result.report}))
    else:
        print(f"{target}  {result.size.width}×{result.size.height}  {_told(result.report)}")


@app.command()
def serve(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the server: HTTP, queue and computation on this machine."""
    _serve("serve", host=host, port=port, data_dir=data_dir)


@app.command()
def api(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Answer clients only, with a PostgreSQL and workers elsewhere; any number behind a load balancer."""
    _serve("api", host=host, port=port, data_dir=data_dir)


@app.command()
def worker(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Compute only, the jobs of a PostgreSQL; any number. Its port tells health and metrics."""
    _serve("worker", host=host, port=port, data_dir=data_dir)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the tables of the database to the form this version needs; safe to run twice, and at once."""
    from enlarger.drivers import migrate

    asyncio.run(migrate(_settings(data_dir=data_dir)))
    print("the tables are up to date")


@app.command()
def check(data_dir: DataDir = None) -> None:
    """Try what a service on many machines needs: database, tables, clock, queue, store of pictures, weights."""
    from enlarger.check import findings

    _print_findings(asyncio.run(findings(_settings(data_dir=data_dir))))


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str], typer.Option(help="What it may do: submit, read or admin; give it again for more.")
    ] = ["submit", "read"],  # noqa: B006  (typer makes a new list each time)
    expires_days: Annotated[
        float | None, typer.Option(help="Days until it ends; never when not given.", min=0)
    ] = None,
    rate_per_minute: Annotated[int, typer.Option(help="Submits a minute; 0 is no limit.", min=0)] = 0,
    max_concurrency: Annotated[int, typer.Option(help="Jobs in work at once; 0 is no limit.", min=0)] = 0,
    weight: Annotated[float, typer.Option(help="Share of the devices; 2 is twice that of 1.")] = 1.0,
    priority: Annotated[int, typer.Option(help="Jobs of keys with more are served before; -100 to 100.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Make a new API key and print it; it cannot be shown again."""
    from enlarger.jobs.keys import Grant, create_key

    now = time.time()
    grant = Grant(
        scopes=_scopes(scope),
        expires_at=None if expires_days is None else now + expires_days * 86_400,
        rate_per_minute=rate_per_minute,
        max_concurrency=max_concurrency,
        weight=weight,
        priority=priority,
    )

    async def create() -> str:
        async with _store(data_dir) as store:
            _, secret = await create_key(
                store, name, now=now, new_id=lambda: uuid4().hex, random=secrets.token_bytes, grant=grant
            )
            return secret

    print(asyncio.run(create()))


@keys_app.command("list")
def keys_list(data_dir: DataDir = None) -> None:
    """Show the keys: id, name, when made, whether they still work, what they may do."""
    from enlarger.jobs.view import rfc3339

    async def read() -> Any:
        async with _store(data_dir) as store:
            return await store.keys()

    for key in asyncio.run(read()):
        state = "active" if key.is_valid(time.time()) else "expired"
        if key.revoked_at is not None:
            state = f"revoked {rfc3339(key.revoked_at)}"
        scopes = ",".join(sorted(key.scopes))
        print(f"{key.id}  {rfc3339(key.created_at)}  {state:10}  {scopes:18}  {key.name}")


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Make a key worthless from now on."""

    async def revoke() -> bool:
        async with _store(data_dir) as store:
            return await store.revoke_key(key_id, time.time())

    if not asyncio.run(revoke()):
        raise InvalidOption(
            f"there is no active key with the id {key_id}; see `enlarger keys list`", "key_id"
        )
    print(f"revoked {key_id}")


@app.command()
def doctor() -> None:
    """Check this machine: hardware, runtime, precision, weights, and one computed tile against its answer."""
    from enlarger.doctor import findings

    _print_findings(findings())


def _serve(role: str, **overrides: Any) -> None:
    from enlarger.assembly import Role
    from enlarger.bootstrap import run, run_service

    def announce(url: str, key: str) -> None:
        print(f"enlarger {__version__} is ready: {url}/" + (f"#key={key}" if key else ""), flush=True)

    run(run_service(_settings(**overrides), announce=announce, role=Role(role)))


def _print_findings(findings: Iterable[Finding]) -> None:
    healthy = True
    for finding in findings:
        healthy = healthy and finding.is_good
        print(f"{'ok ' if finding.is_good else 'BAD'}  {finding.subject:28} {finding.text}")
    if not healthy:
        raise typer.Exit(1)


def _settings(**overrides: Any) -> Any:
    from enlarger.settings import read_settings

    return read_settings(**{name: value for name, value in overrides.items() if value is not None})


def _scopes(words: list[str]) -> Any:
    from enlarger.jobs.job import Scope

    try:
        return frozenset(map(Scope, words))
    except ValueError as error:
        raise InvalidOption(f"scope must be one of {', '.join(Scope)}: {error}", "scope") from error


def _store(data_dir: Path | None) -> Any:
    from enlarger.drivers import opened_store

    return opened_store(_settings(data_dir=data_dir))


def _extension(format: str) -> str:
    from enlarger.engine.pictures.codec import FORMATS

    return FORMATS[format].extension


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidOption(f"cannot read {file}: {error.strerror}", "file") from error


def _check_target(target: Path, source: Path) -> None:
    if target.resolve() == source.resolve():
        raise InvalidOption(
            f"the result would overwrite its input {source}; give another name with -o", "output"
        )
    if not target.parent.is_dir():
        raise InvalidOption(f"cannot write {target}: the folder does not exist", "output")


def _told(report: dict[str, Any]) -> str:
    seconds = sum(report["timings_ms"].values()) / 1000
    return f"{report['model']}  {report['runtime']} {report['precision']}  {seconds:.1f} s"


def _progress_bar(*, quiet: bool) -> Any:
    from enlarger.terminal import progress_bar

    return progress_bar(quiet=quiet)


if __name__ == "__main__":
    main()
