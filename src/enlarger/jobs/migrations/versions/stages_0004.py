"""Jobs may wait for something before their computation, and say so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("stage", sa.String(200), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("stage_seconds", sa.Float, nullable=False, server_default="0"))
