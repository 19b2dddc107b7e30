"""Restoration: the faces of one picture, from finding them to pasting them.

find ─▶ judge ─▶ for each: crop ─▶ restore ─▶ mask, match colour ─▶ enlarge if it is shown larger ─▶ paste
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enlarger.engine.faces import filters
from enlarger.engine.faces.alignment import (
    TEMPLATE_XY,
    Affine,
    alignment,
    applied,
    chained,
    inverse,
    scaling,
    whole_picture,
)
from enlarger.engine.faces.face import SIDE, Array, Detector, Face, Restorer
from enlarger.engine.faces.filters import Verdict, judged
from enlarger.engine.faces.mask import Masker, ellipse
from enlarger.engine.faces.paste import Rival, covered, paste
from enlarger.engine.faces.patch import Network, gray, matched, patched
from enlarger.engine.faces.restorer import restored_planes
from enlarger.engine.faces.sampling import grid, view
from enlarger.engine.faces.yunet import made
from enlarger.engine.geometry import Size
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Canvas, Picture
from enlarger.engine.tiles import Watch
from enlarger.engine.timing import Timings, timed

CELLS = 32
"""Low frequencies are those of the aligned face at this many samples a side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceTools:
    """What restores faces. Without a detector only an aligned face can be restored.

    `model`, the sha256 of its weights, and `precision`, which tells what the last face was computed in, are empty
    where the restorer was brought by the program.
    """

    detector: Detector | None
    restorer: Restorer
    masker: Masker | None
    model: str | None = None
    weights_sha256: str = ""
    precision: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRun:
    """One picture whose faces are restored, and all that is needed for it."""

    source: Picture
    canvas: Canvas
    """The colours of the picture, enlarged."""
    options: Options
    tools: FaceTools
    network: Network
    largest_crop: float
    """Pixels of the source that the square of an aligned face may span; see `filters`."""
    watch: Watch
    timings: Timings

    @property
    def enlargement(self) -> Affine:
        """From pixels of the source to those of the canvas."""
        sides = zip(self.canvas.size, self.source.size, strict=True)
        return scaling(*(after / before for after, before in sides))


Box = tuple[int, int, int, int]
Advanced = Callable[[float, Box], None]
"""Told after each face: the share of the work that is done, and left, top, right, bottom in the canvas."""


def restore_faces(run: FaceRun, advanced: Advanced) -> dict[str, Any]:
    """Restore the faces in `run.canvas`; gives what the report says of them.

    Raises Cancelled between two faces, OutOfMemory, or NumericFault.
    """
    run.watch.check()
    with timed(run.timings, "detect"):
        faces = _found(run)
    verdicts = _verdicts(faces, run)
    to_crops = {one.index: _to_crop(one.face, run) for one in verdicts if one.is_used}
    told = [_told(verdict) for verdict in verdicts]
    for done, (index, to_crop) in enumerate(to_crops.items(), 1):
        run.watch.check()
        rivals = [Rival(matrix, other > index) for other, matrix in to_crops.items() if other != index]
        similarities, box = _restored(to_crop, rivals, run)
        told[index] |= similarities
        advanced(done / len(to_crops), box)
    if not to_crops:
        advanced(1.0, (0, 0, run.canvas.size.width, run.canvas.size.height))
    return {
        "model": run.tools.model,
        "weights_sha256": run.tools.weights_sha256,
        "precision": run.tools.precision(),
        "mask": _mask_name(run),
        "found": len(faces),
        "note": _note(verdicts, run.options),
        "faces": told,
    }


def restored_count(reports: Sequence[dict[str, Any]]) -> int:
    """How many faces were restored, over what is reported of several pictures."""
    return sum(face["used"] for report in reports for face in report["faces"])


def _found(run: FaceRun) -> list[Face]:
    if run.options.aligned or run.tools.detector is None:
        return [_whole(run.source.size)]
    return run.tools.detector.detect(run.source)


def _verdicts(faces: Sequence[Face], run: FaceRun) -> tuple[Verdict, ...]:
    if run.options.aligned:
        return tuple(Verdict(index=index, face=face, reason="") for index, face in enumerate(faces))
    return judged(faces, run.source.size, run.options, run.largest_crop)


def _restored(to_crop: Affine, rivals: Sequence[Rival], run: FaceRun) -> tuple[dict[str, Any], Box]:
    """Restore one face in the canvas; gives its similarities, and the pixels it may have changed."""
    crop = view(run.source, chained(run.enlargement, to_crop), Size(SIDE, SIDE))
    given = np.ascontiguousarray(np.broadcast_to(np.clip(crop, 0.0, 1.0), (3, SIDE, SIDE)))
    with timed(run.timings, "restore"):
        restored = restored_planes(run.tools.restorer, given)
        mask = _mask(restored, run)
    run.watch.check()
    if run.source.colours == 1:
        given, restored = gray(given), gray(restored)
    if not run.options.aligned:
        restored = matched(restored, given, mask)
    patch = patched(given, restored, mask, to_crop, run.network)
    wanted = _low(given, mask)
    before = _low_of_canvas(run.canvas, to_crop, mask)
    with timed(run.timings, "paste"):
        paste(patch, run.canvas, run.options.face_strength, rivals, run.watch)
    after = _low_of_canvas(run.canvas, to_crop, mask)
    told = {"similarity_before": _similarity(before, wanted), "similarity_after": _similarity(after, wanted)}
    return told, covered(patch, run.canvas.size)


def _to_crop(face: Face, run: FaceRun) -> Affine:
    """From pixels of the canvas to those of the aligned face."""
    to_crop = whole_picture(run.source.size) if run.options.aligned else alignment(face)
    return chained(inverse(run.enlargement), to_crop)


def _whole(size: Size) -> Face:
    landmarks = applied(inverse(whole_picture(size)), TEMPLATE_XY)
    return made((0, 0, *size), landmarks, 1.0)


def _mask(restored: Array, run: FaceRun) -> Array:
    if run.options.aligned:
        return np.ones((SIDE, SIDE), np.float32)
    if run.tools.masker is None:
        return ellipse()
    return run.tools.masker.mask(np.ascontiguousarray(restored.transpose(1, 2, 0)))


def _mask_name(run: FaceRun) -> str:
    return "whole" if run.options.aligned else "ellipse" if run.tools.masker is None else "parsed"


def _told(verdict: Verdict) -> dict[str, Any]:
    face = verdict.face
    return {
        "index": verdict.index,
        "box": [round(side, 1) for side in face.box_xyxy],
        "landmarks": [[round(x, 1), round(y, 1)] for x, y in face.landmarks_xy],
        "score": round(face.score, 4),
        "used": verdict.is_used,
        "reason": verdict.reason,
        "similarity_before": None,
        "similarity_after": None,
    }


def _note(verdicts: Sequence[Verdict], options: Options) -> str:
    used = sum(verdict.is_used for verdict in verdicts)
    found = f"{len(verdicts)} {'face' if len(verdicts) == 1 else 'faces'} found, {used} restored"
    if not verdicts:
        found = "no face found: the picture is as it would be without face_enhance"
    missing = filters.unmet(options, [verdict.face for verdict in verdicts])
    return found + (f"; faces={' '.join(missing)} means none of them" if missing else "")


def _low(planes: Array, mask: Array) -> Array:
    """Low frequencies of the luma of a face, those that the mask shows: (n,) float32."""
    luma = planes[0] if len(planes) == 1 else gray(planes)[0]
    return _cells(luma)[_cells(mask) > 0.5]


def _low_of_canvas(canvas: Canvas, to_crop: Affine, mask: Array) -> Array:
    """The same, of a face in the enlarged picture: of 8 × 8 pixels in a cell, which is enough for a mean."""
    points = CELLS * 8
    spread = chained(scaling(SIDE / points, SIDE / points), inverse(to_crop))
    x, y = grid(spread, 0, 0, Size(points, points))
    columns = np.clip(np.floor(x), 0, canvas.size.width - 1).astype(np.intp)
    rows = np.clip(np.floor(y), 0, canvas.size.height - 1).astype(np.intp)
    samples = canvas.array[rows, columns].astype(np.float32).transpose(2, 0, 1) / np.float32(canvas.top_value)
    luma = samples[0] if len(samples) == 1 else gray(samples)[0]
    return _cells(luma)[_cells(mask) > 0.5]


def _cells(plane: Array) -> Array:
    cell = len(plane) // CELLS
    return plane.reshape(CELLS, cell, CELLS, cell).mean(axis=(1, 3))


def _similarity(a: Array, b: Array) -> float | None:
    """Correlation of two faces: 1 is the same up to brightness and contrast. None where one of them is flat."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return round(float(a @ b) / norm, 4) if norm > 1e-9 else None
