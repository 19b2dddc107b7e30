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
    every_model,
    is_official,
    model_named,
    models,
    read_card,
    remove_imported,
)
from enlarger.engine.networks.catalogue import FACE_SET, AnyModel, ModelSpec
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
    for spec in every_model(folder).values():
        facts = (
            f"×{spec.scale}  {place(spec, folder):9}{spec.mflops_per_pixel:6.2f} Mflop/px"
            if isinstance(spec, ModelSpec)
            else f"    {place(spec, folder):9}{spec.role:>15}"
        )
        size = f"{spec.files[0].bytes / 1e6:6.1f} MB" if spec.files[0].bytes else " " * 9
        typer.echo(f"{spec.name:28} {facts}{size}  {spec.summary}")
    for path in card_paths(folder):
        try:
            read_card(path)
        except WeightsCorrupt as error:
            typer.echo(f"{path.stem:28} broken: {error.message}")


@models_app.command("pull")
def models_pull(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Models; `faces` for the three that restore faces; `all` for every one that enlarges and is not on "
            "this machine."
        ),
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
    """Download official weights, verified, continuing where an earlier download broke off; shows their licences."""
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
        Path,
        typer.Argument(
            help="A .pth or .safetensors file, one of an ncnn pair .param and .bin, or an official file of any kind."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model; the name of the file unless given.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the list.")] = "not stated",
    weights_dir: WeightsDir = None,
) -> None:
    """Put an official file in its place, or make a checkpoint of a known network a model; executes nothing in it."""
    from enlarger.engine.networks.imports import import_model

    spec = import_model(file, weights_dir or default_weights_dir(), name=name, licence=licence)
    scale = f" ×{spec.scale}" if isinstance(spec, ModelSpec) else ""
    typer.echo(f"{spec.name}{scale}: {spec.summary}")


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
    for spec in [model_named(name, folder) for name in names or ()] or every_model(folder).values():
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
        removed = [] if is_official(name) else remove_imported(name, folder)
        for path in removed or remove_weights(model_named(name, folder), folder):
            typer.echo(f"removed {path}")


def _chosen(names: list[str], folder: Path) -> list[AnyModel]:
    """The models named, each once, `all` and `faces` standing for several."""
    from enlarger.engine.networks.weights import is_present

    chosen: dict[str, AnyModel] = {}
    for name in names:
        if name == "all":
            chosen |= {spec.name: spec for spec in models(folder).values() if not is_present(spec, folder)}
        else:
            of_faces = FACE_SET if name == "faces" else (name,)
            chosen |= {one: model_named(one, folder) for one in of_faces}
    return list(chosen.values())


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
