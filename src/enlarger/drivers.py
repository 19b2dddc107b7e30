"""Drivers: which store of pictures the settings choose, and what makes pictures ready for zooming."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from enlarger.engine.decoder import Decoder, DecoderLimits
from enlarger.engine.pyramid_file import open_pyramid
from enlarger.errors import FeatureUnavailable, InvalidOption
from enlarger.jobs.blobs import Blobs, LocalBlobs
from enlarger.jobs.pyramids import Pyramids
from enlarger.jobs.split_blobs import SplitBlobs
from enlarger.settings import Settings

_VIEWER_MEMORY_BYTES = 6 * 2**30
"""Address space for preparing a picture for zooming: 20 bytes a pixel of the largest AVIF, others need less."""


def open_blobs(settings: Settings, clock: Callable[[], float]) -> Blobs:
    """The blobs of `blob_url`; no request is made. clock: Unix seconds.

    Raises InvalidOption for settings that do not go together, FeatureUnavailable without the package for S3.
    """
    url = urlsplit(settings.blob_url)
    if url.scheme == "s3":
        return _open_s3(settings, clock)
    if settings.blob_links == "presigned":
        raise InvalidOption("blob_links=presigned needs a blob_url that starts with s3://", "blob_links")
    return LocalBlobs(Path(unquote(url.path)) if url.scheme else settings.data_dir / "blobs")


@asynccontextmanager
async def open_pyramids(blobs: Blobs, settings: Settings) -> AsyncGenerator[Pyramids]:
    """Pyramids made by a decoder of their own, so that nobody who zooms waits for a picture being computed."""
    most_pixels = round(max(settings.max_input_megapixels, settings.max_output_megapixels) * 1e6)
    limits = DecoderLimits(
        max_pixels=most_pixels,
        max_source_bytes=max(settings.max_input_bytes, settings.max_upload_bytes, 8 * most_pixels),
        memory_bytes=_VIEWER_MEMORY_BYTES,
    )
    with closing(Decoder(limits)) as decoder:
        pyramids = Pyramids(
            blobs,
            decoder.write_pyramid,
            open_pyramid,
            most_bytes=settings.viewer_cache_bytes,
            min_free_bytes=settings.min_free_bytes,
        )
        try:
            yield pyramids
        finally:
            await pyramids.close()


def _open_s3(settings: Settings, clock: Callable[[], float]) -> Blobs:
    if find_spec("obstore") is None:
        raise FeatureUnavailable("blob_url=s3://... needs a package: pip install 'enlarger[distributed]'")
    from enlarger.jobs.presigned import Presigned, Signer
    from enlarger.jobs.s3_blobs import Bucket, S3Blobs

    url = urlsplit(settings.blob_url)
    access, secret = _secret(settings.s3_access_key), _secret(settings.s3_secret_key)
    if bool(access) != bool(secret):
        raise InvalidOption("s3_access_key and s3_secret_key go together: set both, or none", "s3_secret_key")
    prefix = url.path.strip("/")
    bucket = Bucket(
        name=url.netloc,
        prefix=prefix,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=access,
        secret_key=secret,
    )
    direct = None
    if settings.blob_links == "presigned":
        if not access:
            raise InvalidOption("blob_links=presigned needs s3_access_key and s3_secret_key", "blob_links")
        amazon = f"https://s3.{settings.s3_region}.amazonaws.com"
        signer = Signer(
            endpoint=settings.s3_public_endpoint or settings.s3_endpoint or amazon,
            bucket=url.netloc,
            prefix=prefix,
            region=settings.s3_region,
            access_key=access,
            secret_key=secret,
        )
        direct = Presigned(signer, clock)
    scratch = settings.data_dir / "scratch"
    far = S3Blobs(bucket, scratch, seconds=settings.s3_seconds, direct=direct)
    return SplitBlobs(LocalBlobs(settings.data_dir / "cache"), far)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""
