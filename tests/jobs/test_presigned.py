from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from enlarger.jobs.presigned import MAX_SECONDS, Presigned, Signer

KEY = "uploads/1/1.png"


def signer(**values: str) -> Signer:
    known = {
        "endpoint": "https://s3.example.org",
        "bucket": "pictures",
        "region": "eu-central-1",
        "access_key": "access",
        "secret_key": "not-to-be-seen",
    }
    return Signer(**{**known, **values})


def test_signature_is_that_of_amazons_own_example() -> None:
    # "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", example of a presigned GET: the
    # bucket is in the host there, so the endpoint and the bucket stand for it and the path alone.
    url = Signer(
        endpoint="https://examplebucket.s3.amazonaws.com",
        bucket="",
        region="us-east-1",
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ).url("GET", "test.txt", now=datetime(2013, 5, 24, tzinfo=UTC).timestamp(), seconds=86_400)
    asked = parse_qs(urlsplit(url).query)
    assert url.startswith("https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert asked["X-Amz-Signature"] == ["aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"]


def test_secret_is_in_no_url_and_no_text() -> None:
    shown = f"{signer()!r} {signer().url('GET', KEY, now=0.0, seconds=60)}"
    assert "not-to-be-seen" not in shown


def test_prefix_is_before_the_key_and_all_of_it_is_encoded() -> None:
    url = signer(prefix="a b/c").url("GET", KEY, now=0.0, seconds=60)
    assert urlsplit(url).path == "/pictures/a%20b/c/uploads/1/1.png"


def test_permission_to_put_names_what_the_client_sends_and_ends_in_time() -> None:
    direct = Presigned(signer(), lambda: 1000.0)
    way = direct.put(KEY, 5, "image/png", 60.9)
    assert way.headers == {"Content-Type": "image/png", "If-None-Match": "*"}
    assert way.expires_at == 1060.0
    signed = parse_qs(urlsplit(way.url).query)["X-Amz-SignedHeaders"]
    assert signed == ["content-length;content-type;host;if-none-match"]


def test_no_url_lives_longer_than_a_store_accepts() -> None:
    way = Presigned(signer(), lambda: 0.0).put(KEY, 5, "image/png", 1e9)
    assert parse_qs(urlsplit(way.url).query)["X-Amz-Expires"] == [str(MAX_SECONDS)]
