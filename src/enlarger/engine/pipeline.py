"""Engine: loaded models on one device, and the order in which a picture meets them.

decode ─▶ plan ─▶ load ─▶ enlarge, frame by frame ─▶ Result
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from enlarger.engine import machine
from enlarger.engine.bands import Bands
from enlarger.engine.enlarge import Enlarged, Means, enlarge, pixels_to_run
from enlarger.engine.faces.estimate import FaceAbility
from enlarger.engine.faces.face import Detector, Restorer
from enlarger.engine.faces.loading import FaceLoader
from enlarger.engine.faces.restoration import FaceTools, restored_count
from enlarger.engine.fingerprint import Parts, fingerprint
from enlarger.engine.geometry import Size
from enlarger.engine.networks import gfpgan
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import ModelSpec
from enlarger.engine.networks.weights import (
    default_weights_dir,
    is_present,
    load_weights,
    models,
    weights_sha256,
)
from enlarger.engine.options import Options
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.plan import Ability, Limits, Plan, Subject, make_plan
from enlarger.engine.result import Result, report_of
from enlarger.engine.runtime import Runtime, Session
from enlarger.engine.runtime.choice import NATIVE, Runtimes
from enlarger.engine.tiles import Tile, Watch
from enlarger.engine.timing import Timings, timed
from enlarger.engine.work import Work, decoded, encoding_of, library_versions, sha256_of, subject_of

KEPT_SESSIONS = 2
"""Loaded models kept warm, the most recently used ones."""


class Engine:
    """Loaded models on one device. Calls from several threads take turns.

    `device` is auto, cpu, cuda:N, mps or gpu; `threads` 0 means one a usable core; `runtime` forces a name of
    RUNTIMES; pulled and imported models are in `weights_dir`; canvases too large for memory are files in
    `scratch`. `detector` and `restorer` stand in for the networks that find and restore faces.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        threads: int = 0,
        runtime: str = "",
        limits: Limits | None = None,
        scratch: Path | None = None,
        weights_dir: Path | None = None,
        max_tile_pixels: int | None = None,
        detector: Detector | None = None,
        restorer: Restorer | None = None,
    ) -> None:
        self._device = machine.choose_device(device)
        self._runtimes = Runtimes(self._device, runtime)
        self._threads = threads or machine.default_threads()
        self._limits = limits or Limits()
        self._scratch = scratch
        self._weights_dir = weights_dir or default_weights_dir()
        self._max_tile_pixels = max_tile_pixels
        self._faces = FaceLoader(
            detector=detector,
            restorer=restorer,
            weights_dir=self._weights_dir,
            threads=self._threads,
            runtime=self._opened_runtime,
        )
        self._sessions: OrderedDict[tuple[str, str, float], tuple[Session, str]] = OrderedDict()
        # Models that gave values that were no numbers on this device, and what they are computed in since.
        self._pinned: dict[str, str] = {}
        self._measured: dict[tuple[str, str], float] = {}
        self._turn = threading.Lock()

    def plan(self, subject: Subject | tuple[int, int], options: Options) -> Plan:
        """What `upscale` would do, without doing it: exact size, model, tiles, memory and time.

        `subject` is the width and height of an 8-bit picture, or a Subject that tells more of it.

        Raises InvalidOption, PictureTooLarge, RuntimeUnavailable or ModelUnavailable.
        """
        known = models(self._weights_dir)
        ability = Ability(
            runtime=self._runtimes.name,
            precisions=self._opened_runtime().precisions(),
            gflops=lambda model, precision: self._gflops(model, known.get(model), precision),
            is_present=lambda spec: is_present(spec, self._weights_dir),
            is_native=lambda spec, precision: self._products(spec, precision) != "",
            max_tile_pixels=self._max_tile_pixels,
            faces=FaceAbility(
                restorers=self._faces.restorers(),
                has_own_restorer=self._faces.has_own_restorer,
                has_mask=self._faces.has_mask(),
                precisions=gfpgan.NET.precisions,
            ),
        )
        described = subject if isinstance(subject, Subject) else Subject(size=Size(*subject))

        def planned(options: Options) -> Plan:
            return make_plan(described, options, models=known, limits=self._limits, ability=ability)

        plan = planned(options)
        if options.output_format != "auto":
            codec.check_fits(plan.size, options.output_format)
            codec.check_holds(options.output_format, lossless=options.lossless, bit_depth=options.bit_depth)
        pinned = self._pinned.get(plan.model.name, plan.precision)
        if pinned == plan.precision:
            return plan
        note = (
            f"an earlier picture gave values that were no numbers in {plan.precision}: computed in {pinned}"
        )
        # Planned anew: another precision may mean another runtime, and windows of another size.
        again = planned(replace(options, model=plan.model.name, precision=pinned))
        return replace(again, notes=(*plan.notes, note))

    def upscale(
        self, picture: Picture | Animation | bytes, options: Options, *, watch: Watch | None = None
    ) -> Result:
        """Upscale a picture, an animation, or the bytes of a file that holds one.

        `watch` follows the run and can stop it. Raises the errors of `enlarger.errors`; the input is never
        returned as a result.
        """
        return self.compute(self.prepare(picture, options), watch=watch)

    def prepare(
        self, picture: Picture | Animation | bytes, options: Options, *, source_sha256: str = ""
    ) -> Work:
        """All that can be done without the device, which may compute something else meanwhile.

        `source_sha256` is that of the file a picture came from. Raises what `plan` does, and the other refusals.
        """
        timings: Timings = {}
        with timed(timings, "decode"):
            source = decoded(picture, options.frame, self._limits) if isinstance(picture, bytes) else picture
        plan = self.plan(subject_of(source), options)
        encoding = encoding_of(source, options, plan)
        sha256 = sha256_of(picture) if isinstance(picture, bytes) else source_sha256
        work = Work(
            source=source,
            options=options,
            plan=plan,
            encoding=encoding,
            source_sha256=sha256,
            fingerprint="",
            timings=timings,
        )
        return replace(work, fingerprint=self._fingerprint(work, plan))

    def compute(self, work: Work, *, watch: Watch | None = None, bands: Path | str | None = None) -> Result:
        """Upscale what was prepared. Raises the errors of `enlarger.errors`.

        `bands` is a folder for finished rows of a picture that can be resumed, and may hold those of an earlier run.
        """
        options, timings = work.options, dict(work.timings)
        with self._turn:
            plan = work.plan
            if self._pinned.get(plan.model.name, plan.precision) != plan.precision:
                # A picture in between has shown what this device cannot do.
                plan = self.plan(subject_of(work.source), options)
            with timed(timings, "load"):
                tools = self._face_tools(plan, options)
                _, loaded_sha256 = self._session(plan.model, plan.precision, options.denoise)
            fingerprint = self._fingerprint(work, plan)
            kept = Bands(Path(bands), fingerprint) if bands and fingerprint and work.can_resume else None
            done = self._enlarged(work, plan, tools, kept, watch or Watch(), timings)
            faces = [enlarged.faces for enlarged in done if enlarged.faces is not None]
            if kept is None or not kept.restored_rows:  # a part of the work teaches nothing of the whole
                self._learn(plan, len(done), restored_count(faces), timings)
        fallbacks = [note for enlarged in done for note in enlarged.fallbacks]
        report = report_of(
            plan,
            options,
            device=self._device.name,
            weights_sha256=loaded_sha256,
            precision=done[-1].precision,
            conversions=[
                *(note for frame in work.frames for note in frame.notes),
                *(note for enlarged in done for note in enlarged.conversions),
            ],
            fallbacks=fallbacks,
            faces=faces,
            # Another run need not fall back in the same places.
            fingerprint=fingerprint if not fallbacks else "",
            resumed=kept.told() if kept is not None else None,
            timings=timings,
        )
        return Result(
            frames=tuple(enlarged.pixels for enlarged in done),
            delays_ms=work.source.delays_ms if isinstance(work.source, Animation) else (),
            loop=work.source.loop if isinstance(work.source, Animation) else 0,
            encoding=work.encoding,
            report=report,
            follows_name=options.output_format == "auto",
        )

    def _enlarged(
        self,
        work: Work,
        plan: Plan,
        tools: FaceTools | None,
        bands: Bands | None,
        watch: Watch,
        timings: Timings,
    ) -> list[Enlarged]:
        """Every frame. A precision that turns out not to hold is not used again, for later frames and later works."""
        options, frames, precision = work.options, work.frames, plan.precision
        total = pixels_to_run(plan, options, has_alpha=frames[0].has_alpha)
        done: list[Enlarged] = []
        for index, frame in enumerate(frames):
            means = Means(
                session=self._session(plan.model, precision, options.denoise)[0],
                safe_session=lambda: self._session(plan.model, "f32", options.denoise)[0],
                scratch=self._scratch,
                face_tools=tools,
                bands=bands,
            )
            counted = _counted(watch, index * total, len(frames) * total)
            done.append(enlarge(frame, plan, options, means, counted, timings))
            if done[-1].precision != precision:
                precision = self._pinned[plan.model.name] = done[-1].precision
        return done

    def close(self) -> None:
        """Forget the loaded models."""
        with self._turn:
            self._sessions.clear()
            self._faces.forget()

    def _fingerprint(self, work: Work, plan: Plan) -> str:
        """Of the result of `plan` with the weights that are loaded, or would be. Raises ModelUnavailable."""
        options, spec = work.options, plan.model
        loaded = self._sessions.get((spec.name, plan.precision, options.denoise))
        weights = {
            spec.name: loaded[1] if loaded else weights_sha256(spec, self._weights_dir, options.denoise)
        }
        if plan.faces is not None:
            weights |= self._faces.weights_sha256(options.face_model, is_aligned=options.aligned)
        if not work.source_sha256 or (plan.faces is not None and self._faces.is_own):
            return ""
        products = self._products(spec, plan.precision)
        parts = Parts(
            source_sha256=work.source_sha256,
            options=options,
            net=spec.net,
            hyper=spec.hyper,
            weights=weights,
            runtime=f"{NATIVE} {products}" if products else self._runtimes.name,
            device=self._device.name.partition(":")[0],
            precision=plan.precision,
            face_precision=plan.faces.precision if plan.faces else "",
            passes=plan.passes,
            target=plan.target,
            frames=len(work.frames),
            depth=plan.depth,
            output_format=work.encoding.format,
            libraries=library_versions(self._runtimes.name),
        )
        return fingerprint(parts)

    def _face_tools(self, plan: Plan, options: Options) -> FaceTools | None:
        if plan.faces is None:
            return None
        return self._faces.tools(options.face_model, plan.faces.precision, is_aligned=options.aligned)

    def _session(self, spec: ModelSpec, precision: str, denoise: float) -> tuple[Session, str]:
        """The loaded model and the sha256 of its weights."""
        key = (spec.name, precision, denoise)
        if key not in self._sessions:
            loaded = load_weights(spec, self._weights_dir, denoise=denoise)
            while len(self._sessions) >= KEPT_SESSIONS:
                self._sessions.popitem(last=False)
            session = self._runtimes.open_session(
                ARCHITECTURES[spec.net],
                spec.hyper,
                loaded.tensors,
                precision=precision,
                threads=self._threads,
            )
            self._sessions[key] = (session, loaded.sha256)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _opened_runtime(self) -> Runtime:
        return self._runtimes.own

    def _gflops(self, model: str, spec: ModelSpec | None, precision: str) -> float:
        """How fast this engine is: as measured on its last picture, or a guess. `spec` None: a model for faces."""
        if measured := self._measured.get((model, precision)):
            return measured
        products = self._products(spec, precision) if spec else ""
        return machine.nominal_gflops(precision, kind=self._device.name.partition(":")[0], products=products)

    def _products(self, spec: ModelSpec, precision: str) -> str:
        """What the native kernel multiplies with, where it computes this model; empty where it does not."""
        return self._runtimes.products_for(ARCHITECTURES[spec.net], spec.hyper, precision)

    def _learn(self, plan: Plan, frames: int, restored: int, timings: Timings) -> None:
        """How fast this engine is, from what `frames` pictures with `restored` faces took."""
        if "network" in timings:
            computed = sum(tiles.tiles * tiles.window.pixels for tiles in plan.passes) * frames
            gigaflop = computed * plan.model.mflops_per_pixel / 1e3
            self._measured[plan.model.name, plan.precision] = gigaflop / max(timings["network"] / 1e3, 1e-3)
        if plan.faces and plan.faces.model and restored:
            gigaflop = plan.faces.gflop * restored
            key = plan.faces.model, plan.faces.precision
            self._measured[key] = gigaflop / max(timings["restore"] / 1e3, 1e-3)


def _counted(watch: Watch, before: int, total: int) -> Watch:
    """The watch as one frame calls it: its pixels come after `before` of `total`."""

    def finished(tile: Tile) -> None:
        watch.finished(replace(tile, done=before + tile.done, total=total))

    return Watch(finished=finished, cancelled=watch.cancelled)
