from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable

import pytest

from enlarger.jobs.job import Key
from enlarger.jobs.keys import create_key, ensure_first_key, new_secret, secret_hash
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
    assert key == Key(id=key.id, name="laptop", created_at=3.0)
    assert await store.key_by_hash(secret_hash(secret)) == key
