"""Estimate: what restoring faces costs, before anyone knows how many there are: one, as large as it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enlarger.engine.geometry import Size
from enlarger.engine.networks.catalogue import FACE_MODELS, FaceModelSpec, ModelSpec
from enlarger.engine.options import Options
from enlarger.errors import InvalidOption

CROP_PIXELS = 512 * 512
STRETCHED_TO = 1.25
"""A restored face is enlarged up to this factor by resampling, which keeps all that was drawn; beyond it, by the
network of the picture, which costs 15 times what restoring costs (x4plus)."""
MASKED_PIXELS = 362 * 462
"""Of the crop of a face that go through the network of the picture: the mask's ellipse with a margin."""
RESTORER_GFLOP, MASK_GFLOP = 392.6, 468.1
"""Two operations a multiply-add, for one face: counted over the convolutions of GFPGAN and of ParseNet at 512 px."""
RESTORER_BYTES, MASK_BYTES = 1_600_000_000, 700_000_000
"""Measured with OpenVINO in f32: weights, the copy that is packed for the CPU, and one run."""
DETECTOR_BYTES = 150_000_000
SOFTEST = 2.0
"""A face is not restored where it would be shown with pixels larger than this many of those around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceAbility:
    """What the plan needs to know: the restorers there are by name, and what the program or the machine brings."""

    restorers: Mapping[str, FaceModelSpec] = field(
        default_factory=lambda: {name: spec for name, spec in FACE_MODELS.items() if spec.role == "restorer"}
    )
    has_own_restorer: bool = False
    has_mask: bool = False
    precisions: tuple[str, ...] = ("f32",)
    """What the restorer may be computed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePlan:
    """How faces are restored, and an estimate for one."""

    model: str | None
    """None where the program brings its own restorer."""
    precision: str
    gflop: float
    """To restore a face, and to tell it from its surroundings."""
    enlarged_pixels: int
    """Of the restored face that go through the network of the picture."""
    memory_bytes: int
    largest_crop: float
    """Input pixels that the square of an aligned face may span."""

    def seconds(self, spec: ModelSpec, precision: str, gflops: Callable[[str, str], float]) -> float:
        """For one face, with the network of the picture in its precision. Unknown and so 0 for a restorer brought."""
        restored = self.gflop / gflops(self.model, self.precision) if self.model else 0.0
        return restored + self._enlarged_gflop(spec) / gflops(spec.name, precision)

    def pixels(self, spec: ModelSpec) -> int:
        """The same in input pixels of the picture's network, which is what progress counts in."""
        return max(1, round((self.gflop + self._enlarged_gflop(spec)) * 1e3 / spec.mflops_per_pixel))

    def _enlarged_gflop(self, spec: ModelSpec) -> float:
        return self.enlarged_pixels * spec.mflops_per_pixel / 1e3


def plan_faces(
    size: Size, resized: Size, options: Options, spec: ModelSpec, precision: str, ability: FaceAbility
) -> FacePlan:
    """Raises InvalidOption where there is no such restorer."""
    if not ability.has_own_restorer and options.face_model not in ability.restorers:
        names = ", ".join(ability.restorers)
        raise InvalidOption(f"face_model must be one of {names}, not {options.face_model!r}", "face_model")
    has_mask = ability.has_mask and not options.aligned
    own_gflop = 0.0 if ability.has_own_restorer else RESTORER_GFLOP
    shown = max(resized) if options.aligned else min(resized)
    through_network = CROP_PIXELS if options.aligned else MASKED_PIXELS
    return FacePlan(
        model=None if ability.has_own_restorer else options.face_model,
        precision=precision if precision in ability.precisions else "f32",
        gflop=own_gflop + (MASK_GFLOP if has_mask else 0.0),
        enlarged_pixels=through_network if shown > 512 * STRETCHED_TO else 0,
        memory_bytes=DETECTOR_BYTES
        + (0 if ability.has_own_restorer else RESTORER_BYTES)
        + (MASK_BYTES if has_mask else 0),
        largest_crop=_largest_crop(size, resized, spec, options.passes),
    )


def _largest_crop(size: Size, resized: Size, spec: ModelSpec, passes: int) -> float:
    """A crop of 512 px, enlarged once by the network, is stretched to what it covers in the result.

    So is the picture itself, where the result is larger than the network makes it: what counts is the quotient.
    """
    enlargement = (resized.width / size.width * resized.height / size.height) ** 0.5
    return SOFTEST * 512 * spec.scale / min(enlargement, float(spec.scale**passes))
