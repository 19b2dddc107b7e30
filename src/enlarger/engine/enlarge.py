"""enlarge(): one picture through the steps of its plan, from row bands to the finished pixels.

bleed ─▶ network × passes ─▶ resize ─▶ mix with a plain resize ─▶ faces ─▶ alpha ─▶ crop
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from enlarger.engine.bands import Bands
from enlarger.engine.colour_lock import lock_colour
from enlarger.engine.faces.restoration import FaceRun, FaceTools, restore_faces
from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.options import Options
from enlarger.engine.pictures.colour import bleed, linear_to_srgb, srgb_to_linear
from enlarger.engine.pictures.picture import Canvas, Picture, Pixels, open_canvas
from enlarger.engine.pictures.resample import resample, unit_floats
from enlarger.engine.plan import Plan
from enlarger.engine.runtime import Session
from enlarger.engine.tiles import Pass, Tile, Watch, run_tiles
from enlarger.engine.timing import Timings, timed

FACE_TILE_PIXELS = 256 * 256
"""A face is cut into windows no larger than the picture's own, which fit into memory, or than this."""

BAND_ROWS = 128
"""Rows mixed or looked at at a time: only for these is there a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a run computes with. `safe_session` opens the f32 session that takes over after a numeric fault."""

    session: Session
    safe_session: Callable[[], Session]
    scratch: Path | None
    face_tools: FaceTools | None = None
    """Loaded where the plan restores faces."""
    bands: Bands | None = None
    """What there is of the colours already, and where the rest is kept."""


@dataclass(frozen=True, slots=True)
class Enlarged:
    """`precision` is what the last tile was computed in; `fallbacks` say why, if that is not the plan's.

    `faces` is what the report says of them, None where none were to be restored; `conversions` what it says of the
    pixels.
    """

    pixels: Pixels
    precision: str
    fallbacks: tuple[str, ...]
    faces: dict[str, Any] | None = None
    conversions: tuple[str, ...] = ()


def pixels_to_run(plan: Plan, options: Options, *, has_alpha: bool) -> int:
    """Input pixels of all network passes over one picture: the total that its progress counts to.

    Restoring faces counts as many pixels as the plan estimates for it, however many faces there are.
    """
    once = sum(tiles.size.pixels for tiles in plan.passes)
    runs = (options.strength > 0) + (has_alpha and options.alpha == "network")
    return once * runs + (plan.faces.pixels(plan.model) if plan.faces else 0)


def enlarge(
    picture: Picture, plan: Plan, options: Options, means: Means, watch: Watch, timings: Timings
) -> Enlarged:
    """Run the plan. Raises Cancelled, OutOfMemory, NumericFault or InvalidPicture."""
    final = open_canvas(plan.target.resized, picture.channels, plan.depth, means.scratch)
    colour = final.layer(0, picture.colours)
    run = _Run(plan, means, watch, timings)
    with timed(timings, "prepare"):
        source = _opaque(picture) if picture.has_alpha else picture
        is_gray = (options.strength > 0 or plan.faces is not None) and _is_gray(source, picture.format)
    if is_gray:  # a network would tint it
        source = _channel_of(source, 1)
        colour = open_canvas(plan.target.resized, 1, plan.depth, means.scratch)
    if options.strength > 0:
        run.enlarge_into(colour, source, means.bands)
    else:
        with timed(timings, "resize"):
            _resize_plainly(picture, source, colour)
    if options.colour_lock and options.strength > 0:
        with timed(timings, "colour_lock"):
            lock_colour(colour, source)
    if 0 < options.strength < 1:
        with timed(timings, "mix"):
            _mix(colour, source, options.strength, plan, means.scratch)
    faces = run.restore_into(colour, source, options) if plan.faces else None
    if is_gray:
        final.layer(0, picture.colours).array[:] = colour.array
    if picture.has_alpha:
        alpha = final.layer(picture.colours, picture.channels)
        if options.alpha == "network":
            run.enlarge_into(alpha, _channel_of(picture, picture.colours))
        else:
            with timed(timings, "resize"):
                resample(_channel_of(picture, picture.colours).rows, picture.size, alpha)
    return Enlarged(
        pixels=_middle(final.array, plan.target.output),
        precision=run.precision,
        fallbacks=tuple(run.fallbacks),
        faces=faces,
        conversions=("computed as gray, as no pixel has a colour",) if is_gray else (),
    )


class _Run:
    """The passes of one picture: where the next one starts, and in which session."""

    def __init__(self, plan: Plan, means: Means, watch: Watch, timings: Timings) -> None:
        self._plan = plan
        self._means = means
        self._watch = watch
        self._timings = timings
        self._session = means.session
        self._before = 0
        self.precision = means.session.precision
        self.fallbacks: list[str] = []

    def enlarge_into(self, canvas: Canvas, picture: Picture, bands: Bands | None = None) -> None:
        """All passes over `picture`, then the resize to the size of `canvas`."""
        colours = canvas.array.shape[2]
        for index, tiles in enumerate(self._plan.passes):
            scale = self._plan.model.scale
            size = Size(tiles.size.width * scale, tiles.size.height * scale)
            is_last = tiles is self._plan.passes[-1]
            fits = is_last and size == canvas.size
            native = canvas if fits else open_canvas(size, colours, self._plan.depth, self._means.scratch)
            work = Pass(
                session=self._session,
                safe_session=self._safe,
                net=ARCHITECTURES[self._plan.model.net],
                scale=scale,
                plan=tiles,
            )
            if bands is None or self.fallbacks:
                kept = nullcontext()
            else:
                kept = bands.of_pass(index, native, input_pixels=tiles.size.pixels, is_last=is_last)
            with timed(self._timings, "network"), kept as pass_bands:
                outcome = run_tiles(work, picture, native, self._watched(size, canvas.size), pass_bands)
            self.fallbacks += outcome.notes
            self._before += tiles.size.pixels
            picture = Picture.from_array(native.array)
        if picture.size != canvas.size:
            with timed(self._timings, "resize"):
                resample(picture.rows, picture.size, canvas)

    def restore_into(self, canvas: Canvas, source: Picture, options: Options) -> dict[str, Any] | None:
        """Restore the faces of `source` in `canvas`, the enlarged picture."""
        faces, tools = self._plan.faces, self._means.face_tools
        if faces is None or tools is None:
            return None
        run = FaceRun(
            source=source,
            canvas=canvas,
            options=options,
            tools=tools,
            network=self._enlarged_face,
            largest_crop=faces.largest_crop,
            watch=self._watch,
            timings=self._timings,
        )
        budget = faces.pixels(self._plan.model)

        def advanced(share: float, box: tuple[int, int, int, int]) -> None:
            left, top, right, bottom = box
            done = self._before + round(budget * share)
            size = {"width": right - left, "height": bottom - top}
            self._watch.finished(Tile(left=left, top=top, **size, done=done, total=done))

        report = restore_faces(run, advanced)
        if tools.precision() not in ("", faces.precision):
            self.fallbacks.append(
                f"{faces.model} gave values that were no numbers in {faces.precision}: "
                f"computed in {tools.precision()}"
            )
        self._before += budget
        return report

    def _enlarged_face(self, face: Picture) -> Canvas:
        """A restored face through the network of the picture, once."""
        scale, tiles = self._plan.model.scale, self._plan.passes[0]
        size = Size(face.size.width * scale, face.size.height * scale)
        canvas = open_canvas(size, face.colours, face.depth, self._means.scratch)
        most = max(tiles.window.pixels, FACE_TILE_PIXELS)
        work = Pass(
            session=self._session,
            safe_session=self._safe,
            net=ARCHITECTURES[self._plan.model.net],
            scale=scale,
            plan=plan_tiles(face.size, overlap=tiles.overlap, max_pixels=most, unit=tiles.unit),
        )
        with timed(self._timings, "enlarge_faces"):
            outcome = run_tiles(work, face, canvas, Watch(cancelled=self._watch.cancelled))
        self.fallbacks += outcome.notes
        return canvas

    def _safe(self) -> Session:
        self._session = self._means.safe_session()
        self.precision = self._session.precision
        return self._session

    def _watched(self, native: Size, output: Size) -> Watch:
        """The watch as this pass has to call it: progress over all passes, rectangles in output pixels."""
        before = self._before

        def finished(tile: Tile) -> None:
            across, down = output.width / native.width, output.height / native.height
            left, top = int(tile.left * across), int(tile.top * down)
            right = round((tile.left + tile.width) * across)
            bottom = round((tile.top + tile.height) * down)
            self._watch.finished(
                Tile(
                    left=left,
                    top=top,
                    width=right - left,
                    height=bottom - top,
                    done=before + tile.done,
                    total=tile.total,
                )
            )

        return Watch(finished=finished, cancelled=self._watch.cancelled)


def _resize_plainly(picture: Picture, source: Picture, colour: Canvas) -> None:
    """Resize without a network. At the same size every pixel stays, those under full transparency too."""
    shown = picture if picture.size == colour.size else source
    channels = colour.array.shape[2]
    resample(lambda top, bottom: shown.rows(top, bottom)[:, :, :channels], shown.size, colour)


def _mix(colour: Canvas, source: Picture, strength: float, plan: Plan, scratch: Path | None) -> None:
    """Blend the plain resize of `source` into `colour`, band by band, in linear light."""
    plain = open_canvas(colour.size, source.colours, plan.depth, scratch)
    resample(lambda top, bottom: source.rows(top, bottom)[:, :, : source.colours], source.size, plain)
    share, rest = np.float32(strength), np.float32(1.0 - strength)
    for top in range(0, colour.size.height, BAND_ROWS):
        bottom = min(colour.size.height, top + BAND_ROWS)
        mixed = share * _linear(colour, top, bottom) + rest * _linear(plain, top, bottom)
        colour.write(top, 0, linear_to_srgb(np.asarray(mixed, np.float32)))


def _linear(canvas: Canvas, top: int, bottom: int) -> npt.NDArray[np.float32]:
    # The curve of sRGB, whatever the profile says: the common profiles differ from it by little.
    return srgb_to_linear(unit_floats(canvas.rows(top, bottom)))


def _opaque(picture: Picture) -> Picture:
    """The colour of a picture with alpha, what is hidden under full transparency filled from around it."""
    return Picture.from_array(bleed(picture.rows(0, picture.size.height)))


def _is_gray(picture: Picture, format: str) -> bool:
    """Whether all pixels of a picture in RGB are gray, as in files of a format that knows no gray."""
    if picture.colours == 1:
        return False
    spread = 1 if format == "webp" else 0  # of the lossy form gray comes back as RGB within one level
    for top in range(0, picture.size.height, BAND_ROWS):
        band = picture.rows(top, min(picture.size.height, top + BAND_ROWS))[:, :, :3]
        if np.ptp(band, axis=2).max() > spread:
            return False
    return True


def _channel_of(picture: Picture, channel: int) -> Picture:
    """One channel of a picture as a gray picture."""
    return Picture(
        size=picture.size,
        colours=1,
        has_alpha=False,
        depth=picture.depth,
        rows=lambda top, bottom: picture.rows(top, bottom)[:, :, channel : channel + 1],
    )


def _middle(pixels: Pixels, size: Size) -> Pixels:
    left, top = (pixels.shape[1] - size.width) // 2, (pixels.shape[0] - size.height) // 2
    return pixels[top : top + size.height, left : left + size.width]
