"""The service must be able to name every file the codec may write."""

from __future__ import annotations

from enlarger.engine.options import FORMATS as OFFERED
from enlarger.engine.pictures.codec import FORMATS
from enlarger.jobs.job import EXTENSIONS


def test_every_format_that_options_offer_has_a_name_on_the_wire() -> None:
    written = {FORMATS[name] for name in OFFERED if name != "auto"}
    assert {row.media_type: row.extension for row in written} == EXTENSIONS
