"""SRVGGNetCompact: a plain chain of 3×3 convolutions with PReLU whose result is added to the picture enlarged
by repetition (Real-ESRGAN's small models). With zero weights it *is* that enlargement. Tensor names are the
official ones.
"""

from __future__ import annotations

from typing import TypeVar

from enlarger.engine.networks.ops import Hyper, Net, Ops, Stage, conv_shapes

T = TypeVar("T")


def compact(ops: Ops[T], x: T, hyper: Hyper) -> T:
    """RGB (n, 3, h, w) in [0, 1] → RGB (n, 3, s·h, s·w), not clamped; s is `hyper["scale"]`."""
    out = x
    for index in range(hyper["convs"] + 1):
        # Convolutions and their PReLUs alternate in the official list of modules.
        out = ops.prelu(ops.conv(out, f"body.{2 * index}"), f"body.{2 * index + 1}")  # (n, 64, h, w)
    out = ops.conv(out, f"body.{2 * hyper['convs'] + 2}")  # (n, 3·s², h, w)
    out = ops.pixel_shuffle(out, hyper["scale"])  # (n, 3, s·h, s·w)
    return ops.add(out, ops.nearest(x, hyper["scale"]))


def shapes(hyper: Hyper) -> dict[str, tuple[int, ...]]:
    """Every tensor of the network by its official name, in module order."""
    features = hyper["features"]
    found: dict[str, tuple[int, ...]] = {}
    for index in range(hyper["convs"] + 1):
        found |= conv_shapes(f"body.{2 * index}", features if index else 3, features)
        found |= {f"body.{2 * index + 1}.weight": (features,)}
    return found | conv_shapes(f"body.{2 * hyper['convs'] + 2}", features, 3 * hyper["scale"] ** 2)


NET = Net(
    name="compact",
    stages=(Stage(name="net", forward=compact, channels=lambda hyper: 3),),
    shapes=shapes,
    upscale=lambda hyper: hyper["scale"],
    multiple=lambda hyper: 1,
)
