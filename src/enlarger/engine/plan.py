"""Plan: everything that is decided before a pixel is computed. A pure function; same arguments, same plan.

The plan names the model, precision, passes, tiles and exact size, and estimates memory and time. What it had
to choose on its own stands in `notes`, which go into the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from enlarger.engine.faces.estimate import FaceAbility, FacePlan, plan_faces
from enlarger.engine.geometry import Size, Target, TilePlan, plan_tiles, target_of
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, ModelSpec
from enlarger.engine.options import Options
from enlarger.engine.runtime import precision_of, quickest_of
from enlarger.errors import InvalidOption, ModelUnavailable, PictureTooLarge

MAX_TILE_PIXELS = 640_000
"""Feature pixels of one window. In f32 the trunk of x4plus needs 2.3 kB each: 1.5 GB. With less `tile_mode=exact`
would compute more than 1.4 times the pixels of 2560×1440."""

NATIVE_TILE_PIXELS = 1_100_000
"""The same for the native kernel: four windows for 2560×1440, 0.6 GB."""

TRUNK_BYTES = {"f32": 2300, "bf16": 1250, "f16": 1250}
"""Memory of a window's pixel while the trunk of an RRDB net runs, measured with OpenVINO on 384² and 736×784."""
COMPACT_BYTES = {"f32": 1100, "bf16": 600, "f16": 600}
"""The same for compact nets."""
NATIVE_BYTES = 540
"""The same for the native kernel: two maps of bf16, one of f32, and the window's floats."""
BASE_BYTES = 700_000_000
"""Interpreter, libraries, weights and the strips of the tail."""

QUICK_SECONDS = 60.0
"""`model=auto` leaves the large networks for pictures whose estimate with them is longer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest pictures an engine accepts, in pixels."""

    max_input_pixels: int = 64_000_000
    max_output_pixels: int = 400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What the plan needs to know of the machine.

    `precisions`: what the runtime computes in, the one it is quickest in first. `gflops(model, precision)`: how
    fast it is. `is_present(model)`: whether the weights are here. `is_native(model, precision)`: whether the
    native kernel computes that instead of `runtime`. `max_tile_pixels` None is what suits the runtime. `faces`:
    what could restore them.
    """

    runtime: str
    precisions: tuple[str, ...]
    gflops: Callable[[str, str], float]
    is_present: Callable[[ModelSpec], bool]
    is_native: Callable[[ModelSpec, str], bool] = lambda spec, precision: False
    max_tile_pixels: int | None = None
    faces: FaceAbility = field(default_factory=FaceAbility)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the plan needs to know of the picture."""

    size: Size
    depth: int = 8
    has_alpha: bool = False
    frames: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What upscaling a picture will do."""

    model: ModelSpec
    runtime: str
    precision: str
    passes: tuple[TilePlan, ...]
    """The tiles of each run of the network, the first over the picture itself."""
    target: Target
    depth: int
    """Bits a sample of the result."""
    memory_bytes: int
    """Estimate of the largest memory needed at once."""
    seconds: float
    """Estimate of the time the networks take."""
    notes: tuple[str, ...] = ()
    faces: FacePlan | None = None
    """How faces are restored; None where that was not asked for."""

    @property
    def size(self) -> Size:
        """Of the result."""
        return self.target.output

    @property
    def work_ratio(self) -> float:
        """Pixels computed ÷ pixels there are, over all passes."""
        computed = sum(tiles.tiles * tiles.window.pixels for tiles in self.passes)
        return computed / sum(tiles.size.pixels for tiles in self.passes)

    def told(self) -> dict[str, Any]:
        """The plan in JSON types, for those who ask before they run."""
        return {
            "model": self.model.name,
            "runtime": self.runtime,
            "precision": self.precision,
            "input": list(self.passes[0].size),
            "output": list(self.size),
            "depth": self.depth,
            "passes": len(self.passes),
            "face_model": self.faces.model if self.faces else None,
            "tiles": sum(tiles.tiles for tiles in self.passes),
            "work_ratio": round(self.work_ratio, 4),
            "memory_bytes": self.memory_bytes,
            "seconds": self.seconds,
            "choices": list(self.notes),
        }


def make_plan(
    subject: Subject, options: Options, *, models: Mapping[str, ModelSpec], limits: Limits, ability: Ability
) -> Plan:
    """Raises InvalidOption, PictureTooLarge, RuntimeUnavailable or ModelUnavailable: the refusal before any work."""
    check_pixels("the picture", subject.size, limits.max_input_pixels)
    target = target_of(subject.size, options)
    check_pixels("the result", target.output, limits.max_output_pixels)
    check_pixels("the picture resized to fill the box", target.resized, 2 * limits.max_output_pixels)
    depth = options.bit_depth or subject.depth

    def precision_for(spec: ModelSpec) -> tuple[str, tuple[str, ...]]:
        return _precision(spec, options, max(depth, subject.depth), ability)

    spec, why = _model(subject, target, options, models, ability, lambda spec: precision_for(spec)[0])
    precision, notes = precision_for(spec)
    if options.denoise != 1.0 and not spec.has_denoise:
        raise InvalidOption(
            f"denoise={options.denoise:g} has no meaning for {spec.name}; only realesr-general-x4v3 has this knob",
            "denoise",
        )
    is_native = ability.is_native(spec, precision)
    most = ability.max_tile_pixels or (NATIVE_TILE_PIXELS if is_native else MAX_TILE_PIXELS)
    passes = _passes(subject.size, spec, options, limits, most)
    faces, seconds = None, 0.0
    if options.face_enhance:
        face_precision = _face_precision(precision, options, ability)
        faces = plan_faces(subject.size, target.resized, options, spec, face_precision, ability.faces)
        seconds = faces.seconds(spec, precision, ability.gflops) * subject.frames
        notes = (*notes, "the estimates of time and memory count one face a picture")
    if options.strength > 0:
        seconds += _seconds(passes, spec, subject, ability.gflops(spec.name, precision))
    else:
        notes = (*notes, f"strength=0: {spec.name} does not run over the picture")
    return Plan(
        model=spec,
        runtime="native" if is_native else ability.runtime,
        precision=precision,
        passes=passes,
        target=target,
        depth=depth,
        memory_bytes=_memory(passes, spec, precision, target, depth, subject, is_native=is_native)
        + (faces.memory_bytes if faces else 0),
        seconds=round(seconds, 3),
        notes=(*notes, *why),
        faces=faces,
    )


def check_pixels(what: str, size: Size, limit: int) -> None:
    """Raises PictureTooLarge when `size` has more pixels than `limit`."""
    if size.pixels > limit:
        raise PictureTooLarge(
            f"{what} is {size.width}×{size.height}, {size.pixels / 1e6:.1f} megapixels; "
            f"the limit is {limit / 1e6:g}; send a smaller picture or a smaller scale"
        )


def _precision(
    spec: ModelSpec, options: Options, depth: int, ability: Ability
) -> tuple[str, tuple[str, ...]]:
    if options.precision != "auto":
        asked = precision_of(ability.precisions, options.precision)
        is_lossy = depth == 16 and asked != "f32"
        return asked, (
            f"{asked} was asked for: it keeps about 8 of the 16 bits a sample",
        ) if is_lossy else ()
    quickest = quickest_of(ability.precisions, has_kernel=ability.is_native(spec, "bf16"))
    if depth == 16 and quickest != "f32":
        # bf16 has 8 bits of mantissa: of a 252-step 16-bit ramp 18 values are left.
        return "f32", ("16 bits a sample: computed in f32",)
    return quickest, ()


def _face_precision(precision: str, options: Options, ability: Ability) -> str:
    """The kernel that may compute the picture in bf16 does not compute faces; their own runtime may be slow in it."""
    return precision if precision == "f32" or options.precision != "auto" else ability.precisions[0]


def _model(
    subject: Subject,
    target: Target,
    options: Options,
    models: Mapping[str, ModelSpec],
    ability: Ability,
    precision_for: Callable[[ModelSpec], str],
) -> tuple[ModelSpec, tuple[str, ...]]:
    if options.model != "auto":
        if options.model not in models:
            raise InvalidOption(
                f"model must be one of {', '.join(models)} or auto, not {options.model!r}", "model"
            )
        return models[options.model], ()

    def seconds(spec: ModelSpec) -> float:
        gflops = ability.gflops(spec.name, precision_for(spec))
        return spec.mflops_per_pixel * subject.size.pixels / 1e3 / gflops

    present = {name: spec for name, spec in models.items() if ability.is_present(spec)}
    factor = max(target.resized.width / subject.size.width, target.resized.height / subject.size.height)
    name, why = choose_model(factor, present, seconds)
    return models[name], (f"model=auto chose {name}: {why}",)


def choose_model(
    factor: float, present: Mapping[str, ModelSpec], seconds: Callable[[ModelSpec], float]
) -> tuple[str, str]:
    """The model for an enlargement by `factor`, of those that are `present`, and the reason.

    Up to ×2 the ×2 network does the work at a quarter of the cost. Where x4plus would take longer than
    QUICK_SECONDS, the compact general network does it at a fifteenth. Raises ModelUnavailable when nothing is here.
    """
    if factor <= 2 and "RealESRGAN_x2plus" in present:
        return "RealESRGAN_x2plus", "up to ×2 it costs a quarter of x4plus"
    if DEFAULT_MODEL in present:
        estimate = seconds(present[DEFAULT_MODEL])
        if estimate > QUICK_SECONDS and "realesr-general-x4v3" in present:
            return "realesr-general-x4v3", f"{DEFAULT_MODEL} would take about {estimate:.0f} s"
        return DEFAULT_MODEL, "the best for photographs of the models on this machine"
    if not present:
        raise ModelUnavailable("no model is on this machine; get one with: enlarger models pull")
    return next(iter(present)), "the only model on this machine"


def _passes(
    size: Size, spec: ModelSpec, options: Options, limits: Limits, max_tile_pixels: int
) -> tuple[TilePlan, ...]:
    overlap = spec.overlap_exact if options.tile_mode == "exact" else spec.overlap_fast
    unit = spec.unit
    plans: list[TilePlan] = []
    for index in range(options.passes):
        plans.append(plan_tiles(size, overlap=overlap, max_pixels=max_tile_pixels * unit**2, unit=unit))
        size = Size(size.width * spec.scale, size.height * spec.scale)
        # The network's own result may be larger than what is kept of it; one ×4 over the limit still fits.
        check_pixels(f"the network's result of pass {index + 1}", size, 16 * limits.max_output_pixels)
    return tuple(plans)


def _memory(
    passes: tuple[TilePlan, ...],
    spec: ModelSpec,
    precision: str,
    target: Target,
    depth: int,
    subject: Subject,
    *,
    is_native: bool,
) -> int:
    sample_bytes = depth // 8
    channels = 4 if subject.has_alpha else 3
    native = max(tiles.size.pixels for tiles in passes) * spec.scale**2 * 3 * sample_bytes
    result = target.resized.pixels * channels * sample_bytes
    source = subject.size.pixels * channels * subject.depth // 8
    generic = TRUNK_BYTES if spec.net == "rrdbnet" else COMPACT_BYTES
    per_pixel = NATIVE_BYTES if is_native else generic[precision]
    window = max(tiles.window.pixels for tiles in passes) // spec.unit**2 * per_pixel
    return BASE_BYTES + source + native + result + window


def _seconds(passes: tuple[TilePlan, ...], spec: ModelSpec, subject: Subject, gflops: float) -> float:
    computed = sum(tiles.tiles * tiles.window.pixels for tiles in passes)
    return spec.mflops_per_pixel * computed * subject.frames / 1e3 / gflops
