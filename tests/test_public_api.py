"""The names a program may rely on."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import enlarger

# Written out here so that adding or dropping a name is a decision, seen in review.
NAMES = {
    "upscale",
    "Engine",
    "Limits",
    "Options",
    "Detector",
    "Face",
    "Restorer",
    "Picture",
    "Plan",
    "Result",
    "Watch",
    "EnlargerError",
    "InvalidOption",
    "InvalidPicture",
    "ModelUnavailable",
    "Cancelled",
}


def test_the_public_api_is_these_names() -> None:
    assert set(enlarger.__all__) == NAMES
    assert len(enlarger.__all__) == len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_resolves_and_says_what_it_is(name: str) -> None:
    assert getattr(enlarger, name).__name__ == name
    assert inspect.getdoc(getattr(enlarger, name))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_in_the_library_page(name: str, root: Path) -> None:
    assert f"`{name}" in (root / "docs" / "library.md").read_text("utf-8")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(enlarger, "no_such_name")  # noqa: B009 -- as a program would, without a type checker


def test_every_refusal_can_be_caught_as_one_error() -> None:
    errors = [enlarger.InvalidOption, enlarger.InvalidPicture, enlarger.ModelUnavailable, enlarger.Cancelled]
    assert all(issubclass(error, enlarger.EnlargerError) for error in errors)
