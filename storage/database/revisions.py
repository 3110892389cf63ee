"""The revisions of the schema, listed here so that checking a database does not import Alembic."""

from __future__ import annotations

KNOWN_REVISIONS: tuple[str, ...] = tuple(f"{number:04}" for number in range(1, 20))
"""Every revision, oldest first; the last is the one that this version needs."""

INCOMPLETE_COPY = "incomplete copy"
"""The revision of the target of a copy until the copy is complete."""
