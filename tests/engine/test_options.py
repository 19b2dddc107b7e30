from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.networks.catalogue import DEFAULT_MODEL
from enlarger.engine.options import MAX_SCALE, Options, asks
from enlarger.errors import InvalidOption

REFUSED: list[tuple[str, Any]] = [
    *(
        ("scale", value)
        for value in (
            0, 0.0, -0.0, -1, -1e-300, 10.1, math.nextafter(10, 11), math.nan, math.inf, -math.inf,
            True, False, "2", "", None, [], [2], {}, 10**400, -(10**400), 1 + 0j, b"2",
        )
    ),
    *(("quality", value) for value in (0, 101, 1.5, math.nan, math.inf, True, "95", None, 10**400, [95])),
    *(("face_enhance", value) for value in (0, 1, "true", None, [])),
    *(("model", value) for value in ("", "../x", ".x", "a b", "x" * 101, None, 4, ["RealESRGAN_x4plus"])),
    *(("output_format", value) for value in ("jpg", "PNG", "bmp", "", None, 1)),
    *(("width", value) for value in (0, -3, 2.5, True, "100", 10**7)),
    *(("megapixels", value) for value in (0, -1.0, math.nan, "1")),
    *(("bit_depth", value) for value in (12, 0, "8", True, 8.5)),
    *(("background", value) for value in ("white", "#fff", "#gggggg", 0, None)),
    *(("strength", value) for value in (-0.1, 1.1, math.nan, True, None)),
    *(("passes", value) for value in (0, 4, 1.5, None)),
    *(("tile_mode", value) for value in ("slow", True, None)),
    *(("precision", value) for value in ("fp16", "int8", 32, None)),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=lambda part: repr(part)[:24])
def test_a_bad_value_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"^{field} must be ") as caught:
        Options(**{field: value})
    assert caught.value.field == field
    assert len(caught.value.message) < 200


def test_a_value_that_python_cannot_print_is_still_refused_by_name() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (10**5000, [10**5000], nested):
        with pytest.raises(InvalidOption, match=r"^scale must be .* too large to show$"):
            Options(scale=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [5e-324, 0.01, 1, 2.5, 3, 9.999, 10, MAX_SCALE])
def test_every_scale_up_to_ten_is_taken_as_a_float(scale: float) -> None:
    taken = Options(scale=scale).scale
    assert taken == scale
    assert type(taken) is float


def test_a_whole_float_is_a_quality() -> None:
    assert Options(quality=90.0).quality == 90  # type: ignore[arg-type]
    assert type(Options(quality=90.0).quality) is int  # type: ignore[arg-type]


def test_the_refusal_names_the_range_and_the_value() -> None:
    with pytest.raises(InvalidOption, match=r"above 0 and at most 10, not 10\.1"):
        Options(scale=10.1)
    with pytest.raises(InvalidOption, match="png, jpeg, webp, avif, tiff, gif, not 'bmp'"):
        Options(output_format="bmp")


def test_parse_takes_known_keys_and_null_means_the_default() -> None:
    parsed = Options.parse(
        {"scale": 2, "model": None, "quality": 80, "image": "x", "enable_sync_mode": True, "seed": -1}
    )
    assert parsed == Options(scale=2.0, quality=80)
    assert parsed.model == DEFAULT_MODEL
    assert Options.parse({}) == Options()


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**4000)])
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Options.__dataclass_fields__, "image"]), ANYTHING))
def test_whatever_comes_in_is_an_option_or_an_invalid_option(values: dict[str, Any]) -> None:
    blamed = None
    try:
        parsed = Options.parse(values)
    except InvalidOption as error:
        blamed = error.field
        parsed = Options()
    assert blamed is None or blamed in values
    assert 0 < parsed.scale <= MAX_SCALE
    assert 1 <= parsed.quality <= 100


@pytest.mark.parametrize(
    "field", ["width", "height", "long_side", "short_side", "megapixels", "bit_depth", "frame"]
)
def test_none_is_the_default_of_what_need_not_be_given(field: str) -> None:
    assert getattr(Options(**{field: None}), field) is None
    assert getattr(Options(), field) is None


def test_every_field_says_what_it_is_for() -> None:
    assert all(ask.doc.endswith(".") for ask in asks().values())
