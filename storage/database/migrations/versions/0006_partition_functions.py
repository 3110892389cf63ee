"""Revision 0006: functions that create and drop partitions with the rights of the owner of the tables; additive."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    preparer = op.get_bind().dialect.identifier_preparer
    schema = preparer.quote(str(op.get_bind().exec_driver_sql("SELECT current_schema()").scalar()))
    # pg_temp is last: a temporary table of the caller must not take the place of `scores`.
    header = f"RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp"
    execute = op.get_bind().exec_driver_sql
    execute(
        f"""CREATE FUNCTION create_score_partition(day bigint) {header} AS $$
        BEGIN
            EXECUTE 'CREATE TABLE scores_d' || day || ' (LIKE scores INCLUDING ALL)';
            EXECUTE 'ALTER TABLE scores ATTACH PARTITION scores_d' || day
                || ' FOR VALUES FROM (' || day || ') TO (' || day + 1 || ')';
        END $$"""
    )
    execute(
        f"""CREATE FUNCTION drop_score_partition(day bigint) {header} AS $$
        BEGIN
            EXECUTE 'DROP TABLE IF EXISTS scores_d' || day;
        END $$"""
    )
    for name in ("create_score_partition", "drop_score_partition"):
        execute(f"REVOKE ALL ON FUNCTION {name}(bigint) FROM PUBLIC")
