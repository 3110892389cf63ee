"""Storage room: the schema's history, one Alembic revision per step, additive first."""

from __future__ import annotations

KNOWN_REVISIONS: tuple[str, ...] = ("0001", "0002")
"""Every revision up to the one that this version needs; kept here so that a check imports no Alembic."""
