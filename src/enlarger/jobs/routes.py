"""Routes: which workers may take a job. A route is a pool and a size, `any.small` say, one entry point of the queue.

The operator names pools as he likes: `pools` says which takes the jobs of a model, all others go to `any`. A worker
serves `any`, the kind of its devices (`cpu` or `gpu`) and the pools of its setting. How large a picture is shows when
a worker has it: until then it counts as small, and a worker that does not take large ones hands it on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

ANY = "any"


class PictureSize(StrEnum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class Route:
    """Text of it: `pool.size`."""

    pool: str = ANY
    size: PictureSize = PictureSize.SMALL

    def __str__(self) -> str:
        return f"{self.pool}.{self.size}"

    @classmethod
    def parse(cls, text: str) -> Route:
        pool, _, size = text.rpartition(".")
        return cls(pool, PictureSize(size))


def route_of(model: str, pools: Mapping[str, str]) -> Route:
    """Where a new job belongs."""
    return Route(pools.get(model, ANY))


def served(devices: Sequence[str], pools: Sequence[str], sizes: Sequence[str]) -> tuple[Route, ...]:
    """The routes of a worker with these devices, those of pictures of its smallest size first.

    pools: served besides `any` and the kinds of the devices; sizes: of pictures.
    """
    kinds = dict.fromkeys("cpu" if device in ("auto", "cpu") else "gpu" for device in devices)
    every = dict.fromkeys((ANY, *kinds, *pools))
    return tuple(Route(pool, PictureSize(size)) for size in sizes for pool in every)
