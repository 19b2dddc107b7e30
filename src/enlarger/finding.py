"""Finding: one line of what `enlarger doctor` and `enlarger check` tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    text: str
    is_good: bool = True
