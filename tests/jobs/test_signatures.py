"""Our vectors were made with the `openssl` command; the verifiers here are the published recipes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from enlarger.jobs.signatures import secret_of, signed_headers

from ..conftest import ROOT

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ID = "6488c2754f6f4dfea924382fa14d11bd"
AT = 1_759_187_383
BODY = '{"id":"6488c2754f6f4dfea924382fa14d11bd","status":"completed","error":"","note":"Zürich ✓"}'.encode()

VECTORS = {
    "wavespeed": "v3,e56d2aaae604aa997c85f6e39d0734a919ae2b40828e593fcb5133f3bcba2dd4",
    "standard": "v1,YVfqOAfDTvKCK2qNbeogk7ojcWv20FXd4kSMhZSzqcY=",
}


def verified(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> bool:
    """The vendor's recipe: fresh to 300 s, HMAC of `id.timestamp.body` under the secret's text, in hex."""
    if abs(now - int(headers["webhook-timestamp"])) > 300:
        return False
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    key = secret[len("whsec_") :].encode("ascii")
    wanted = hmac.new(key, signed, hashlib.sha256).hexdigest()
    version, _, given_signature = headers["webhook-signature"].partition(",")
    return version == "v3" and hmac.compare_digest(wanted, given_signature)


@pytest.mark.parametrize("scheme", VECTORS)
def test_signature_is_that_of_the_vector(scheme: str) -> None:
    headers = signed_headers(scheme, SECRET, ID, AT, BODY)
    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": str(AT),
        "webhook-signature": VECTORS[scheme],
    }


@given(body=st.binary(), number=st.uuids())
def test_vendors_recipe_accepts_every_body(body: bytes, number: UUID) -> None:
    headers = signed_headers("wavespeed", SECRET, number.hex, AT, body)
    assert verified(headers, body, SECRET, AT + 299)
    assert not verified(headers, body + b" ", SECRET, AT)
    assert not verified(headers | {"webhook-id": "0" * 31 + "g"}, body, SECRET, AT)
    assert not verified(headers | {"webhook-timestamp": str(AT + 1)}, body, SECRET, AT)
    assert not verified(headers, body, "whsec_" + "A" * 44, AT)


def test_recipe_of_the_documentation_accepts_ours_and_nothing_else() -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    published: dict[str, Any] = {}
    exec(compile(code, "<documentation>", "exec"), published)
    is_genuine, now = published["is_genuine"], int(time.time())
    headers = signed_headers("wavespeed", SECRET, ID, now, BODY)
    assert is_genuine(headers, BODY, SECRET)
    assert not is_genuine(headers, BODY + b" ", SECRET)
    assert not is_genuine(signed_headers("wavespeed", SECRET, ID, now - 400, BODY), BODY, SECRET)


@given(text=st.text('aZ0 "\\\né✓😀'))
def test_standard_webhooks_package_accepts_every_body(text: str) -> None:
    body, now = text.encode(), int(time.time())
    headers = signed_headers("standard", SECRET, ID, now, body)
    receiver = standardwebhooks.Webhook(SECRET)
    receiver.verify(body, headers, json_parse=False)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.verify(body + b" ", headers, json_parse=False)


def test_secret_of_a_key_is_stable_its_own_and_fit_for_both_schemes() -> None:
    secret = secret_of(b"m" * 32, "a" * 32)
    assert secret == secret_of(b"m" * 32, "a" * 32)
    assert len({secret, secret_of(b"m" * 32, "b" * 32), secret_of(b"n" * 32, "a" * 32)}) == 3
    assert (secret[:6], len(secret)) == ("whsec_", 50)
    # Standard Webhooks asks for 24 to 64 bytes.
    assert len(base64.b64decode(secret[6:], validate=True)) == 32
