"""The tables of the store, one definition for SQLite and PostgreSQL. `migrations/` brings a database there."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_id", String(32), nullable=False),
    Column("model", String(200), nullable=False),
    Column("input", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("source_url", Text, nullable=False),
    Column("source_blob", Text, nullable=False),
    Column("webhook_url", Text, nullable=False, server_default=""),
    Column("base64_output", Boolean, nullable=False, server_default=false()),
    Column("state", String(16), nullable=False),
    Column("ticket", String(32), nullable=False, server_default=""),
    Column("fair_tag", Float, nullable=False, server_default="0"),
    Column("cost_seconds", Float, nullable=False, server_default="0"),
    Column("progress", Float, nullable=False, server_default="0"),
    Column("stage", String(200), nullable=False, server_default=""),
    Column("stage_seconds", Float, nullable=False, server_default="0"),
    Column("epoch", Integer, nullable=False),
    Column("compute_starts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("compute_ms", BigInteger, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("error_message", Text, nullable=False),
    Column("report", JSON, nullable=False),
    Column("route", String(64), nullable=False, server_default="any.small"),
    Column("rank", Integer, nullable=False, server_default="0"),
    Column("fingerprint", String(64), nullable=False, server_default=""),
    Index("jobs_state_created_at", "state", "created_at"),
    Index("jobs_state_fair_tag", "state", "fair_tag", "created_at", "id"),
    Index("jobs_state_cost_seconds", "state", "cost_seconds", "progress"),
    Index("jobs_key_id_created_at", "key_id", "created_at"),
    Index("jobs_serving", "state", "route", "rank", "fair_tag", "created_at", "id"),
    Index("jobs_key_id_fingerprint", "key_id", "fingerprint"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("scopes", String(100), nullable=False, server_default="admin,read,submit"),
    Column("expires_at", Float),
    Column("rate_per_minute", Integer, nullable=False, server_default="0"),
    Column("max_concurrency", Integer, nullable=False, server_default="0"),
    Column("weight", Float, nullable=False, server_default="1"),
    Column("arrival_at", Float, nullable=False, server_default="0"),
    Column("fair_finish", Float, nullable=False, server_default="0"),
    Column("priority", Integer, nullable=False, server_default="0"),
)
"""`arrival_at` belongs to `limits`, `fair_finish` to `fairness`."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("job_id", String(32), nullable=False),
    Column("created_at", Float, nullable=False),
    Index("idempotency_job_id", "job_id"),
    Index("idempotency_created_at", "created_at"),
)
"""Submits that may come again, and the job of each."""

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_id", String(32), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("size", BigInteger),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("received_at", Float),
    Index("uploads_created_at", "created_at"),
)
"""Tickets to upload a file; `received_at` is set once it is here."""

used = Table(
    "used",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("compute_ms", BigInteger, nullable=False),
)
"""What keys have used, by days since 1970; outlives the jobs."""

paces = Table(
    "paces",
    metadata,
    Column("network", String(100), primary_key=True),
    Column("seconds", Float, nullable=False),
)
"""How long a job of each network takes: a running mean."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("job_id", String(32), nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("host", String(300), nullable=False),
    Column("state", String(16), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("attempts", JSON, nullable=False),
    Index("deliveries_state_due_at", "state", "due_at"),
    Index("deliveries_job_id", "job_id"),
)
"""The outbox of webhooks."""

workers = Table(
    "workers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("version", String(32), nullable=False),
    Column("routes", JSON, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("idle", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)
"""Who computes, as they say themselves every few seconds."""

turns = Table(
    "turns",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(32), nullable=False),
    Column("until", Float, nullable=False),
)
"""Whose turn it is to do what only one process shall do at a time."""

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""Secrets and facts of this database by name, e.g. the secret that signs links."""
