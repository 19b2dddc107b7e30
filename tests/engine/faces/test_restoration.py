"""Faces through the engine, with a detector and a restorer that the program brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enlarger.engine.faces.alignment import alignment, chained, inverse, scaling
from enlarger.engine.faces.detector import FaceFinder
from enlarger.engine.faces.face import Array, Detector, Face, Restorer
from enlarger.engine.faces.mask import ellipse
from enlarger.engine.faces.sampling import grid, linear
from enlarger.engine.geometry import Size
from enlarger.engine.options import Options
from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.picture import Picture, Pixels
from enlarger.engine.pipeline import Engine
from enlarger.engine.tiles import Tile, Watch
from enlarger.errors import Cancelled, InvalidOption, ModelUnavailable, NumericFault

from .stand_ins import Drawn, Same, Told, face_at, waves

Scene = Callable[..., np.ndarray]
Photo = Callable[[str], np.ndarray]
FACES = [face_at(40, 50, 44), face_at(104, 60, 60, tilt=25)]


def options(**changes: Any) -> Options:
    return Options(**{"model": "realesr-animevideov3", "precision": "f32", "face_enhance": True, **changes})


def engine_with(restorer: Restorer, faces: list[Face] | Detector | None = None) -> Engine:
    faces = FACES if faces is None else faces
    return Engine(detector=Told(faces) if isinstance(faces, list) else faces, restorer=restorer)


def without_faces(engine: Engine, pixels: Pixels, **changes: Any) -> Pixels:
    return engine.upscale(Picture.from_array(pixels), options(**changes, face_enhance=False)).pixels


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "RGB": lambda rgba: rgba[:, :, :3],
    "gray": lambda rgba: rgba[:, :, :1],
    "16-bit": lambda rgba: rgba[:, :, :3].astype(np.uint16) * 257,
    "RGBA": lambda rgba: rgba,
    "16-bit gray with alpha": lambda rgba: rgba[:, :, 2:].astype(np.uint16) * 257,
}


@pytest.mark.shared
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1, 2, 2.5, 4])
def test_a_restorer_that_changes_nothing_changes_nothing(
    scale: float, form: str, finder: FaceFinder, photo: Photo
) -> None:
    rgb = photo("children-alpha.png")[:160, 220:420]
    alpha = np.linspace(0, 255, rgb.shape[1]).astype(np.uint8)
    pixels = np.ascontiguousarray(FORMS[form](np.dstack([rgb, np.broadcast_to(alpha, rgb.shape[:2])])))
    engine = engine_with(Same(), finder)
    result = engine.upscale(Picture.from_array(pixels), options(scale=scale))
    assert result.report["faces"]["note"] == "2 faces found, 2 restored"
    plain = without_faces(engine, pixels, scale=scale)
    assert result.pixels.dtype == plain.dtype
    distance = (result.pixels.astype(float) - plain) / np.iinfo(plain.dtype).max * 255
    assert np.sqrt(np.square(distance).mean()) < 0.1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1, 2.5])
def test_faces_are_drawn_in_the_depth_and_channels_of_the_picture(
    scale: float, form: str, scene: Scene
) -> None:
    pixels = FORMS[form](scene(160, 120, 4))
    pixels[:, :, -1] = pixels.max() // 2 if pixels.shape[2] in (2, 4) else pixels[:, :, -1]
    engine = engine_with(Drawn(waves()))
    result = engine.upscale(Picture.from_array(pixels), options(scale=scale)).pixels
    plain = without_faces(engine, pixels, scale=scale)
    assert (result.shape, result.dtype) == (plain.shape, plain.dtype)
    changed = (result != plain).any(axis=2)
    assert 0.05 < changed.mean() < 0.6
    assert not changed[inside(FACES, Size(160, 120), scale) == 0].any()
    if pixels.shape[2] in (2, 4):
        np.testing.assert_array_equal(result[:, :, -1], plain[:, :, -1])


def inside(faces: list[Face], size: Size, scale: float) -> np.ndarray:
    """How much of the faces' masks each pixel of the result is in."""
    output = Size(round(size.width * scale), round(size.height * scale))
    whole = np.zeros((output.height, output.width), np.float32)
    for face in faces:
        matrix = chained(scaling(1 / scale, 1 / scale), alignment(face))
        whole = np.maximum(whole, linear(ellipse()[None], *grid(matrix, 0, 0, output))[0])
    return whole


def test_strength_zero_at_scale_one_leaves_all_but_the_faces_as_it_is(scene: Scene) -> None:
    pixels = scene(160, 120, 4)
    pixels[:30, :, 3] = 0
    result = engine_with(Drawn(waves())).upscale(Picture.from_array(pixels), options(scale=1, strength=0.0))
    outside = inside(FACES, Size(160, 120), 1) == 0
    np.testing.assert_array_equal(result.pixels[outside], pixels[outside])
    assert (result.pixels != pixels).any()
    assert "network" not in result.report["timings_ms"]


def test_face_strength_blends_the_restored_face_with_the_enlarged_one(scene: Scene) -> None:
    pixels = scene(160, 120)
    engine = engine_with(Drawn(waves()))
    plain = without_faces(engine, pixels, scale=2).astype(float)
    none, half, full = (
        engine.upscale(Picture.from_array(pixels), options(scale=2, face_strength=share)).pixels.astype(float)
        for share in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(none, plain)
    assert np.abs(half - (plain + full) / 2).max() <= 2
    assert np.abs(full - plain).max() > 50


def test_a_face_shown_larger_than_it_was_restored_is_drawn_by_the_network(scene: Scene) -> None:
    pixels = scene(160, 120)
    large = [face_at(80, 60, 100)]
    stripes = np.repeat((np.arange(512) // 16 % 2 * 0.5 + 0.25)[None, :, None], 512, axis=0).repeat(3, axis=2)
    run = engine_with(Drawn(stripes.astype(np.float32)), large)
    result = run.upscale(Picture.from_array(pixels), options(scale=10, strength=0.0))
    assert "enlarge_faces" in result.report["timings_ms"]
    row = result.pixels[600, 500:1100, 0].astype(int)
    edges = np.flatnonzero(np.abs(np.diff(row)) > 5)
    # A stripe is 16 px of the crop, so 87 px here. Stretching would smear each edge over 20 px.
    assert len(edges) > 0
    runs = np.split(edges, np.flatnonzero(np.diff(edges) > 1) + 1)
    assert max(len(steps) for steps in runs) <= 12
    small = engine_with(Drawn(stripes.astype(np.float32)), [face_at(80, 60, 40)])
    report = small.upscale(Picture.from_array(pixels), options(scale=4, strength=0.0)).report
    assert "enlarge_faces" not in report["timings_ms"]


def test_the_report_tells_of_every_face(scene: Scene) -> None:
    faces = [*FACES, face_at(140, 20, 10), face_at(20, 100, 30, score=0.5)]
    result = engine_with(Drawn(waves()), faces).upscale(Picture.from_array(scene(160, 120)), options(scale=2))
    report = json.loads(json.dumps(result.report))["faces"]
    assert (report["model"], report["mask"], report["found"]) == (None, "ellipse", 4)
    assert report["note"] == "4 faces found, 2 restored"
    assert [face["index"] for face in report["faces"]] == [0, 1, 2, 3]
    assert [face["used"] for face in report["faces"]] == [True, True, False, False]
    assert [bool(face["reason"]) for face in report["faces"]] == [False, False, True, True]
    assert report["faces"][0]["box"] == pytest.approx(list(FACES[0].box_xyxy), abs=0.1)
    np.testing.assert_allclose(report["faces"][1]["landmarks"], FACES[1].landmarks_xy, atol=0.1)
    used, skipped = report["faces"][0], report["faces"][2]
    assert used["similarity_before"] > 0.95  # the network keeps the face
    assert used["similarity_after"] < 0.8  # waves are no face
    assert skipped["similarity_before"] is skipped["similarity_after"] is None


def test_similarity_falls_as_the_face_is_replaced(scene: Scene) -> None:
    def after(strength: float) -> float:
        changes = options(scale=2, face_strength=strength)
        report = engine_with(Drawn(waves())).upscale(Picture.from_array(scene(160, 120)), changes).report
        return report["faces"]["faces"][0]["similarity_after"]

    assert 1 >= after(0.0) > after(0.5) > after(1.0)


def test_no_face_is_a_normal_result_that_says_so(scene: Scene) -> None:
    pixels = scene(60, 40)
    engine = engine_with(Drawn(waves()), [])
    seen: list[Tile] = []
    result = engine.upscale(Picture.from_array(pixels), options(scale=2), watch=Watch(finished=seen.append))
    np.testing.assert_array_equal(result.pixels, without_faces(engine, pixels, scale=2))
    report = result.report["faces"]
    assert (report["found"], report["faces"]) == (0, [])
    assert report["note"].startswith("no face found")
    assert seen[-1].done == seen[-1].total


def test_faces_are_chosen_by_number_and_box(scene: Scene) -> None:
    engine = engine_with(Drawn(waves()))
    box = ",".join(f"{side:.1f}" for side in FACES[1].box_xyxy)
    for choice, used in (("0", [True, False]), (box, [False, True]), (f"0 {box}", [True, True])):
        report = engine.upscale(Picture.from_array(scene(160, 120)), options(scale=1, faces=choice)).report
        assert [face["used"] for face in report["faces"]["faces"]] == used
    report = engine.upscale(Picture.from_array(scene(160, 120)), options(scale=1, faces="7")).report
    assert report["faces"]["note"] == "2 faces found, 0 restored; faces=7 means none of them"


@pytest.mark.parametrize(("size", "scale"), [((512, 512), 1), ((200, 200), 4), ((700, 400), 1)])
def test_an_aligned_picture_is_restored_whole_without_a_detector(size: tuple[int, int], scale: float) -> None:
    pixels = np.full((size[1], size[0], 3), 100, np.uint8)
    drawn = waves(128.0)
    run = engine_with(Drawn(drawn), Told([face_at(9, 9, 9)]))
    result = run.upscale(Picture.from_array(pixels), options(scale=scale, aligned=True, strength=0.0))
    report = result.report["faces"]
    assert (report["mask"], report["found"], report["faces"][0]["box"]) == ("whole", 1, [0, 0, *size])
    if (size, scale) == ((512, 512), 1):
        np.testing.assert_array_equal(result.pixels, np.rint(drawn * 255))
    assert result.pixels.std() > 20
    assert result.pixels[[0, -1]].std() > 20  # up to the border


def test_a_crop_is_what_the_picture_shows_there() -> None:
    given: list[Array] = []

    class Keeping:
        def restore(self, crop: Array) -> Array:
            given.append(crop)
            return crop

    y, x = np.mgrid[0:120, 0:160] + 0.5
    slope = np.rint((x + y) * 65535 / 300).astype(np.uint16)[:, :, None].repeat(3, axis=2)
    engine_with(Keeping(), FACES[1:]).upscale(Picture.from_array(slope), options(scale=1, strength=0.0))
    (crop,) = given
    assert (crop.shape, crop.dtype) == ((512, 512, 3), np.float32)
    u, v = grid(inverse(alignment(FACES[1])), 0, 0, Size(512, 512))
    seen = (u > 3) & (u < 157) & (v > 3) & (v < 117)
    assert np.abs(crop[:, :, 0] - (u + v) / 300)[seen].max() < 1e-4


def test_between_two_faces_the_work_can_be_cancelled(scene: Scene) -> None:
    restored: list[int] = []

    class Counting:
        def restore(self, crop: Array) -> Array:
            restored.append(1)
            return 1 - crop

    watch = Watch(cancelled=lambda: len(restored) == 1)
    with pytest.raises(Cancelled):
        engine_with(Counting()).upscale(Picture.from_array(scene(160, 120)), options(scale=1), watch=watch)
    assert len(restored) == 1


def test_progress_counts_the_faces_and_rises_to_the_whole(scene: Scene) -> None:
    seen: list[Tile] = []
    picture = Picture.from_array(scene(160, 120, 4))
    run = engine_with(Drawn(waves()))
    run.upscale(picture, options(scale=2, alpha="network"), watch=Watch(finished=seen.append))
    assert [tile.done for tile in seen] == sorted(tile.done for tile in seen)
    assert len({tile.total for tile in seen}) == 1
    assert seen[-1].done == seen[-1].total > 2 * 160 * 120
    boxes = {(tile.left, tile.top, tile.width, tile.height) for tile in seen}
    assert len(boxes) == 3  # the picture, and each face where it is


def test_each_frame_of_an_animation_has_its_own_faces(scene: Scene) -> None:
    frames = tuple(Picture.from_array(scene(160, 120)) for _ in range(2))
    animation = Animation(frames=frames, delays_ms=(10, 10), loop=0)
    seen: list[Tile] = []
    run = engine_with(Drawn(waves()))
    result = run.upscale(animation, options(scale=1, output_format="webp"), watch=Watch(finished=seen.append))
    report = result.report["faces"]
    assert report["found"] == 4
    assert [(face["frame"], face["index"]) for face in report["faces"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert seen[-1].done == seen[-1].total


def test_a_restorer_that_gives_no_numbers_or_another_shape_is_an_error(scene: Scene) -> None:
    picture = Picture.from_array(scene(160, 120))
    with pytest.raises(NumericFault, match="no numbers"):
        engine_with(Drawn(np.full((512, 512, 3), np.nan, np.float32))).upscale(picture, options(scale=1))
    with pytest.raises(ValueError, match=r"must give \(512, 512, 3\)"):
        engine_with(Drawn(np.zeros((3, 512, 512), np.float32))).upscale(picture, options(scale=1))


@pytest.mark.parametrize("scale", [1, 3])
def test_the_smallest_pictures_work(scale: float) -> None:
    for shape in ((1, 1, 3), (1, 9, 1), (7, 1, 4)):
        pixels = np.full(shape, 80, np.uint8)
        for restorer in (Same(), Drawn(waves())):
            result = engine_with(restorer, [face_at(0.5, 0.5, 40)])
            done = result.upscale(Picture.from_array(pixels), options(scale=scale))
            assert done.pixels.shape == (shape[0] * scale, shape[1] * scale, shape[2])


def test_a_picture_stretched_out_of_proportion_keeps_its_faces_in_place(scene: Scene) -> None:
    engine = engine_with(Drawn(waves()))
    changes = options(width=480, height=160, fit="stretch", strength=0.0)
    result = engine.upscale(Picture.from_array(np.full((120, 160, 3), 30, np.uint8)), changes).pixels
    x, y = FACES[0].centre
    assert result[round(y * 160 / 120), round(x * 3)].mean() != pytest.approx(30, abs=3) or result.std() > 5
    changed = np.flatnonzero((result != 30).any(axis=(0, 2)))
    assert changed.min() > (FACES[0].box_xyxy[0] - 8) * 3
    assert changed.max() < (FACES[1].box_xyxy[2] + 25) * 3


def test_without_weights_the_command_that_brings_them_is_named(tmp_path: Path, scene: Scene) -> None:
    picture = Picture.from_array(scene(20, 20))
    for engine in (Engine(weights_dir=tmp_path), Engine(weights_dir=tmp_path, restorer=Same())):
        with pytest.raises(ModelUnavailable, match="enlarger models pull faces"):
            engine.upscale(picture, options(scale=1))
        engine.plan(picture.size, options(scale=1))  # asking what it would be is no reason to fail
    aligned = options(scale=1, aligned=True)
    assert Engine(weights_dir=tmp_path, restorer=Same()).upscale(picture, aligned).size == (20, 20)


def test_an_unknown_face_model_is_refused_with_those_there_are(scene: Scene) -> None:
    with pytest.raises(
        InvalidOption, match=r"face_model must be one of .*GFPGANv1\.4.*not 'YuNet'"
    ) as caught:
        Engine().plan((20, 20), options(face_model="YuNet"))
    assert caught.value.field == "face_model"
