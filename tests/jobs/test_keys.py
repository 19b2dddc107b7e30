from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from enlarger.errors import InvalidOption
from enlarger.jobs.job import Key, Scope
from enlarger.jobs.keys import Grant, create_key, ensure_first_key, new_secret, secret_hash
from enlarger.jobs.store import Store
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

Start = Callable[[], Awaitable[str]]


@pytest.fixture
def start(store: Store, settings: Settings, new_id: Callable[[], str]) -> Start:
    return lambda: ensure_first_key(store, settings.data_dir, now=1.0, new_id=new_id, random=os.urandom)


def test_secret_is_opaque_long_and_never_the_same() -> None:
    secrets = {new_secret(os.urandom) for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch(r"wsk_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


async def test_only_the_hash_of_a_secret_is_stored(store: Store, settings: Settings, start: Start) -> None:
    secret = await start()
    assert await store.key_by_hash(hashlib.sha256(secret.encode()).hexdigest())
    files = [path for path in settings.data_dir.iterdir() if path.name.startswith("enlarger.sqlite")]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]


async def test_first_start_makes_a_key_that_later_starts_show_again(
    store: Store, settings: Settings, start: Start
) -> None:
    secret = await start()
    assert (settings.data_dir / "key").read_text() == f"{secret}\n"
    assert (settings.data_dir / "key").stat().st_mode & 0o777 == 0o600
    assert await start() == secret
    assert len(await store.keys()) == 1


async def test_secret_written_before_a_crash_is_put_to_use(
    store: Store, settings: Settings, start: Start
) -> None:
    (settings.data_dir / "key").write_text("wsk_written\n")
    assert await start() == "wsk_written"
    assert await store.key_by_hash(secret_hash("wsk_written"))


async def test_revoked_or_lost_first_key_is_not_shown_and_not_made_again(
    store: Store, settings: Settings, start: Start
) -> None:
    await start()
    [key] = await store.keys()
    await store.revoke_key(key.id, 2.0)
    assert await start() == ""
    (settings.data_dir / "key").unlink()
    assert await start() == ""
    assert [key.id for key in await store.keys()] == [key.id]


async def test_created_key_is_found_by_its_secret(store: Store, new_id: Callable[[], str]) -> None:
    key, secret = await create_key(store, "laptop", now=3.0, new_id=new_id, random=os.urandom)
    assert key == Key(id=key.id, name="laptop", created_at=3.0, scopes=frozenset({Scope.SUBMIT, Scope.READ}))
    assert await store.key_by_hash(secret_hash(secret)) == key


async def test_grant_is_kept_with_the_key(store: Store, new_id: Callable[[], str]) -> None:
    grant = Grant(
        scopes=frozenset({Scope.READ}), expires_at=9.0, rate_per_minute=2, max_concurrency=3, weight=0.5
    )
    key, _ = await create_key(store, "narrow", now=3.0, new_id=new_id, random=os.urandom, grant=grant)
    assert await store.keys() == [key]
    assert (key.scopes, key.expires_at) == (grant.scopes, 9.0)
    assert (key.rate_per_minute, key.max_concurrency, key.weight) == (2, 3, 0.5)
    assert key.is_valid(8.9)
    assert not key.is_valid(9.0)
    assert not replace(key, revoked_at=4.0).is_valid(5.0)


@pytest.mark.parametrize(
    "values",
    [
        {"scopes": frozenset[Scope]()},
        {"rate_per_minute": -1},
        {"max_concurrency": -1},
        {"weight": 0},
        {"weight": float("nan")},
        {"weight": 101},
    ],
)
def test_grant_out_of_range_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(values))):
        Grant(**values)


async def test_key_that_would_never_be_valid_is_not_made(store: Store, new_id: Callable[[], str]) -> None:
    with pytest.raises(InvalidOption, match="expires_at"):
        await create_key(
            store, "late", now=3.0, new_id=new_id, random=os.urandom, grant=Grant(expires_at=3.0)
        )
    assert await store.keys() == []
