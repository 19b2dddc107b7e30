"""Bands: finished rows of a network's result, saved while it runs, so that a run that is cut short can be continued.

A band ends where a row of windows ends, as no later window writes above that. It is written by a thread of its own;
while that is busy, further rows wait for the next band: computing is not held up by what it outruns. Whether a band
fits a run, the fingerprint in it says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enlarger.engine.band_file import DamagedBand, read_band, read_facts, write_band
from enlarger.engine.pictures.picture import Canvas

BAND_PIXELS = 500_000
"""Input pixels a band holds at least: 2 s of work for the quickest network here, a minute for x4plus."""

LAST_SECONDS = 2.0
"""How long the end of a run waits for the band that is being saved, before that is given up."""


class Bands:
    """The bands of one picture, of all passes of its network, in `folder`. Any of another fingerprint are deleted."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._fingerprint = fingerprint
        self._found: dict[tuple[int, int], tuple[int, Path]] = {}
        self._rows = 0
        self.restored_rows = 0
        self._notes: list[str] = []
        self._is_open = True
        self._look_around()

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {"rows": self.restored_rows, "of": self._rows, "notes": self._notes}

    @contextmanager
    def of_pass(
        self, index: int, canvas: Canvas, *, input_pixels: int, is_last: bool
    ) -> Generator[PassBands]:
        """The bands of one pass, which writes `canvas`. At the end of the block nothing reads the canvas any more."""
        bands = PassBands(self, index, canvas, input_pixels=input_pixels, is_last=is_last)
        self._rows += canvas.size.height
        try:
            yield bands
            if not is_last:
                bands.wait()
        finally:
            bands.end()

    def read(self, index: int, canvas: Canvas, ends: Collection[int]) -> int:
        """Rows from the top of the canvas that are there now, up to one of `ends`."""
        reached = 0
        while (index, reached) in self._found:
            bottom, path = self._found.pop((index, reached))
            try:
                if bottom not in ends or bottom <= reached:
                    raise DamagedBand("it ends where no row of windows does")
                read_band(path, canvas.array[reached:bottom])
            except (DamagedBand, OSError) as error:
                self._notes.append(f"the checkpoint {path.name} is damaged, {error}: computed from there on")
                path.unlink(missing_ok=True)
                break
            reached = bottom
        self.restored_rows += reached
        return reached

    def write(self, index: int, top: int, bottom: int, canvas: Canvas, stopped: Callable[[], bool]) -> None:
        if not self._is_open:
            return
        path = self._folder / f"{index}-{top}-{bottom}.band"
        facts = {"fingerprint": self._fingerprint, "pass": index, "top": top, "bottom": bottom}
        try:
            write_band(path, facts, canvas.array[top:bottom], stopped)
        except OSError as error:
            # A picture without checkpoints is better than none.
            self._is_open = False
            self._notes.append(f"checkpoints could not be written any more: {error}")

    def _look_around(self) -> None:
        foreign = 0
        for path in sorted([*self._folder.glob("*.band"), *self._folder.glob("*.band.part")]):
            facts = self._facts(path)
            if facts is None:
                path.unlink(missing_ok=True)
            elif facts.get("fingerprint") != self._fingerprint:
                path.unlink(missing_ok=True)
                foreign += 1
            else:
                key = (facts["pass"], facts["top"])
                self._found[key] = max(self._found.get(key, (0, path)), (facts["bottom"], path))
        if foreign:
            self._notes.append(
                f"{foreign} checkpoints of another picture, plan or engine were found: started over"
            )

    def _facts(self, path: Path) -> dict[str, Any] | None:
        """What the file tells; None where it is none, or was never finished."""
        if path.suffix != ".band":
            return None
        try:
            facts = read_facts(path)
        except (DamagedBand, OSError) as error:
            self._notes.append(f"the checkpoint {path.name} is damaged, {error}")
            return None
        numbers = [facts.get(name) for name in ("pass", "top", "bottom")]
        return facts if all(type(number) is int for number in numbers) else None


class PassBands:
    """The bands of one pass."""

    def __init__(self, bands: Bands, index: int, canvas: Canvas, *, input_pixels: int, is_last: bool) -> None:
        self._bands = bands
        self._index = index
        self._canvas = canvas
        self._least_rows = BAND_PIXELS * canvas.size.height / input_pixels
        self._is_last = is_last
        self._saved = 0
        self._saving: threading.Thread | None = None
        self._stopped = threading.Event()

    def restore(self, ends: Sequence[int]) -> int:
        """Rows from the top of the canvas that need not be computed. `ends`: where rows of windows end."""
        self._saved = self._bands.read(self._index, self._canvas, ends)
        return self._saved

    def keep(self, bottom: int) -> None:
        """Rows above `bottom` are finished, and as the plan says."""
        is_whole = bottom == self._canvas.size.height
        if is_whole and self._is_last:
            return  # what is left to do takes less than to save this
        if is_whole:
            self.wait()
        is_busy = self._saving is not None and self._saving.is_alive()
        if is_busy or (not is_whole and bottom - self._saved < self._least_rows):
            return
        top, self._saved = self._saved, bottom
        arguments = (self._index, top, bottom, self._canvas, self._stopped.is_set)
        self._saving = threading.Thread(target=self._bands.write, args=arguments, name="bands")
        self._saving.start()

    def wait(self, seconds: float | None = None) -> None:
        """Until nothing is being saved."""
        if self._saving is not None:
            self._saving.join(seconds)

    def end(self) -> None:
        """Finish what is being saved, or give it up."""
        self.wait(LAST_SECONDS)
        self._stopped.set()
        self.wait()
