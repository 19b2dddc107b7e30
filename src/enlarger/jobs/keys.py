"""API keys: opaque secrets, of which the store keeps only the SHA-256."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from enlarger.errors import InvalidOption
from enlarger.jobs.durable import write_durably
from enlarger.jobs.job import Key, Scope
from enlarger.jobs.store import Store

_SECRET_BYTES = 32


def new_secret(random: Callable[[int], bytes]) -> str:
    """A fresh secret: `wsk_` and 43 characters of A-Z a-z 0-9 - _. `random(n)` gives n random bytes."""
    return "wsk_" + urlsafe_b64encode(random(_SECRET_BYTES)).decode().rstrip("=")


def secret_hash(secret: str) -> str:
    # A secret holds 256 random bits: there is nothing to guess, so a slow hash would protect nothing.
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a new key may do; see `Key`. Raises InvalidOption when a value is out of range."""

    scopes: frozenset[Scope] = frozenset({Scope.SUBMIT, Scope.READ})
    expires_at: float | None = None
    rate_per_minute: int = 0
    max_concurrency: int = 0
    weight: float = 1.0
    priority: int = 0

    def __post_init__(self) -> None:
        if not self.scopes:
            raise InvalidOption(f"scopes must be some of {', '.join(Scope)}", "scopes")
        for name in ("rate_per_minute", "max_concurrency"):
            if (value := getattr(self, name)) < 0:
                raise InvalidOption(f"{name} must be 0 (no limit) or more, not {value}", name)
        if not -100 <= self.priority <= 100:
            raise InvalidOption(f"priority must be from -100 to 100, not {self.priority}", "priority")
        if not 0.01 <= self.weight <= 100:
            raise InvalidOption(f"weight must be from 0.01 to 100, not {self.weight:g}", "weight")


async def create_key(
    store: Store,
    name: str,
    *,
    now: float,
    new_id: Callable[[], str],
    random: Callable[[int], bytes],
    grant: Grant | None = None,
) -> tuple[Key, str]:
    """A new key and its secret, which is shown this once and kept nowhere."""
    grant = grant or Grant()
    if grant.expires_at is not None and grant.expires_at <= now:
        raise InvalidOption("expires_at lies in the past: the key would never be valid", "expires_at")
    key = Key(
        id=new_id(),
        name=name,
        created_at=now,
        scopes=grant.scopes,
        expires_at=grant.expires_at,
        rate_per_minute=grant.rate_per_minute,
        max_concurrency=grant.max_concurrency,
        weight=grant.weight,
        priority=grant.priority,
    )
    secret = new_secret(random)
    await store.add_key(key, secret_hash(secret))
    return key, secret


async def ensure_first_key(
    store: Store, data_dir: Path, *, now: float, new_id: Callable[[], str], random: Callable[[int], bytes]
) -> str:
    """The secret in the file `key` of the data folder, made with the first key when the store has none.

    Empty when the file is gone or its key is revoked: other keys exist then, and nobody knows their secrets.
    """
    path = data_dir / "key"
    secret = path.read_text().strip() if path.exists() else ""
    if not await store.keys():
        # The file before the row: a crash in between leaves a secret that the next start puts to use.
        if not secret:
            secret = new_secret(random)
            write_durably(path, f"{secret}\n".encode())
        await store.add_key(Key(id=new_id(), name="first", created_at=now), secret_hash(secret))
        return secret
    key = await store.key_by_hash(secret_hash(secret))
    return secret if key is not None and key.is_valid(now) else ""


async def ensure_given_key(store: Store, secret: str, *, now: float, new_id: Callable[[], str]) -> None:
    """Make a key with this secret, unless there is one. Several servers may do so at once."""
    digest = secret_hash(secret)
    if await store.key_by_hash(digest) is None:
        try:
            await store.add_key(Key(id=new_id(), name="first", created_at=now), digest)
        except IntegrityError:
            if await store.key_by_hash(digest) is None:
                raise
