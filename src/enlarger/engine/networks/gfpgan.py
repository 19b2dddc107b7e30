"""GFPGANv1Clean: a face of fixed size is encoded by a U-Net, and painted again by a StyleGAN2 generator that the
U-Net steers (GFP-GAN, arXiv 2101.04061; the "clean" form, v1.2 to v1.4). Tensor names are the official ones.

A modulated convolution has other weights for each style. Here the *input* is scaled by the style and the *output*
demodulated, which is the same sum in another order, so that the weights are constants that a runtime can pack.

The noise of StyleGAN2 is not drawn: the checkpoint holds the noise it was saved with, so the same face gives the same
pixels. The checkpoint also holds what restoring does not use, StyleGAN2's mapping of random vectors to styles and the
U-Net's own pictures; they are listed in `shapes`, because an official file has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

from enlarger.engine.networks.ops import Hyper, Net, Ops, Stage, conv_shapes, linear_shapes

T = TypeVar("T")

SLOPE = 0.2  # of every LeakyReLU
SMALLEST = 4  # side of the deepest features, and of the constant that painting starts from
MAPPING_LAYERS = 8

DECODER = "stylegan_decoder"


def restore(ops: Ops[T], x: T, hyper: Hyper) -> T:
    """RGB (n, 3, size, size) of one aligned face in [0, 1] → the same, restored, not clamped."""
    skips, deepest = _encode(ops, ops.scale(x, 2.0, -1.0), hyper)  # the network's own range is [-1, 1]
    styles = ops.linear(deepest, "final_linear")  # (n, layers·features, 1, 1)
    conditions = _condition(ops, skips, deepest)
    return ops.scale(_paint(ops, styles, conditions, hyper), 0.5, 0.5)


def _encode(ops: Ops[T], x: T, hyper: Hyper) -> tuple[list[T], T]:
    """The features of each side from size/2 down to 4, and what the last convolution makes of the deepest."""
    x = ops.leaky_relu(ops.conv(x, "conv_body_first"), SLOPE)
    skips: list[T] = []
    for level in range(_levels(hyper)):
        name = f"conv_body_down.{level}"
        out = ops.halve(ops.leaky_relu(ops.conv(x, f"{name}.conv1"), SLOPE))
        out = ops.leaky_relu(ops.conv(out, f"{name}.conv2"), SLOPE)
        x = ops.add(out, ops.conv(ops.halve(x), f"{name}.skip"))
        skips.append(x)
    return skips, ops.leaky_relu(ops.conv(x, "final_conv"), SLOPE)


def _condition(ops: Ops[T], skips: list[T], deepest: T) -> Iterator[tuple[T, T]]:
    """Scale and shift of the painter's features, (n, width/2, side, side) each, for each side from 8 to size."""
    x = deepest
    for level, skip in enumerate(reversed(skips)):
        name = f"conv_body_up.{level}"
        x = ops.add(x, skip)
        out = ops.double(ops.leaky_relu(ops.conv(x, f"{name}.conv1"), SLOPE))
        out = ops.leaky_relu(ops.conv(out, f"{name}.conv2"), SLOPE)
        # A 1×1 convolution commutes with the enlargement, and is a quarter of the work before it.
        x = ops.add(out, ops.double(ops.conv(x, f"{name}.skip")))
        yield _two_convs(ops, x, f"condition_scale.{level}"), _two_convs(ops, x, f"condition_shift.{level}")


def _two_convs(ops: Ops[T], x: T, name: str) -> T:
    return ops.conv(ops.leaky_relu(ops.conv(x, f"{name}.0"), SLOPE), f"{name}.2")


def _paint(ops: Ops[T], styles: T, conditions: Iterator[tuple[T, T]], hyper: Hyper) -> T:
    """RGB (n, 3, size, size) in [-1, 1]: features grow from 4×4, and each side adds its part to the picture."""

    def style(layer: int) -> T:
        return ops.channels(styles, layer * hyper["features"], (layer + 1) * hyper["features"])

    x = ops.constant(f"{DECODER}.constant_input.weight")  # (1, features, 4, 4)
    x = _styled_conv(ops, x, style(0), f"{DECODER}.style_conv1", noise=0)
    rgb = _to_rgb(ops, x, style(1), f"{DECODER}.to_rgb1")
    for level, (scale, shift) in enumerate(conditions):
        # Each level has three layers; the last of one shares its style with the first of the next.
        first, convs = 2 * level + 1, f"{DECODER}.style_convs"
        x = _styled_conv(ops, x, style(first), f"{convs}.{2 * level}", noise=first, doubles=True)
        x = _steered(ops, x, scale, shift, _width(hyper, SMALLEST << (level + 1)))
        x = _styled_conv(ops, x, style(first + 1), f"{convs}.{2 * level + 1}", noise=first + 1)
        rgb = ops.add(_to_rgb(ops, x, style(first + 2), f"{DECODER}.to_rgbs.{level}"), ops.double(rgb))
    return rgb


def _styled_conv(ops: Ops[T], x: T, style: T, name: str, *, noise: int, doubles: bool = False) -> T:
    modulation = ops.linear(style, f"{name}.modulated_conv.modulation")  # (n, in, 1, 1)
    x = ops.multiply(x, modulation)
    if doubles:
        x = ops.double(x)
    x = ops.conv(x, f"{name}.modulated_conv")
    # √2 makes up for what the LeakyReLU takes; the clean form has it here.
    gain = ops.scale(ops.demodulation(modulation, f"{name}.modulated_conv"), math.sqrt(2))
    grain = ops.multiply(ops.constant(f"{DECODER}.noises.noise{noise}"), ops.constant(f"{name}.weight"))
    x = ops.add(ops.multiply(x, gain), ops.add(grain, ops.constant(f"{name}.bias")))
    return ops.leaky_relu(x, SLOPE)


def _steered(ops: Ops[T], x: T, scale: T, shift: T, width: int) -> T:
    """Spatial feature transform of the second half of the channels; the first keeps what StyleGAN2 painted."""
    kept, steered = ops.channels(x, 0, width // 2), ops.channels(x, width // 2, width)
    return ops.concat([kept, ops.add(ops.multiply(steered, scale), shift)])


def _to_rgb(ops: Ops[T], x: T, style: T, name: str) -> T:
    modulation = ops.linear(style, f"{name}.modulated_conv.modulation")
    rgb = ops.conv(ops.multiply(x, modulation), f"{name}.modulated_conv")
    return ops.add(rgb, ops.constant(f"{name}.bias"))


def _levels(hyper: Hyper) -> int:
    """How often the side is halved from size to 4."""
    return (hyper["size"] // SMALLEST).bit_length() - 1


def _width(hyper: Hyper, side: int) -> int:
    """Channels of the painter's features of that side; the U-Net has half as many."""
    return hyper["features"] * min(side, 32 * hyper["channel_multiplier"]) // side


def shapes(hyper: Hyper) -> dict[str, tuple[int, ...]]:
    """Every tensor of the network by its official name, in module order."""
    sides = [SMALLEST << (level + 1) for level in range(_levels(hyper))]  # 8 … size
    narrow = {side: _width(hyper, side) // 2 for side in (SMALLEST, *sides)}
    found = conv_shapes("conv_body_first", 3, narrow[hyper["size"]], side=1)
    for level, side in enumerate(reversed(sides)):
        found |= _residual_shapes(f"conv_body_down.{level}", narrow[side], narrow[side // 2])
    found |= conv_shapes("final_conv", narrow[SMALLEST], narrow[SMALLEST])
    for level, side in enumerate(sides):
        found |= _residual_shapes(f"conv_body_up.{level}", narrow[side // 2], narrow[side])
    for level, side in enumerate(sides):
        found |= conv_shapes(f"toRGB.{level}", narrow[side], 3, side=1)
    layers = 2 * len(sides) + 2
    found |= linear_shapes("final_linear", narrow[SMALLEST] * SMALLEST**2, layers * hyper["features"])
    found |= {f"{DECODER}.{name}": shape for name, shape in _decoder_shapes(hyper, sides).items()}
    for kind in ("scale", "shift"):
        for level, side in enumerate(sides):
            for index in (0, 2):
                found |= conv_shapes(f"condition_{kind}.{level}.{index}", narrow[side], narrow[side])
    return found


def _residual_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    found = conv_shapes(f"{name}.conv1", inputs, inputs) | conv_shapes(f"{name}.conv2", inputs, outputs)
    return found | conv_shapes(f"{name}.skip", inputs, outputs, side=1, has_bias=False)


def _decoder_shapes(hyper: Hyper, sides: list[int]) -> dict[str, tuple[int, ...]]:
    features = hyper["features"]
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(MAPPING_LAYERS):
        found |= linear_shapes(f"style_mlp.{2 * layer + 1}", features, features)
    found |= {"constant_input.weight": (1, features, SMALLEST, SMALLEST)}
    found |= _styled_shapes("style_conv1", features, features, features)
    found |= _rgb_shapes("to_rgb1", features, features)
    for level, side in enumerate(sides):
        before, width = _width(hyper, side // 2), _width(hyper, side)
        found |= _styled_shapes(f"style_convs.{2 * level}", before, width, features)
        found |= _styled_shapes(f"style_convs.{2 * level + 1}", width, width, features)
    for level, side in enumerate(sides):
        found |= _rgb_shapes(f"to_rgbs.{level}", _width(hyper, side), features)
    noises = [SMALLEST, *(side for side in sides for _ in range(2))]
    return found | {f"noises.noise{index}": (1, 1, side, side) for index, side in enumerate(noises)}


def _styled_shapes(name: str, inputs: int, outputs: int, features: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.weight": (1,),  # of the noise
        f"{name}.bias": (1, outputs, 1, 1),
        f"{name}.modulated_conv.weight": (1, outputs, inputs, 3, 3),
        **linear_shapes(f"{name}.modulated_conv.modulation", features, inputs),
    }


def _rgb_shapes(name: str, inputs: int, features: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.bias": (1, 3, 1, 1),
        f"{name}.modulated_conv.weight": (1, 3, inputs, 1, 1),
        **linear_shapes(f"{name}.modulated_conv.modulation", features, inputs),
    }


NET = Net(
    name="gfpgan",
    stages=(Stage(name="restore", forward=restore, channels=lambda hyper: 3),),
    shapes=shapes,
    upscale=lambda hyper: 1,
    multiple=lambda hyper: hyper["size"],
    precisions=("f32", "bf16"),
)
