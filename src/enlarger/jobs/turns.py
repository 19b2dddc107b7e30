"""Turns: what only one of many processes shall do at a time. A row with an end, so that the dead block nobody."""

from __future__ import annotations

from sqlalchemy import Connection, or_, update

from enlarger.jobs.database import Database, inserts_or_updates
from enlarger.jobs.tables import turns

_FIRST = inserts_or_updates(turns, lambda _: {"name": turns.c.name})
"""Make the row, or leave the one there is as it is."""


async def takes_turn(database: Database, name: str, holder: str, now: float, seconds: float) -> bool:
    """Whether it is the holder's turn until `now + seconds`: nobody else has it, or that has run out."""
    mine = (
        update(turns)
        .where(turns.c.name == name, or_(turns.c.until <= now, turns.c.holder == holder))
        .values(holder=holder, until=now + seconds)
    )

    def take(connection: Connection) -> bool:
        fresh = {"name": name, "holder": "", "until": 0.0}
        connection.execute(_FIRST[connection.dialect.name], fresh)
        return connection.execute(mine).rowcount == 1

    return await database.write(take)
