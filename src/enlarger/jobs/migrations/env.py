"""Run by Alembic for every migration; `Store.migrate()` hands it an open transaction."""

from __future__ import annotations

from alembic import context

from enlarger.jobs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
