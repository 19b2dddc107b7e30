"""The progress bar of the command line."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from enlarger.engine.tiles import Tile


@contextmanager
def progress_bar(*, quiet: bool) -> Generator[Callable[[Tile], None]]:
    """A bar on stderr with elapsed and remaining time; gives the function to call with each finished tile."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("upscaling"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("upscaling", total=None)
        yield lambda tile: bar.update(task, completed=tile.done, total=tile.total)
