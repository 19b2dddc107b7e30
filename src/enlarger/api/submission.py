"""Submission: what a submit asks for, read from its JSON body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from enlarger.api.problems import RequestError
from enlarger.engine.options import Options
from enlarger.errors import InvalidOption

OUTPUT_FORMAT = "png"
"""What clients of this API expect when they name no format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A valid submit."""

    image: str
    options: Options
    echo: Mapping[str, Any]
    """The fields that mattered, as they were sent."""
    webhook_url: str
    """Empty for none."""
    is_sync: bool
    is_base64: bool


def submission_of(body: Mapping[str, Any], webhook: str = "") -> Submission:
    """The submission in `body`; `webhook` is the query parameter, which wins over the field `webhook_url`.

    Fields that are not ours are ignored, and null is the same as absent. Raises InvalidOption, RequestError.
    """
    image = picture_of(body)
    values = option_values(body)
    webhook_url = webhook_of(webhook or body.get("webhook_url") or "")
    is_base64 = flag_of(body, "enable_base64_output")
    if webhook_url and is_base64:
        raise RequestError(
            400,
            "enable_base64_output cannot be used with a webhook: poll for the result, or take it as a link",
            error_code=InvalidOption.code,
        )
    return Submission(
        image=image,
        options=Options.parse({"output_format": OUTPUT_FORMAT, **values}),
        echo={"image": image, **values},
        webhook_url=webhook_url,
        is_sync=flag_of(body, "enable_sync_mode"),
        is_base64=is_base64,
    )


def picture_of(body: Mapping[str, Any]) -> str:
    """The field `image`. Raises RequestError when there is none, InvalidOption when it is no string."""
    image = body.get("image")
    if image is None or image == "":
        raise RequestError(
            400,
            "image is missing: give a URL, a data URI or base64",
            error_code=InvalidOption.code,
            code=1400,
        )
    if not isinstance(image, str):
        raise InvalidOption(
            f"image must be a string: a URL, a data URI or base64, not {type(image).__name__}", "image"
        )
    return image


def option_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `body` that are options, not yet validated."""
    values = {spec.name: body[spec.name] for spec in fields(Options) if body.get(spec.name) is not None}
    # Some clients repeat the model id of the path in the body; ours are names without a slash.
    if isinstance(model := values.get("model"), str) and "/" in model:
        del values["model"]
    if "scale" not in values and body.get("guidance_scale") is not None:
        values["scale"] = body["guidance_scale"]
    return values


def webhook_of(url: object) -> str:
    """A webhook's address, empty for none; whether this server would call it is not looked at here."""
    if not isinstance(url, str):
        raise InvalidOption(f"webhook_url must be a string, not {type(url).__name__}", "webhook_url")
    return url


def flag_of(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true, false or absent."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidOption(f"{name} must be true or false, not {str(value)[:40]!r}", name)
    return value
