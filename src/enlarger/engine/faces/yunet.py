"""YuNet: a small network that finds faces (W. Wu et al., "YuNet: A tiny millisecond-level face detector", 2023).

Its ONNX file, opencv_zoo's 2023mar, runs through OpenVINO's reader on the CPU, whatever computes the rest. For each
cell of three grids (strides of 8, 16 and 32 px) it gives two scores, a box and five landmarks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enlarger.engine.faces.face import Array, Face, union_share
from enlarger.engine.runtime.openvino_core import openvino_core

STRIDES = (8, 16, 32)
FLOOR = 0.3
"""Faces with a lower score are not told of: there would be dozens in foliage."""
SAME_FACE = 0.3
"""Two boxes whose overlap is this share of their union are one face, the surer one: what OpenCV takes."""


class YuNet:
    """The network, compiled once for pictures of any size. `data` is the content of its ONNX file."""

    def __init__(self, data: bytes, threads: int = 0) -> None:
        core = openvino_core()
        model: Any = core.read_model(io.BytesIO(data))
        model.reshape([1, 3, -1, -1])
        config: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(model, "CPU", config)
        # An output has several names.
        self._outputs = {name: output for output in compiled.outputs for name in output.names}
        self._request = compiled.create_infer_request()

    def find(self, bgr: Array) -> list[Face]:
        """Faces in (3, height, width) float32 planes, blue first, 0 to 255; the surest first."""
        _, height, width = bgr.shape
        # The grids want whole cells: black goes on at the right and below, as in OpenCV.
        padded = np.pad(bgr, ((0, 0), (0, -height % STRIDES[-1]), (0, -width % STRIDES[-1])))
        answers = self._request.infer([padded[None]], share_inputs=True)
        by_name = {name: answers[output][0] for name, output in self._outputs.items()}
        faces = [face for stride in STRIDES for face in _decoded(by_name, stride, padded.shape[2] // stride)]
        return distinct(faces)


def distinct(faces: list[Face]) -> list[Face]:
    """The surest of faces that overlap, the surest first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(union_share(face.box_xyxy, other.box_xyxy) <= SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _decoded(answers: Mapping[str, Array], stride: int, across: int) -> Iterator[Face]:
    """Faces of one grid. Positions count in cells from the cell's own corner, sizes are logarithms of cells."""
    classes, objects = answers[f"cls_{stride}"][:, 0], answers[f"obj_{stride}"][:, 0]
    scores = np.sqrt(np.clip(classes, 0.0, 1.0) * np.clip(objects, 0.0, 1.0))
    for cell in np.flatnonzero(scores >= FLOOR):
        corner = np.array([cell % across, cell // across])
        box, points = answers[f"bbox_{stride}"][cell], answers[f"kps_{stride}"][cell].reshape(5, 2)
        centre, half = (corner + box[:2]) * stride, np.exp(box[2:]) * stride / 2
        yield made(np.concatenate([centre - half, centre + half]), (corner + points) * stride, scores[cell])


def made(box_xyxy: Any, landmarks_xy: Any, score: Any) -> Face:
    """A Face of NumPy numbers."""
    points: Any = tuple((float(x), float(y)) for x, y in landmarks_xy)
    left, top, right, bottom = (float(side) for side in box_xyxy)
    return Face(box_xyxy=(left, top, right, bottom), landmarks_xy=points, score=float(score))
