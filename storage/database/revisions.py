"""The revisions of the schema, listed here so that checking a database does not import Alembic."""

from __future__ import annotations

KNOWN_REVISIONS: tuple[str, ...] = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010")
"""Every revision, oldest first; the last is the one that this version needs."""

INCOMPLETE_COPY = "incomplete copy"
"""The revision of the target of a copy until the copy is complete."""
