"""Filters: which of the found faces are restored, and why the others are not.

A restorer draws a face wherever it is told to: on a knee, on a thumbnail of eight pixels, on a profile. So what is
not surely a face, seen from the front and large enough, is left as it is, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np

from enlarger.engine.faces.alignment import TEMPLATE_XY, alignment, applied, factor
from enlarger.engine.faces.face import SIDE, Box, Face, area, overlap, union_share
from enlarger.engine.geometry import Size
from enlarger.engine.options import Options, chosen_faces

MOST_MISFIT = 0.3
"""Distance of the aligned landmarks from the template's (root mean square), in distances between its eyes. Faces of
the samples have 0.02 to 0.14, also at 13 px and with three quarters seen."""
MOST_TURN = 0.4
"""How far the nose may be from the middle of the eyes, in distances between them. 0.4 is about 50° from the front."""
INSIDE = 0.8
"""A box that lies inside a larger one with this share of its area is a part of that face: an eye, mostly."""
BOX_SHARE = 0.25
"""What a chosen box must share with a face's, as a part of their union, to mean it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A face, its number in the report, and why it is not restored; empty if it is."""

    index: int
    face: Face
    reason: str

    @property
    def is_used(self) -> bool:
        return not self.reason


def judged(faces: Sequence[Face], size: Size, options: Options, largest_crop: float) -> tuple[Verdict, ...]:
    """A verdict on each face of a picture of `size`, in the same order.

    `largest_crop` is how many pixels of the picture the square of an aligned face may span. Faces that the option
    `faces` names are restored whatever their size, score and pose.
    """
    if chosen := chosen_faces(options.faces):
        wanted = {index for item in chosen if (index := _meant(item, faces)) is not None}
        reasons = [
            (_not_a_face(face) if index in wanted else "not among the chosen")
            for index, face in enumerate(faces)
        ]
    else:
        reasons = [_why_not(face, faces, options, largest_crop) for face in faces]
    if options.face_only_center:
        reasons = _only_central(faces, reasons, size)
    return tuple(
        Verdict(index=index, face=face, reason=reason)
        for index, (face, reason) in enumerate(zip(faces, reasons, strict=True))
    )


def unmet(options: Options, faces: Sequence[Face]) -> tuple[str, ...]:
    """The items of the option `faces` that mean no face."""
    chosen = chosen_faces(options.faces)
    return tuple(_written(item) for item in chosen if _meant(item, faces) is None)


def _why_not(face: Face, faces: Sequence[Face], options: Options, largest_crop: float) -> str:
    checks: tuple[Callable[[], str], ...] = (
        lambda: _unsure(face, options.face_confidence),
        lambda: _not_a_face(face),
        lambda: _small(face, options.face_min_size),
        lambda: _turned(face),
        lambda: _large(face, largest_crop),
        lambda: _nested(face, faces, options.face_confidence),
    )
    return next((reason for check in checks if (reason := check())), "")


def _unsure(face: Face, confidence: float) -> str:
    return (
        "" if face.score >= confidence else f"score {face.score:.2f} is below face_confidence={confidence:g}"
    )


def _small(face: Face, least: int) -> str:
    side = min(face.width, face.height)
    return "" if side >= least else f"{side:.0f} px is below face_min_size={least}"


def _not_a_face(face: Face) -> str:
    numbers = np.array([*face.box_xyxy, *np.ravel(face.landmarks_xy)])
    if not np.isfinite(numbers).all() or min(face.width, face.height) <= 0:
        return "its box or landmarks are no numbers"
    matrix = alignment(face)
    if factor(matrix) <= 0:
        return "its landmarks all lie in one point"
    eyes = float(np.hypot(*(TEMPLATE_XY[1] - TEMPLATE_XY[0])))
    distances = np.square(applied(matrix, face.landmarks_xy) - TEMPLATE_XY).sum(axis=1)
    misfit = float(np.sqrt(distances.mean())) / eyes
    return "" if misfit <= MOST_MISFIT else f"the landmarks are not those of a face (misfit {misfit:.2f})"


def _turned(face: Face) -> str:
    eye, other, nose = (np.array(point) for point in face.landmarks_xy[:3])
    across = other - eye
    turn = float((nose - (eye + other) / 2) @ across / max(across @ across, 1e-9))
    return "" if abs(turn) <= MOST_TURN else "turned too far to the side"


def _large(face: Face, largest_crop: float) -> str:
    span = SIDE / factor(alignment(face))
    if span <= largest_crop:
        return ""
    return f"too large: redrawn at {SIDE} px it would be softer than the picture; faces=… restores it all the same"


def _nested(face: Face, faces: Sequence[Face], confidence: float) -> str:
    box = face.box_xyxy
    for index, other in enumerate(faces):
        is_larger = area(other.box_xyxy) > 2 * area(box) and other.score >= confidence
        if is_larger and overlap(box, other.box_xyxy) >= INSIDE * area(box):
            return f"lies inside face {index}"
    return ""


def _only_central(faces: Sequence[Face], reasons: Sequence[str], size: Size) -> list[str]:
    def off(index: int) -> float:
        x, y = faces[index].centre
        return hypot(x - size.width / 2, y - size.height / 2)

    central = min((index for index, reason in enumerate(reasons) if not reason), key=off, default=None)
    others = "not the nearest to the centre"
    return [reason or ("" if index == central else others) for index, reason in enumerate(reasons)]


def _meant(item: int | Box, faces: Sequence[Face]) -> int | None:
    """The index of the face that an item of a choice means, if there is one."""
    if isinstance(item, int):
        return item if item < len(faces) else None
    shares = [union_share(item, face.box_xyxy) for face in faces]
    best = max(range(len(faces)), key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] >= BOX_SHARE else None


def _written(item: int | Box) -> str:
    return str(item) if isinstance(item, int) else ",".join(f"{side:g}" for side in item)
