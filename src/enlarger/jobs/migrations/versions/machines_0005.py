"""Many machines: routes and priorities of jobs, what results can be had again by, workers, and turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("route", sa.String(64), nullable=False, server_default="any.small"),
        sa.Column("rank", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fingerprint", sa.String(64), nullable=False, server_default=""),
    ):
        op.add_column("jobs", column)
    op.add_column("keys", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.create_index("jobs_serving", "jobs", ["state", "route", "rank", "fair_tag", "created_at", "id"])
    op.create_index("jobs_key_id_fingerprint", "jobs", ["key_id", "fingerprint"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("routes", sa.JSON, nullable=False),
        sa.Column("devices", sa.Integer, nullable=False),
        sa.Column("idle", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )
