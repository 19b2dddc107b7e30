"""WeightsFolder: which weight files a picture's options need that are not on this machine, and how they get here.

A service asks before it runs a job; nothing here computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from enlarger.engine.networks.cards import default_weights_dir, every_model, pull_command
from enlarger.engine.networks.catalogue import FACE_DETECTOR, FACE_MASK, AnyModel, ModelSpec, WeightsFile
from enlarger.engine.networks.downloads import Pace, Progress, download
from enlarger.engine.networks.weight_files import download_of, path_of
from enlarger.engine.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFile:
    """A weights file that is not on this machine.

    `command` brings it. `is_needed`: without it the picture cannot be computed; otherwise it would be better with
    it. `is_published`: there is an address to fetch it from.
    """

    model: str
    name: str
    bytes: int
    command: str
    is_needed: bool
    file: WeightsFile

    @property
    def is_published(self) -> bool:
        return bool(self.file.url)


class WeightsFolder:
    """Where the weights of a service are kept. Calls block, and may come from several threads.

    `mirrors` are base URLs asked before the official address. `rows` gives the models by name; a test brings its own.
    """

    def __init__(
        self,
        weights_dir: Path | None = None,
        *,
        mirrors: Sequence[str] = (),
        rows: Callable[[Path], Mapping[str, AnyModel]] = every_model,
        pace: Pace | None = None,
    ) -> None:
        self._folder = weights_dir or default_weights_dir()
        self._mirrors = tuple(mirrors)
        self._rows = rows
        self._pace = pace

    def missing(self, options: Options) -> tuple[MissingFile, ...]:
        """What `options` need and this machine has not. Files are looked for, not read."""
        rows = self._rows(self._folder)
        return tuple(
            MissingFile(
                model=spec.name,
                name=files[0].name,
                bytes=files[0].bytes,
                command=pull_command(spec),
                is_needed=spec.name != FACE_MASK,
                file=files[0],
            )
            for spec, files in _needed(options, rows)
            if all(path_of(file, self._folder) is None for file in files)
        )

    def inventory(self) -> tuple[list[str], list[str]]:
        """Names of the models whose weights are here, and of those whose are not."""
        found: tuple[list[str], list[str]] = [], []
        for name, spec in self._rows(self._folder).items():
            is_here = any(path_of(file, self._folder) is not None for file in spec.files)
            found[not is_here].append(name)
        return found

    def fetch(self, missing: MissingFile, progress: Progress, stopped: Event) -> None:
        """Download a file, complete and verified when this returns; what an earlier call left is continued.

        Raises ModelUnavailable, WeightsCorrupt, or Cancelled soon after `stopped` is set.
        """
        wanted = download_of(missing.file, self._folder, self._mirrors)
        download(wanted, progress=progress, pace=self._pace, stopped=stopped)


def _needed(
    options: Options, rows: Mapping[str, AnyModel]
) -> Iterator[tuple[AnyModel, tuple[WeightsFile, ...]]]:
    """The models that `options` run, each with the files of which one must be here, the preferred one first.

    `model=auto` chooses among what is here, and needs nothing. A name that is not in `rows` is for the engine to
    refuse.
    """
    if (spec := rows.get(options.model)) is not None:
        if options.denoise != 0.0 or not isinstance(spec, ModelSpec) or not spec.has_denoise:
            yield spec, spec.files
        if options.denoise != 1.0 and isinstance(spec, ModelSpec) and spec.has_denoise:
            yield spec, spec.denoise_files
    if not options.face_enhance:
        return
    # A picture that is one aligned face is restored whole: nobody need find the face, or tell it from the rest.
    others = () if options.aligned else (FACE_DETECTOR, FACE_MASK)
    for name in (options.face_model, *others):
        if (spec := rows.get(name)) is not None:
            yield spec, spec.files
