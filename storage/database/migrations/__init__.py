"""The Alembic migrations of the schema: one revision per step, additive first."""
