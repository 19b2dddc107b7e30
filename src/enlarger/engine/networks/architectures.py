"""ARCHITECTURES: the networks by the name the catalogue uses."""

from __future__ import annotations

from enlarger.engine.networks import compact, gfpgan, parsenet, rrdbnet
from enlarger.engine.networks.ops import Net

ARCHITECTURES: dict[str, Net] = {
    net.name: net for net in (rrdbnet.NET, compact.NET, gfpgan.NET, parsenet.NET)
}
