"""Job: one durable request to upscale one picture. A frozen record, its states, and pure functions on it.

    created ──claim──▶ processing ──finish──▶ completed
       │                 │   ▲ │
       │                 │   └─┘ claim again (the worker died: epoch + 1)
       │                 ├──────fail────────▶ failed
       └─────────────────┴──────cancel──────▶ cancelled

The words of the states are the ones the API uses on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from enlarger.jobs.routes import Route


class State(StrEnum):
    CREATED = "created"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.PROCESSING, State.FAILED, State.CANCELLED}),
    State.PROCESSING: frozenset({State.PROCESSING, State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

MAX_COMPUTE_STARTS = 5
"""After this many starts without an end a job is taken for the cause of the crashes and fails."""

EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/tiff": "tif",
    "image/gif": "gif",
}
"""Extension of a result's blob key, and so of its URL, by media type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A finished result: where its bytes are and what they are."""

    blob_key: str
    media_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    nsfw_score: float | None = None
    """0 (harmless) to 1; None when no check ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the truth. Times are Unix seconds (float, UTC)."""

    id: str
    """32 lower-case hex characters."""
    key_id: str
    """Whose it is."""
    model: str
    """The model path of the API it was submitted to, e.g. `wavespeed-ai/real-esrgan`."""
    input: Mapping[str, Any]
    """The request as the user sent it, inline picture bytes left out; echoed on the wire."""
    options: Mapping[str, Any]
    """Fields of `engine.options.Options`, validated."""
    source_url: str = ""
    """Where to fetch the picture, when it was given as a URL and is not stored yet."""
    source_blob: str = ""
    """Blob key of the picture's bytes, once we hold them."""
    webhook_url: str = ""
    """Who is told of the end, empty for nobody."""
    base64_output: bool = False
    """Whether `outputs` shows the files themselves in place of their links."""
    state: State = State.CREATED
    ticket: str = ""
    """The queue entry the job runs under; its own id until a claim binds it to another."""
    fair_tag: float = 0.0
    """Its place in the order of service: virtual seconds, smallest first. See `fairness`."""
    cost_seconds: float = 0.0
    """Estimate of the device time it takes."""
    progress: float = 0.0
    """Share of the computation that is done, 0 to 1; written at most once a second."""
    stage: str = ""
    """What it waits for before its computation, in words, while it is processing; written at most once a second."""
    stage_seconds: float = 0.0
    """Estimate of how long that wait still takes; 0 when nobody knows."""
    epoch: int = 0
    """Raised by every claim; only the claim that holds the newest epoch may finish."""
    compute_starts: int = 0
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    compute_ms: int = 0
    outputs: tuple[Output, ...] = ()
    error_code: str = ""
    """`code` of the class in `enlarger.errors`, empty when there is none."""
    error_message: str = ""
    report: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the engine did: model, runtime, precision, tiles, timings."""
    route: str = str(Route())
    """Which workers may take it. See `routes`."""
    rank: int = 0
    """Jobs of a smaller rank are served before it: the key's priority, negative."""
    fingerprint: str = ""
    """Hash of all that determines the bytes of its result, once a worker has seen the picture."""


class Scope(StrEnum):
    """What a key may be used for."""

    SUBMIT = "submit"
    """Submit, upload, cancel, delete."""
    READ = "read"
    """See its predictions, usage and webhook deliveries."""
    ADMIN = "admin"
    """See the metrics of the whole server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key. Only the SHA-256 of its secret is stored. A limit of 0 is none."""

    id: str
    name: str
    created_at: float
    revoked_at: float | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    expires_at: float | None = None
    rate_per_minute: int = 0
    """Submits a minute; further ones are refused."""
    max_concurrency: int = 0
    """Jobs in work at once; further ones wait as `created`."""
    weight: float = 1.0
    """Share of the devices while others want them too: 2 is twice that of 1."""
    priority: int = 0
    """Its jobs are served before those of keys with a smaller one, whatever their shares."""

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
