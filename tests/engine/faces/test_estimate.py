from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from enlarger.engine.faces.estimate import MASK_GFLOP, MASKED_PIXELS, RESTORER_GFLOP, FaceAbility, plan_faces
from enlarger.engine.faces.mask import ellipse
from enlarger.engine.faces.patch import MARGIN, shown_box
from enlarger.engine.geometry import Size
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import FACE_MODELS, MODELS
from enlarger.engine.options import Options
from enlarger.engine.plan import Ability, Limits, Subject, make_plan

X4 = MODELS["RealESRGAN_x4plus"]


class Counting:
    """Ops that compute shapes only, and count two operations a multiply-add of convolutions and products."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self.operations = 0

    def conv(self, x: tuple[int, ...], name: str, *, stride: int = 1, **_: Any) -> tuple[int, ...]:
        out, inputs, high, wide = self._shapes[f"{name}.weight"][-4:]
        result = (1, out, x[2] // stride, x[3] // stride)
        self.operations += 2 * inputs * high * wide * int(np.prod(result))
        return result

    def linear(self, x: tuple[int, ...], name: str) -> tuple[int, ...]:
        out, inputs = self._shapes[f"{name}.weight"]
        self.operations += 2 * out * inputs
        return (1, out, 1, 1)

    def demodulation(self, style: tuple[int, ...], name: str) -> tuple[int, ...]:
        return (1, self._shapes[f"{name}.weight"][-4], 1, 1)

    def constant(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def add(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return np.broadcast_shapes(a, b)

    multiply = add

    def concat(self, parts: list[tuple[int, ...]]) -> tuple[int, ...]:
        return (1, sum(part[1] for part in parts), *parts[0][2:])

    def channels(self, x: tuple[int, ...], start: int, stop: int) -> tuple[int, ...]:
        return (1, stop - start, *x[2:])

    def nearest(self, x: tuple[int, ...], factor: int) -> tuple[int, ...]:
        return (*x[:2], x[2] * factor, x[3] * factor)

    def double(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return self.nearest(x, 2)

    def halve(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return (*x[:2], x[2] // 2, x[3] // 2)

    def __getattr__(self, name: str) -> Any:
        return lambda x, *rest: x  # what keeps the shape


@pytest.mark.parametrize(("model", "gflop"), [("GFPGANv1.4", RESTORER_GFLOP), ("ParseNet", MASK_GFLOP)])
def test_the_cost_of_a_face_is_counted_over_its_network(model: str, gflop: float) -> None:
    spec = FACE_MODELS[model]
    net = ARCHITECTURES[spec.net]
    ops = Counting(net.shapes(spec.hyper))
    net.stages[0].forward(ops, (1, 3, 512, 512), spec.hyper)
    assert ops.operations / 1e9 == pytest.approx(gflop, rel=0.01)


def test_the_pixels_of_a_face_are_those_of_its_mask() -> None:
    left, top, right, bottom = shown_box(ellipse(), MARGIN)
    assert (right - left) * (bottom - top) == pytest.approx(MASKED_PIXELS, rel=0.02)


@pytest.mark.parametrize(
    ("scale", "passes", "largest"),
    [(1, 1, 4096), (2, 1, 2048), (4, 1, 1024), (10, 1, 1024), (10, 2, 409.6)],
)
def test_a_face_may_be_as_large_as_it_is_shown_half_as_sharp_as_the_picture(
    scale: int, passes: int, largest: float
) -> None:
    size, resized = Size(1000, 1000), Size(1000 * scale, 1000 * scale)
    plan = plan_faces(size, resized, Options(passes=passes), X4, "f32", FaceAbility())
    assert plan.largest_crop == pytest.approx(largest)


def plan(options: Options, faces: FaceAbility | None = None, **subject: Any):  # type: ignore[no-untyped-def]
    ability = Ability(
        runtime="openvino",
        precisions=("bf16", "f32"),
        gflops=lambda model, precision: 100.0,
        is_present=lambda spec: True,
        faces=faces or FaceAbility(),
    )
    asked = Subject(**{"size": Size(200, 200), **subject})
    return make_plan(asked, options, models=MODELS, limits=Limits(), ability=ability)


def test_time_and_memory_count_one_face_a_picture() -> None:
    plain, faces = plan(Options(scale=2)), plan(Options(scale=2, face_enhance=True))
    assert faces.seconds - plain.seconds == pytest.approx(RESTORER_GFLOP / 100, abs=1e-3)
    assert faces.memory_bytes - plain.memory_bytes > 1e9
    assert any("one face" in note for note in faces.notes)
    assert (plain.faces, plain.told()["face_model"]) == (None, None)
    assert faces.told()["face_model"] == "GFPGANv1.4"
    assert faces.faces.precision == "f32"  # though the picture is computed in bf16


def test_a_mask_costs_more_and_a_restorer_of_the_program_nothing_known() -> None:
    options = Options(scale=2, face_enhance=True)
    plain = plan(Options(scale=2)).seconds
    masked = plan(options, FaceAbility(has_mask=True)).seconds
    assert masked - plain == pytest.approx((RESTORER_GFLOP + MASK_GFLOP) / 100, abs=1e-3)
    own = plan(options, FaceAbility(has_own_restorer=True))
    assert own.seconds == plain
    assert own.faces.model is None


def test_a_face_that_may_be_shown_larger_counts_a_run_of_the_network() -> None:
    plain = plan(Options(scale=4)).seconds
    large = plan(Options(scale=4, face_enhance=True)).seconds
    network = MASKED_PIXELS * X4.mflops_per_pixel / 1e3
    assert large - plain == pytest.approx((RESTORER_GFLOP + network) / 100, abs=1e-3)
    aligned = plan(Options(scale=4, face_enhance=True, aligned=True)).seconds
    assert aligned > large


def test_every_frame_has_its_face_and_strength_zero_no_network() -> None:
    still = plan(Options(scale=2, face_enhance=True, strength=0.0))
    moving = plan(Options(scale=2, face_enhance=True, strength=0.0), frames=3)
    assert still.seconds == pytest.approx(RESTORER_GFLOP / 100, abs=1e-3)
    assert moving.seconds == pytest.approx(3 * still.seconds, abs=2e-3)
    assert any("does not run" in note for note in still.notes)
