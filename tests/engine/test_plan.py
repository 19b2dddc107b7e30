"""The plan: what is decided before a pixel is computed, and what is refused."""

from __future__ import annotations

import pytest

from enlarger.engine.faces.estimate import FaceAbility
from enlarger.engine.geometry import Size
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS, ModelSpec
from enlarger.engine.options import Options
from enlarger.engine.plan import Ability, Limits, Plan, Subject, choose_model, make_plan
from enlarger.errors import InvalidOption, ModelUnavailable, PictureTooLarge, RuntimeUnavailable

AMX, VECTORS = ("bf16", "f32"), ("f32", "bf16")
"""What OpenVINO computes in, where the CPU has AMX and where it only has AVX-512 BF16."""


def plan(
    across: int,
    down: int,
    /,
    *,
    depth: int = 8,
    precisions: tuple[str, ...] = ("f32",),
    gflops: float = 100.0,
    present: tuple[str, ...] = tuple(MODELS),
    limits: Limits | None = None,
    has_kernel: bool = False,
    **options: object,
) -> Plan:
    ability = Ability(
        runtime="openvino",
        precisions=precisions,
        gflops=lambda model, precision: gflops,
        is_present=lambda spec: spec.name in present,
        is_native=lambda spec, precision: has_kernel and spec.net == "rrdbnet" and precision == "bf16",
        faces=FaceAbility(precisions=("f32", "bf16")),
    )
    return make_plan(
        Subject(size=Size(across, down), depth=depth),
        Options(**options),
        models=MODELS,
        limits=limits or Limits(),
        ability=ability,
    )


def test_the_plan_is_a_pure_function():
    assert plan(2560, 1440, scale=2.5) == plan(2560, 1440, scale=2.5)


@pytest.mark.parametrize("tile_mode", ["fast", "exact"])
@pytest.mark.parametrize("model", MODELS)
def test_a_picture_of_1440p_computes_at_most_1_4_times_its_pixels(model, tile_mode):
    found = plan(2560, 1440, model=model, tile_mode=tile_mode)
    assert found.work_ratio <= 1.4
    assert found.memory_bytes <= 2.5 * 2**30


def test_the_native_kernel_has_larger_windows_for_less_memory():
    found, without = (plan(2560, 1440, precisions=AMX, has_kernel=has) for has in (True, False))
    assert (found.runtime, without.runtime) == ("native", "openvino")
    assert found.passes[0].tiles == 4
    assert found.work_ratio <= 1.15 <= without.work_ratio
    assert found.memory_bytes < without.memory_bytes


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ("native", "bf16")),
        ({"model": "realesr-animevideov3"}, ("openvino", "f32")),
        ({"precision": "f32"}, ("openvino", "f32")),
        ({"precision": "bf16", "model": "realesr-animevideov3"}, ("openvino", "bf16")),
        ({"depth": 16}, ("openvino", "f32")),
    ],
)
def test_where_only_the_kernel_is_quick_in_bf16_it_gets_what_it_computes_and_nothing_else_is_bf16(
    asked, found
):
    planned = plan(100, 100, precisions=VECTORS, has_kernel=True, **asked)
    assert (planned.runtime, planned.precision) == found


def test_faces_are_restored_in_what_their_own_runtime_is_quickest_in():
    faces = {"face_enhance": True, "has_kernel": True}

    def precision(**asked: object) -> str:
        planned = plan(1000, 1000, **faces, **asked).faces
        assert planned is not None
        return planned.precision

    assert precision(precisions=VECTORS) == "f32"
    assert precision(precisions=AMX) == "bf16"
    assert precision(precisions=AMX, depth=16) == "f32"
    assert precision(precisions=VECTORS, precision="bf16") == "bf16"


@pytest.mark.parametrize("size", [(707, 707), (1000, 500), (64, 7800), (1, 500_000)])
def test_half_a_megapixel_is_computed_once(size):
    assert plan(*size, scale=0.5).work_ratio == 1.0


def test_a_network_that_folds_pixels_computes_little_more_than_an_odd_picture_has():
    found = plan(101, 67, model="RealESRGAN_x2plus", scale=2)
    assert found.passes[0].window == Size(102, 68)
    assert found.size == Size(202, 134)


def test_sixteen_bits_are_computed_in_f32_and_said_so():
    found = plan(100, 100, depth=16, precisions=AMX)
    assert found.precision == "f32"
    assert "f32" in found.notes[0]
    assert plan(100, 100, precisions=AMX).precision == "bf16"
    assert plan(100, 100, precisions=AMX, bit_depth=16).precision == "f32"


def test_a_precision_that_was_asked_for_is_kept_or_refused():
    assert plan(100, 100, precisions=AMX, precision="f32").precision == "f32"
    forced = plan(100, 100, depth=16, precisions=AMX, precision="bf16")
    assert forced.precision == "bf16"
    assert "8 of the 16 bits" in forced.notes[0]
    with pytest.raises(RuntimeUnavailable, match="not in bf16"):
        plan(100, 100, precision="bf16")


def test_passes_multiply():
    found = plan(50, 40, passes=3, model="realesr-animevideov3", scale=10)
    assert [tiles.size for tiles in found.passes] == [Size(50, 40), Size(200, 160), Size(800, 640)]


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        ((9000, 9000), {}, r"the picture is 9000×9000, 81\.0 megapixels; the limit is 64"),
        ((6000, 6000), {"scale": 4}, r"the result is 24000×24000, 576\.0 megapixels; the limit is 400"),
        ((7000, 7000), {"passes": 3, "scale": 1}, "the network's result of pass 2"),
    ],
)
def test_what_is_too_large_is_refused_with_its_size_and_the_limit(size, options, words):
    with pytest.raises(PictureTooLarge, match=words):
        plan(*size, **options)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 450}, (450, 300)),
        ({"height": 450}, (675, 450)),
        ({"long_side": 1000}, (1000, 667)),
        ({"short_side": 1000}, (1500, 1000)),
        ({"megapixels": 1.0}, (1225, 816)),
        ({"width": 450, "height": 450}, (450, 300)),
        ({"width": 450, "height": 450, "fit": "cover"}, (450, 450)),
        ({"width": 450, "height": 450, "fit": "stretch"}, (450, 450)),
        ({"width": 30, "scale": 9}, (30, 20)),
        ({"scale": 0.001}, (1, 1)),
    ],
)
def test_every_way_to_ask_for_a_size(options, size):
    assert plan(300, 200, **options).size == Size(*size)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"width": 3001}, "width"),
        ({"height": 2001, "width": 10, "fit": "stretch"}, "height"),
        ({"megapixels": 7.0}, "megapixels"),
        ({"width": 100, "long_side": 100}, "long_side"),
        ({"width": 100, "height": 100, "megapixels": 1.0}, "height"),
        ({"model": "RealESRGAN_x5"}, "model"),
        ({"denoise": 0.5}, "denoise"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(options, field):
    with pytest.raises(InvalidOption) as refusal:
        plan(300, 200, **options)
    assert refusal.value.field == field
    assert field in str(refusal.value)


def seconds_of(x4plus: float):
    def seconds(spec: ModelSpec) -> float:
        return x4plus * spec.mflops_per_pixel / MODELS[DEFAULT_MODEL].mflops_per_pixel

    return seconds


@pytest.mark.parametrize(
    ("factor", "present", "x4plus_seconds", "chosen"),
    [
        (2.0, tuple(MODELS), 5.0, "RealESRGAN_x2plus"),
        (2.1, tuple(MODELS), 5.0, DEFAULT_MODEL),
        (2.0, (DEFAULT_MODEL,), 5.0, DEFAULT_MODEL),
        (4.0, tuple(MODELS), 600.0, "realesr-general-x4v3"),
        (4.0, (DEFAULT_MODEL, "realesr-animevideov3"), 600.0, DEFAULT_MODEL),
        (4.0, ("realesr-animevideov3",), 5.0, "realesr-animevideov3"),
    ],
)
def test_auto_takes_the_model_of_the_scale_and_the_cost(factor, present, x4plus_seconds, chosen):
    rows = {name: MODELS[name] for name in present}
    assert choose_model(factor, rows, seconds_of(x4plus_seconds))[0] == chosen


def test_auto_without_any_model_says_how_to_get_one():
    with pytest.raises(ModelUnavailable, match="enlarger models pull"):
        choose_model(4.0, {}, seconds_of(1.0))


def test_auto_is_named_in_the_plan_and_nothing_else_is_chosen_without_asking():
    assert "RealESRGAN_x2plus" in plan(100, 100, model="auto", scale=2).notes[0]
    assert plan(100, 100, scale=2).model.name == DEFAULT_MODEL


def test_the_estimate_of_time_follows_speed_and_pixels():
    slow, quick = plan(500, 500, gflops=100.0), plan(500, 500, gflops=1000.0)
    assert slow.seconds == pytest.approx(10 * quick.seconds, rel=1e-3)
    # 35.86 Mflop a pixel × 250,000 pixels at 100 Gflop/s
    assert slow.seconds == pytest.approx(89.65, rel=1e-3)
