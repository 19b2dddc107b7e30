"""ParseNet: which part of a face each pixel shows, as 19 classes (Progressive Semantic-Aware Style Transformation,
arXiv 2009.08709; the network of its face parser). Tensor names are the official ones.

The official file also holds the layer that draws the face again, which is not used here.
"""

from __future__ import annotations

from typing import TypeVar

from enlarger.engine.networks.ops import Edges, Hyper, Net, Ops, Stage, conv_shapes

T = TypeVar("T")

SLOPE = 0.2  # of every LeakyReLU
EDGES: Edges = "reflect"  # of every convolution


def parse(ops: Ops[T], x: T, hyper: Hyper) -> T:
    """RGB (n, 3, h, w) of an aligned face in [0, 1] → scores (n, classes, h, w); the largest is the class."""
    x = ops.conv(
        ops.scale(x, 2.0, -1.0), "encoder.0.conv2d", edges=EDGES
    )  # the network's own range is [-1, 1]
    for level in range(1, hyper["levels"] + 1):
        x = _down(ops, x, f"encoder.{level}")
    deep = x  # (n, features_max, h/16, w/16) with four levels
    for index in range(hyper["blocks"]):
        deep = ops.add(_two_convs(ops, deep, f"body.{index}"), deep)
    x = ops.add(x, deep)
    for level in range(hyper["levels"]):
        x = _up(ops, x, f"decoder.{level}")
    return ops.conv(x, "out_mask_conv.conv2d", edges=EDGES)


def _down(ops: Ops[T], x: T, name: str) -> T:
    shortcut = ops.conv(x, f"{name}.shortcut_func.conv2d", stride=2, edges=EDGES)
    return ops.add(shortcut, _two_convs(ops, x, name, stride=2))


def _up(ops: Ops[T], x: T, name: str) -> T:
    x = ops.nearest(x, 2)
    return ops.add(ops.conv(x, f"{name}.shortcut_func.conv2d", edges=EDGES), _two_convs(ops, x, name))


def _two_convs(ops: Ops[T], x: T, name: str, *, stride: int = 1) -> T:
    out = ops.conv(x, f"{name}.conv1.conv2d", edges=EDGES)
    out = ops.leaky_relu(ops.batch_norm(out, f"{name}.conv1.norm.norm"), SLOPE)
    out = ops.conv(out, f"{name}.conv2.conv2d", stride=stride, edges=EDGES)
    return ops.batch_norm(out, f"{name}.conv2.norm.norm")


def _width(hyper: Hyper, level: int) -> int:
    """Channels after `level` halvings of the sides."""
    return min(hyper["features"] << level, hyper["features_max"])


def shapes(hyper: Hyper) -> dict[str, tuple[int, ...]]:
    """Every tensor of the network by its official name, in module order."""
    levels, deepest = hyper["levels"], _width(hyper, hyper["levels"])
    found = conv_shapes("encoder.0.conv2d", 3, hyper["features"])
    for level in range(levels):
        name, inputs, outputs = f"encoder.{level + 1}", _width(hyper, level), _width(hyper, level + 1)
        found |= conv_shapes(f"{name}.shortcut_func.conv2d", inputs, outputs)
        found |= _two_conv_shapes(name, inputs, outputs)
    for index in range(hyper["blocks"]):
        found |= _two_conv_shapes(f"body.{index}", deepest, deepest)
    for level in range(levels):
        inputs, outputs = _width(hyper, levels - level), _width(hyper, levels - level - 1)
        found |= conv_shapes(f"decoder.{level}.shortcut_func.conv2d", inputs, outputs)
        found |= _two_conv_shapes(f"decoder.{level}", inputs, outputs)
    found |= conv_shapes("out_img_conv.conv2d", hyper["features"], 3)
    return found | conv_shapes("out_mask_conv.conv2d", hyper["features"], hyper["classes"])


def _two_conv_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for part, before in (("conv1", inputs), ("conv2", outputs)):
        found |= conv_shapes(f"{name}.{part}.conv2d", before, outputs, has_bias=False)
        norm = f"{name}.{part}.norm.norm"
        found |= {
            f"{norm}.{value}": (outputs,) for value in ("weight", "bias", "running_mean", "running_var")
        }
        found |= {f"{norm}.num_batches_tracked": ()}  # of training; stored, never used
    return found


NET = Net(
    name="parsenet",
    stages=(Stage(name="parse", forward=parse, channels=lambda hyper: 3),),
    shapes=shapes,
    upscale=lambda hyper: 1,
    # A reflection needs two pixels at the deepest level.
    multiple=lambda hyper: 2 << hyper["levels"],
    precisions=("f32", "bf16"),
)
