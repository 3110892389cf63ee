"""Fixtures: a database with the newest schema for each test, without an upgrade for each test."""

from tests.upgraded import shared_postgres_url, upgraded_postgres_url, upgraded_sqlite_url, upgraded_url

__all__ = ["shared_postgres_url", "upgraded_postgres_url", "upgraded_sqlite_url", "upgraded_url"]
