"""Loading: the networks that restore faces, opened when first needed and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from enlarger.engine.faces.detector import FaceFinder
from enlarger.engine.faces.face import Detector, Restorer
from enlarger.engine.faces.mask import Masker
from enlarger.engine.faces.restoration import FaceTools
from enlarger.engine.faces.restorer import NetworkMasker, NetworkRestorer
from enlarger.engine.faces.yunet import YuNet
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.cards import face_models
from enlarger.engine.networks.catalogue import FACE_DETECTOR, FACE_MASK, FACE_MODELS, FaceModelSpec
from enlarger.engine.networks.weights import is_present, load_onnx, load_weights, weights_sha256
from enlarger.engine.runtime import Runtime, Session, precision_for


class FaceLoader:
    """`detector` and `restorer` of the program, where given, stand in for the networks of that role."""

    def __init__(
        self,
        *,
        detector: Detector | None,
        restorer: Restorer | None,
        weights_dir: Path,
        threads: int,
        runtime: Callable[[], Runtime],
    ) -> None:
        self._own_detector, self._own_restorer = detector, restorer
        self._weights_dir = weights_dir
        self._threads = threads
        self._runtime = runtime
        self._detector: Detector | None = None
        self._restorer: tuple[tuple[str, str], NetworkRestorer, str] | None = None
        self._masker: tuple[str, Masker] | None = None

    @property
    def has_own_restorer(self) -> bool:
        return self._own_restorer is not None

    @property
    def is_own(self) -> bool:
        """Whether what the program brings has a hand in the result."""
        return self._own_detector is not None or self._own_restorer is not None

    def has_mask(self) -> bool:
        """Whether the network that tells a face from its surroundings is on this machine."""
        return is_present(FACE_MODELS[FACE_MASK], self._weights_dir)

    def restorers(self) -> dict[str, FaceModelSpec]:
        found = face_models(self._weights_dir)
        return {name: spec for name, spec in found.items() if spec.role == "restorer"}

    def tools(self, model: str, precision: str, *, is_aligned: bool) -> FaceTools:
        """Everything loaded. Raises ModelUnavailable, which names `enlarger models pull faces`, or WeightsCorrupt.

        An aligned face needs no detector and no mask.
        """
        masker = None if is_aligned else self._opened_masker(precision)
        detector = None if is_aligned else self._opened_detector()
        if self._own_restorer is not None:
            return FaceTools(detector=detector, restorer=self._own_restorer, masker=masker)
        restorer, sha256 = self._opened_restorer(model, precision)
        return FaceTools(
            detector=detector,
            restorer=restorer,
            masker=masker,
            model=model,
            weights_sha256=sha256,
            precision=lambda: restorer.precision,
        )

    def weights_sha256(self, model: str, *, is_aligned: bool) -> dict[str, str]:
        """Of every network of `tools`, by model, as it is loaded or would be. Raises ModelUnavailable."""
        found: dict[str, str] = {}
        if not is_aligned and self._own_detector is None:
            found[FACE_DETECTOR] = weights_sha256(FACE_MODELS[FACE_DETECTOR], self._weights_dir)
        if not is_aligned and self.has_mask():
            found[FACE_MASK] = weights_sha256(FACE_MODELS[FACE_MASK], self._weights_dir)
        if self._own_restorer is None:
            loaded = self._restorer
            found[model] = (
                loaded[2]
                if loaded and loaded[0][0] == model
                else weights_sha256(self.restorers()[model], self._weights_dir)
            )
        return found

    def forget(self) -> None:
        self._detector = self._restorer = self._masker = None

    def _opened_detector(self) -> Detector:
        if self._own_detector is not None:
            return self._own_detector
        if self._detector is None:
            data = load_onnx(FACE_MODELS[FACE_DETECTOR], self._weights_dir)
            self._detector = FaceFinder(YuNet(data, self._threads))
        return self._detector

    def _opened_restorer(self, model: str, precision: str) -> tuple[NetworkRestorer, str]:
        """The most recent one stays loaded: it takes 1.6 GB."""
        if self._restorer is None or self._restorer[0] != (model, precision):
            self._restorer = None
            spec = self.restorers()[model]
            session, sha256 = self._session(spec, precision)
            restorer = NetworkRestorer(session, lambda: self._session(spec, "f32")[0])
            self._restorer = ((model, precision), restorer, sha256)
        return self._restorer[1:]

    def _opened_masker(self, precision: str) -> Masker | None:
        if not self.has_mask():
            return None
        if self._masker is None or self._masker[0] != precision:
            self._masker = None
            session, _ = self._session(FACE_MODELS[FACE_MASK], precision)
            self._masker = (precision, NetworkMasker(session))
        return self._masker[1]

    def _session(self, spec: FaceModelSpec, precision: str) -> tuple[Session, str]:
        loaded = load_weights(spec, self._weights_dir)
        net = ARCHITECTURES[spec.net]
        session = self._runtime().open_session(
            net,
            spec.hyper,
            loaded.tensors,
            precision=precision_for(net, precision),
            threads=self._threads,
        )
        return session, loaded.sha256
