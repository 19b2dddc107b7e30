"""Sources: what the `image` of a request may be."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass

from enlarger.errors import InvalidOption, PayloadTooLarge
from enlarger.jobs import guard, links
from enlarger.settings import Settings

_MAX_URL_CHARACTERS = 8192
_FORMS = "an http(s) URL, a data URI (data:image/png;base64,...) or the picture's bytes as base64"


@dataclass(frozen=True, slots=True)
class UrlSource:
    url: str


@dataclass(frozen=True, slots=True)
class InlineSource:
    data: bytes


@dataclass(frozen=True, slots=True)
class OwnSource:
    """A file that is stored here: the URL was one of our links."""

    blob_key: str


Source = UrlSource | InlineSource | OwnSource


def own_source(url: str, link_secret: bytes, now: float) -> OwnSource | None:
    """The stored file that `url` is a link to, by whatever name this server is reached; None when it is none.

    The signature is the proof. Raises InvalidOption(field="image") for a link of ours that has expired.
    """
    if (parts := links.parse(url)) is None:
        return None
    token, key = parts
    if links.verify(link_secret, key, token, now):
        return OwnSource(key)
    if links.verify(link_secret, key, token, 0.0):
        raise InvalidOption(
            "image is a link of this server that has expired: upload the picture again", "image"
        )
    return None


def parse_image(text: str, max_inline_bytes: int) -> UrlSource | InlineSource:
    """Tell apart URL, data URI and bare base64, and decode the last two. Looks at no pixel and opens no socket.

    Raises InvalidOption(field="image") when it is none of them, PayloadTooLarge when more than
    `max_inline_bytes` would come out of the base64.
    """
    text = text.strip()
    if text[:8].lower().startswith(("http://", "https://")):
        if len(text) > _MAX_URL_CHARACTERS:
            raise InvalidOption(f"image must be a URL of at most {_MAX_URL_CHARACTERS} characters", "image")
        return UrlSource(text)
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidOption(
                "image is a data URI without ;base64: send data:image/png;base64,...", "image"
            )
    return InlineSource(_decoded(text, max_inline_bytes))


def _decoded(text: str, max_inline_bytes: int) -> bytes:
    characters = "".join(text.split()).rstrip("=")
    if not characters:
        raise InvalidOption(f"image is empty: send {_FORMS}", "image")
    size = len(characters) * 3 // 4
    if size > max_inline_bytes:
        raise PayloadTooLarge(
            f"image holds {size} bytes as base64, above max_inline_bytes ({max_inline_bytes}): send a URL"
        )
    try:
        return b64decode(characters + "=" * (-len(characters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters outside ASCII
        shown = characters if len(characters) <= 40 else f"{characters[:37]}..."
        raise InvalidOption(f"image must be {_FORMS}, not {shown!r}", "image") from error


def fetch_limits(settings: Settings) -> guard.Limits:
    """What fetching a picture may cost and where it may lead."""
    return guard.Limits(
        max_bytes=settings.max_input_bytes,
        total_seconds=settings.fetch_seconds,
        allow_private_networks=settings.allow_private_networks,
        allow_ports=settings.allow_ports,
    )
