"""A numeric check of a model on this machine: one small picture with a known answer.

The expected values were computed by the NumPy runtime in f32 from the weights of the catalogue; tests compute
them again. For other weights that runtime computes the answer on the spot. A device that answers something else
is broken or misconfigured, whatever it says of itself.
"""

from __future__ import annotations

import numpy as np

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import ModelSpec
from enlarger.engine.networks.ops import Array, Hyper, Net, Weights
from enlarger.engine.runtime import Session
from enlarger.engine.runtime.numpy import NumPy
from enlarger.errors import RuntimeUnavailable

SIDE = 12
PROBES = ((0, 0), (5, 17), (23, 24), (30, 9), (47, 47))
"""(row, column) of the result that are compared, all three channels each."""

TOLERANCE = {"f32": 2e-3, "f16": 2e-2, "bf16": 6e-2}
"""Largest deviation of a sample in [0, 1]. f32 runtimes agree to 1e-4, bf16 was seen 0.03 off; f16 has three bits
more than bf16."""

EXPECTED: dict[str, tuple[float, ...]] = {
    "RealESRGAN_x4plus": (
        0.0255,
        0.0348,
        0.8040,
        0.2840,
        -0.0293,
        0.9014,
        0.4185,
        0.6783,
        0.6242,
        0.1130,
        0.3166,
        0.6464,
        0.8748,
        0.4599,
        0.0895,
    ),
    "RealESRGAN_x4plus_anime_6B": (
        0.0920,
        0.2066,
        0.8378,
        0.1929,
        -0.0482,
        0.8856,
        0.4362,
        0.7175,
        0.5750,
        0.0414,
        0.3415,
        0.6882,
        0.8953,
        0.4437,
        0.1228,
    ),
    "realesr-animevideov3": (
        0.0926,
        0.0227,
        0.9126,
        0.3139,
        -0.0092,
        0.8183,
        0.4038,
        0.8236,
        0.4919,
        0.0960,
        0.2589,
        0.7448,
        0.9159,
        0.4585,
        0.0433,
    ),
}


def deviation(spec: ModelSpec, session: Session) -> float:
    """Largest difference between what `session` computes and what it should. NaN where it computed NaN."""
    return float(np.abs(probed(spec, session) - np.array(EXPECTED[spec.name], np.float32)).max())


def verify(session: Session, net: Net, hyper: Hyper, weights: Weights, *, device: str) -> None:
    """Raises RuntimeUnavailable, with the numbers, unless `session` computes what NumPy computes in f32."""
    off, limit = deviation_from_numpy(session, net, hyper, weights), TOLERANCE[session.precision]
    if not off <= limit:  # so that NaN fails
        raise RuntimeUnavailable(
            f"{device} computes wrong numbers in {session.precision}: its self-test is off by {off:.1e}, "
            f"at most {limit:g} is allowed; update its driver, or use device=cpu"
        )


def deviation_from_numpy(session: Session, net: Net, hyper: Hyper, weights: Weights) -> float:
    """Largest difference between `session` and NumPy in f32 on the test picture, as a share of the largest
    value where that is above 1. NaN where either computed NaN.
    """
    multiple = net.multiple(hyper)
    values = picture(-(-SIDE // multiple) * multiple)
    reference = NumPy().open_session(net, hyper, weights, precision="f32", threads=0)
    expected = computed(reference, net, values)
    return float(
        np.abs(computed(session, net, values) - expected).max() / max(1.0, float(np.abs(expected).max()))
    )


def computed(session: Session, net: Net, values: Array) -> Array:
    """A picture run through every stage of the network."""
    for stage in net.stages:
        values = session.run(stage.name, values)
    return values


def probed(spec: ModelSpec, session: Session) -> Array:
    """The samples at PROBES of the test picture, run through the model; (15,) float32."""
    values = computed(session, ARCHITECTURES[spec.net], picture(SIDE))
    return np.concatenate([values[0, :, row, column] for row, column in PROBES])


def picture(side: int) -> Array:
    """A scene of slopes and an edge, (1, 3, side, side) in [0, 1]."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / (side - 1)
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.09).astype(np.float32)
    return np.stack([x, 0.5 * y + 0.5 * disc, 1 - 0.5 * (x + y)])[None].astype(np.float32)
