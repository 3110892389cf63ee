"""Many threshold rows of a stream, as the ticks of a long run store them."""

from typing import Any

import sqlalchemy as sa

from config.time_format import MINUTE_US
from storage.database.engine import Database
from storage.database.tables import thresholds

REFRESH_US = 5 * MINUTE_US
_CHUNK = 5_000


def add_threshold_rows(
    db: Database, stream_id: int, model_id: int, n: int, *, first_us: int, recorded_at_us: int, **values: Any
) -> int:
    """Add n threshold rows with one tick each 5 minutes from `first_us` on; return the start of the newest one."""
    rows = [
        {
            "stream_id": stream_id,
            "model_id": model_id,
            "computed_at_us": first_us + i * REFRESH_US,
            "valid_from_us": first_us + i * REFRESH_US,
            "percentile": 99.5,
            "threshold": 10.0,
            "n": 2000,
            "method": "percentile",
            "details": "{}",
            "recorded_at_us": recorded_at_us,
            **values,
        }
        for i in range(n)
    ]
    for at in range(0, n, _CHUNK):
        with db.write() as connection:
            connection.execute(sa.insert(thresholds), rows[at : at + _CHUNK])
    return first_us + (n - 1) * REFRESH_US
