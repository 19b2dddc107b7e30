"""RRDBNet: residual-in-residual dense blocks, then two nearest ×2 steps (ESRGAN, arXiv 1809.00219; Real-ESRGAN,
arXiv 2107.10833, with pixel-unshuffle before the ×2 and ×1 forms). Tensor names are the official ones.

It is run in two stages. The trunk carries nearly all the work and needs wide context; the tail needs two
pixels of context but sixteen times the memory of the trunk, so it is computed in strips.
"""

from __future__ import annotations

from typing import TypeVar

from enlarger.engine.networks.ops import Hyper, Net, Ops, Stage, conv_shapes

T = TypeVar("T")

SLOPE = 0.2  # of every LeakyReLU
RESIDUAL = 0.2  # share of a block's output that is added to its input

# An output of the tail sees 1 px at ×2, then three times 1 px at ×4: 1/2 + 3/4 of an input pixel.
TAIL_HALO = 2


def trunk(ops: Ops[T], x: T, hyper: Hyper) -> T:
    """RGB (n, 3, h, w) in [0, 1] → features (n, 64, h/u, w/u), where u is `hyper["unshuffle"]`."""
    if hyper["unshuffle"] > 1:
        x = ops.pixel_unshuffle(x, hyper["unshuffle"])  # (n, 3·u², h/u, w/u)
    shallow = ops.conv(x, "conv_first")  # (n, 64, h/u, w/u)
    deep = shallow
    for index in range(hyper["blocks"]):
        deep = _rrdb(ops, deep, f"body.{index}")
    return ops.add(shallow, ops.conv(deep, "conv_body"))


def tail(ops: Ops[T], features: T, hyper: Hyper) -> T:
    """Features (n, 64, h, w) → RGB (n, 3, 4h, 4w), not clamped."""
    del hyper
    x = ops.leaky_relu(ops.conv(ops.nearest(features, 2), "conv_up1"), SLOPE)  # (n, 64, 2h, 2w)
    x = ops.leaky_relu(ops.conv(ops.nearest(x, 2), "conv_up2"), SLOPE)  # (n, 64, 4h, 4w)
    return ops.conv(ops.leaky_relu(ops.conv(x, "conv_hr"), SLOPE), "conv_last")  # (n, 3, 4h, 4w)


def _rrdb(ops: Ops[T], x: T, name: str) -> T:
    out = x
    for index in (1, 2, 3):
        out = _dense_block(ops, out, f"{name}.rdb{index}")
    return ops.add(ops.scale(out, RESIDUAL), x)


def _dense_block(ops: Ops[T], x: T, name: str) -> T:
    grown = [x]
    for index in (1, 2, 3, 4):
        seen = ops.concat(grown) if len(grown) > 1 else x  # (n, 64 + 32·(index−1), h, w)
        grown.append(ops.leaky_relu(ops.conv(seen, f"{name}.conv{index}"), SLOPE))  # (n, 32, h, w)
    out = ops.conv(ops.concat(grown), f"{name}.conv5")  # (n, 64, h, w)
    return ops.add(ops.scale(out, RESIDUAL), x)


def shapes(hyper: Hyper) -> dict[str, tuple[int, ...]]:
    """Every tensor of the network by its official name, in module order."""
    features, growth = hyper["features"], hyper["growth"]
    found = conv_shapes("conv_first", 3 * hyper["unshuffle"] ** 2, features)
    for block in range(hyper["blocks"]):
        for dense in (1, 2, 3):
            name = f"body.{block}.rdb{dense}"
            for index in (1, 2, 3, 4):
                found |= conv_shapes(f"{name}.conv{index}", features + growth * (index - 1), growth)
            found |= conv_shapes(f"{name}.conv5", features + growth * 4, features)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        found |= conv_shapes(name, features, features)
    return found | conv_shapes("conv_last", features, 3)


NET = Net(
    name="rrdbnet",
    stages=(
        Stage(name="trunk", forward=trunk, channels=lambda hyper: 3),
        Stage(name="tail", forward=tail, channels=lambda hyper: hyper["features"], halo=TAIL_HALO),
    ),
    shapes=shapes,
    upscale=lambda hyper: 4 // hyper["unshuffle"],
    multiple=lambda hyper: hyper["unshuffle"],
)
