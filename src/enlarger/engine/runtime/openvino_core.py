"""The one OpenVINO core of a process."""

from __future__ import annotations

from functools import cache

import openvino as ov


@cache
def openvino_core() -> ov.Core:
    """Made at the first call, and never given up.

    Each core sets up a stack for signal handlers and, when it goes, puts back the one it found. Of two cores that go
    in the order they came in the second puts back a stack that is freed: the next Ctrl-C is a segmentation fault.
    """
    return ov.Core()
