"""Engine.upscale: the order of the steps, nothing else.

decode ─▶ plan ─▶ tiles (network) ─▶ resample to the exact size ─▶ alpha ─▶ Result ─▶ encode
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enlarger.engine.geometry import Size, TilePlan, plan_tiles, target_size
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS, ModelSpec
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.options import Options
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.picture import Canvas, Picture, Pixels, open_canvas
from enlarger.engine.pictures.resample import resample
from enlarger.engine.runtime import Runtime, Session, choose_precision, open_runtime
from enlarger.engine.tiles import Pass, Watch, run_tiles
from enlarger.errors import FeatureUnavailable, PictureTooLarge, RuntimeUnavailable

MAX_TILE_PIXELS = 600_000
"""Pixels of one window. In f32 the trunk of x4plus needs 2.3 kB a pixel: 1.4 GB."""

KEPT_SESSIONS = 2
"""Loaded models kept warm, the most recently used ones."""

DEVICES = ("auto", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest pictures an engine accepts, in pixels."""

    max_input_pixels: int = 64_000_000
    max_output_pixels: int = 400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What upscaling a picture will do: a pure function of its size, the options and the engine."""

    model: ModelSpec
    runtime: str
    precision: str
    tiles: TilePlan
    native: Size
    """Size the network produces."""
    output: Size
    """Size of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished picture. `pixels` is (h, w, 1..4) in the depth of the input; `report` says what was done."""

    pixels: Pixels
    icc: bytes
    format: str
    quality: int
    report: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def size(self) -> Size:
        return Size(self.pixels.shape[1], self.pixels.shape[0])

    def save(self, path: Path | str) -> None:
        """Write the file; its format is the one of the options. Adds the time taken to the report."""
        with _timed(self.report["timings_ms"], "encode"):
            codec.encode(self.pixels, Path(path), format=self.format, quality=self.quality, icc=self.icc)


class Engine:
    """Loaded models on one device. Calls from several threads take turns.

    `device` is auto or cpu; `threads` 0 means one a core; `runtime` is a name of RUNTIMES.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        threads: int = 0,
        runtime: str = "openvino",
        limits: Limits | None = None,
        scratch: Path | None = None,
        max_tile_pixels: int = MAX_TILE_PIXELS,
    ) -> None:
        if device not in DEVICES:
            raise RuntimeUnavailable(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
        self._threads = threads
        self._runtime_name = runtime
        self._runtime: Runtime | None = None
        self._limits = limits or Limits()
        self._scratch = scratch
        self._max_tile_pixels = max_tile_pixels
        self._sessions: OrderedDict[tuple[str, str], tuple[Session, str]] = OrderedDict()
        self._turn = threading.Lock()

    def plan(self, size: Size, options: Options) -> Plan:
        """What `upscale` would do to a picture of `size`. Raises PictureTooLarge, RuntimeUnavailable."""
        spec = MODELS[options.model]
        output = target_size(size, options.scale)
        native = Size(size.width * spec.scale, size.height * spec.scale)
        _check_pixels("the picture", size, self._limits.max_input_pixels)
        _check_pixels("the result", output, self._limits.max_output_pixels)
        codec.check_fits(output, options.output_format)
        overlap = spec.overlap_exact if options.tile_mode == "exact" else spec.overlap_fast
        return Plan(
            model=spec,
            runtime=self._runtime_name,
            precision=choose_precision(self._opened_runtime(), options.precision),
            tiles=plan_tiles(size, overlap=overlap, max_pixels=self._max_tile_pixels),
            native=native,
            output=output,
        )

    def upscale(
        self,
        picture: Picture | bytes,
        options: Options,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Result:
        """Upscale a picture, or the bytes of a picture file.

        `progress(done, total)` counts input pixels. `cancelled()` is asked between tiles; when it says yes,
        Cancelled is raised. Raises the errors of `enlarger.errors`; the input is never returned as a result.
        """
        if options.face_enhance:
            raise FeatureUnavailable(
                "face_enhance needs the GFPGAN face restoration, which this version does not have yet; "
                "send face_enhance=false"
            )
        watch = Watch(progress=progress or (lambda done, total: None), cancelled=cancelled or (lambda: False))
        timings: dict[str, float] = {}
        if isinstance(picture, bytes):
            with _timed(timings, "decode"):
                picture = _decoded(picture, self._limits)
        plan = self.plan(picture.size, options)
        with self._turn:
            with _timed(timings, "load"):
                session, weights_sha256 = self._session(plan)
            pixels = self._enlarged(picture, plan, session, watch, timings)
        return Result(
            pixels=pixels,
            icc=picture.icc,
            format=options.output_format,
            quality=options.quality,
            report=_report(plan, options, weights_sha256, timings),
        )

    def close(self) -> None:
        """Forget the loaded models."""
        with self._turn:
            self._sessions.clear()

    def _enlarged(
        self, picture: Picture, plan: Plan, session: Session, watch: Watch, timings: dict[str, float]
    ) -> Pixels:
        final = open_canvas(plan.output, picture.channels, picture.depth, self._scratch)
        colour = final.layer(0, picture.colours)
        exact = plan.native == plan.output
        native = colour if exact else open_canvas(plan.native, picture.colours, picture.depth, self._scratch)
        run = Pass(
            session=session, net=ARCHITECTURES[plan.model.net], scale=plan.model.scale, plan=plan.tiles
        )
        with _timed(timings, "network"):
            run_tiles(run, picture, native, watch)
        with _timed(timings, "resize"):
            if not exact:
                resample(native.rows, native.size, colour)
            if picture.has_alpha:
                _resample_alpha(picture, final)
        return final.array

    def _session(self, plan: Plan) -> tuple[Session, str]:
        key = (plan.model.name, plan.precision)
        if key not in self._sessions:
            loaded = load_weights(plan.model)
            while len(self._sessions) >= KEPT_SESSIONS:
                self._sessions.popitem(last=False)
            session = self._opened_runtime().open_session(
                ARCHITECTURES[plan.model.net],
                plan.model.hyper,
                loaded.tensors,
                precision=plan.precision,
                threads=self._threads,
            )
            self._sessions[key] = (session, loaded.sha256)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _opened_runtime(self) -> Runtime:
        if self._runtime is None:
            self._runtime = open_runtime(self._runtime_name)
        return self._runtime


def _decoded(data: bytes, limits: Limits) -> Picture:
    """The picture in `data`, its size checked from the header before any pixel is decoded."""
    header = codec.probe(data)
    _check_pixels("the picture", header.size, limits.max_input_pixels)
    return codec.decode(data)


def _resample_alpha(picture: Picture, final: Canvas) -> None:
    def rows(top: int, bottom: int) -> Pixels:
        return picture.rows(top, bottom)[:, :, picture.colours :]

    resample(rows, picture.size, final.layer(picture.colours, picture.channels))


def _check_pixels(what: str, size: Size, limit: int) -> None:
    if size.pixels > limit:
        raise PictureTooLarge(
            f"{what} is {size.width}×{size.height}, {size.pixels / 1e6:.1f} megapixels; "
            f"the limit is {limit / 1e6:g}; send a smaller picture or a smaller scale"
        )


def _report(plan: Plan, options: Options, weights_sha256: str, timings: dict[str, float]) -> dict[str, Any]:
    return {
        "model": plan.model.name,
        "weights_sha256": weights_sha256,
        "runtime": plan.runtime,
        "precision": plan.precision,
        "input": list(plan.tiles.size),
        "native": list(plan.native),
        "output": list(plan.output),
        "passes": 1,
        "tile_mode": options.tile_mode,
        "tiles": plan.tiles.tiles,
        "window": list(plan.tiles.window),
        "overlap": plan.tiles.overlap if plan.tiles.tiles > 1 else 0,
        "work_ratio": round(plan.tiles.work_ratio, 4),
        "timings_ms": timings,
    }


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Generator[None]:
    started = time.perf_counter()
    yield
    timings[stage] = round((time.perf_counter() - started) * 1000, 1)
