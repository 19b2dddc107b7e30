"""Limits and shares of keys, progress and cancellation of jobs, uploads, idempotency, usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _jobs()
    _keys()
    _uploads()
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("idempotency_key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("idempotency_job_id", "idempotency", ["job_id"])
    op.create_index("idempotency_created_at", "idempotency", ["created_at"])
    op.create_table(
        "used",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("cancelled", sa.Integer, nullable=False),
        sa.Column("compute_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "paces",
        sa.Column("network", sa.String(100), primary_key=True),
        sa.Column("seconds", sa.Float, nullable=False),
    )


def _jobs() -> None:
    for column in (
        sa.Column("webhook_url", sa.Text, nullable=False, server_default=""),
        sa.Column("base64_output", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("ticket", sa.String(32), nullable=False, server_default=""),
        sa.Column("fair_tag", sa.Float, nullable=False, server_default="0"),
        sa.Column("cost_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("progress", sa.Float, nullable=False, server_default="0"),
    ):
        op.add_column("jobs", column)
    op.create_index("jobs_state_fair_tag", "jobs", ["state", "fair_tag", "created_at", "id"])
    # Holds all that every submit sums up: without it 5,000 waiting rows cost 10 ms each time.
    op.create_index("jobs_state_cost_seconds", "jobs", ["state", "cost_seconds", "progress"])
    op.create_index("jobs_key_id_created_at", "jobs", ["key_id", "created_at"])


def _keys() -> None:
    for column in (
        sa.Column("scopes", sa.String(100), nullable=False, server_default="admin,read,submit"),
        sa.Column("expires_at", sa.Float),
        sa.Column("rate_per_minute", sa.Integer, nullable=False, server_default="0"),
        sa.Column("max_concurrency", sa.Integer, nullable=False, server_default="0"),
        sa.Column("weight", sa.Float, nullable=False, server_default="1"),
        sa.Column("arrival_at", sa.Float, nullable=False, server_default="0"),
        sa.Column("fair_finish", sa.Float, nullable=False, server_default="0"),
    ):
        op.add_column("keys", column)


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("blob_key", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("received_at", sa.Float),
    )
    op.create_index("uploads_created_at", "uploads", ["created_at"])
