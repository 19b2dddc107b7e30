"""The restorer and the masker that are networks: sessions, made to fit the seams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from enlarger.engine.faces.face import SIDE, Array, Restorer
from enlarger.engine.faces.mask import parsed
from enlarger.engine.runtime import Session
from enlarger.errors import NumericFault


class NetworkRestorer:
    """Runs the stage `restore` of a session. `safe_session` opens the one in f32 that takes over, and stays, when
    another gives values that are no numbers.
    """

    def __init__(self, session: Session, safe_session: Callable[[], Session] | None = None) -> None:
        self._session = session
        self._safe_session = safe_session

    @property
    def precision(self) -> str:
        return self._session.precision

    def restore(self, crop: Array) -> Array:
        restored = self._session.run("restore", _nchw(crop))
        if self.precision != "f32" and self._safe_session is not None and not np.isfinite(restored).all():
            self._session = self._safe_session()
            restored = self._session.run("restore", _nchw(crop))
        return restored[0].transpose(1, 2, 0)


class NetworkMasker:
    """Runs the stage `parse` of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def mask(self, crop: Array) -> Array:
        return parsed(self._session.run("parse", _nchw(crop))[0])


def restored_planes(restorer: Restorer, crop: Array) -> Array:
    """(3, 512, 512) planes in [0, 1], restored, in [0, 1].

    Raises NumericFault when the answer is not all numbers, ValueError when it has another shape.
    """
    answer = np.asarray(restorer.restore(np.ascontiguousarray(crop.transpose(1, 2, 0))), np.float32)
    if answer.shape != (SIDE, SIDE, 3):
        raise ValueError(f"a restorer must give ({SIDE}, {SIDE}, 3), not {answer.shape}")
    if not np.isfinite(answer).all():
        raise NumericFault("the restorer gave values that are no numbers: its weights may be damaged")
    return np.ascontiguousarray(np.clip(answer, 0.0, 1.0).transpose(2, 0, 1))


def _nchw(crop: Array) -> Array:
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None])
