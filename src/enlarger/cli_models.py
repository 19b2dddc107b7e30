"""`enlarger models`: list, pull, import, verify and remove the networks of this installation."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from enlarger.engine.networks.cards import (
    card_paths,
    default_weights_dir,
    model_named,
    models,
    read_card,
    remove_imported,
)
from enlarger.engine.networks.catalogue import MODELS, ModelSpec
from enlarger.errors import ModelUnavailable, WeightsCorrupt

models_app = typer.Typer(help="The networks this installation can run.", no_args_is_help=True)

WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        envvar="ENLARGER_WEIGHTS_DIR",
        show_envvar=False,
        help="Folder of pulled and imported weights; ENLARGER_WEIGHTS_DIR sets it too.",
    ),
]
Names = Annotated[list[str], typer.Argument(help="Models, as `enlarger models list` shows them.")]


@models_app.command("list")
def models_list(weights_dir: WeightsDir = None) -> None:
    """Show every model and where its weights are."""
    from enlarger.engine.networks.weights import place

    folder = weights_dir or default_weights_dir()
    for spec in models(folder).values():
        typer.echo(
            f"{spec.name:28} ×{spec.scale}  {place(spec, folder):9}{spec.mflops_per_pixel:6.2f} Mflop/px"
            f"{spec.files[0].bytes / 1e6:6.0f} MB  {spec.summary}"
        )
    for path in card_paths(folder):
        try:
            read_card(path)
        except WeightsCorrupt as error:
            typer.echo(f"{path.stem:28} broken: {error.message}")


@models_app.command("pull")
def models_pull(
    names: Annotated[
        list[str], typer.Argument(help="Models, or `all` for every one that is not on this machine.")
    ],
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ENLARGER_WEIGHTS_MIRRORS",
            show_envvar=False,
            help="Base URL asked before the official one; may be repeated. ENLARGER_WEIGHTS_MIRRORS sets it too.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            envvar="ENLARGER_OFFLINE",
            show_envvar=False,
            help="Fetch nothing; say how to bring the files by hand. ENLARGER_OFFLINE=1 sets it too.",
        ),
    ] = False,
    weights_dir: WeightsDir = None,
) -> None:
    """Download official weights, verified, continuing where an earlier download broke off."""
    from enlarger.engine.networks.weights import pull_weights

    folder = weights_dir or default_weights_dir()
    for spec in _chosen(names, folder):
        typer.echo(f"{spec.name}: {spec.licence} ({spec.origin})")
        with _progress_bars() as progress:
            pulled = pull_weights(spec, folder, mirrors=mirror or (), is_offline=offline, progress=progress)
        for path in pulled:
            typer.echo(f"{spec.name}: {path}")
        if not pulled:
            typer.echo(f"{spec.name}: already in {folder}")


@models_app.command("import")
def models_import(
    file: Annotated[
        Path, typer.Argument(help="A .pth or .safetensors file, or one of an ncnn pair .param and .bin.")
    ],
    name: Annotated[str, typer.Option(help="Name of the model; the name of the file unless given.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the list.")] = "not stated",
    weights_dir: WeightsDir = None,
) -> None:
    """Make a checkpoint of an RRDBNet or compact network a model. Nothing in it is executed."""
    from enlarger.engine.networks.imports import import_model

    spec = import_model(file, weights_dir or default_weights_dir(), name=name, licence=licence)
    typer.echo(f"{spec.name} ×{spec.scale}: {spec.summary}")


@models_app.command("verify")
def models_verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models; every one on this machine unless given.")
    ] = None,
    weights_dir: WeightsDir = None,
) -> None:
    """Read weights as a run would, and check their sha256, shapes and values."""
    from enlarger.engine.networks.weights import is_present, verify_weights

    folder = weights_dir or default_weights_dir()
    is_sound = True
    for spec in [model_named(name, folder) for name in names or ()] or models(folder).values():
        if not names and not is_present(spec, folder):
            continue
        try:
            told = [f"ok   {spec.name:28} {path}" for path in verify_weights(spec, folder)]
        except ModelUnavailable as error:
            is_sound = False
            told = [f"BAD  {error.message}"]
        for line in told:
            typer.echo(line)
    if not is_sound:
        raise typer.Exit(1)


@models_app.command("remove")
def models_remove(names: Names, weights_dir: WeightsDir = None) -> None:
    """Delete pulled or imported weights."""
    from enlarger.engine.networks.weights import remove_weights

    folder = weights_dir or default_weights_dir()
    for name in names:
        # By name, as the card of an imported model may be what is broken.
        removed = remove_imported(name, folder) if name not in MODELS else []
        for path in removed or remove_weights(model_named(name, folder), folder):
            typer.echo(f"removed {path}")


def _chosen(names: list[str], folder: Path) -> list[ModelSpec]:
    from enlarger.engine.networks.weights import is_present

    if names == ["all"]:
        return [spec for spec in models(folder).values() if not is_present(spec, folder)]
    return [model_named(name, folder) for name in names]


@contextmanager
def _progress_bars() -> Generator[Callable[[str], Callable[[int, int], None]]]:
    """Gives a function of a file's name that starts its bar, on stderr, and gives the one to call with bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def started(name: str) -> Callable[[int, int], None]:
            task: Any = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield started
