"""Events of the documentation's topic: payments of a shop, with a burst of stolen cards."""

import json
from collections.abc import Iterator

import numpy as np

from config.time_format import format_time

SECOND_US = 1_000_000


def payment_events(n: int, *, start_us: int, rate_s: float, burst_at: int = -1, burst: int = 0) -> Iterator[bytes]:
    """Yield JSON events, `rate_s` per second of event time; every third of `burst` events from `burst_at` is anomalous.

    An anomalous event has a high amount and a new card. The amount of the 51st event is not a number.
    """
    rng = np.random.default_rng(0)
    amount, age, distance = rng.lognormal(3, 0.6, n), rng.gamma(3, 150, n), rng.gamma(2, 8, n)
    customers = rng.integers(0, 400, n)
    for i in range(n):
        values: dict[str, object] = {
            "amount": round(amount[i], 2),
            "card": {"age_days": round(age[i], 1)},
            "distance_km": round(distance[i], 1),
        }
        if burst_at <= i < burst_at + burst and i % 3 == 0:
            values |= {"amount": round(amount[i] * 20, 2), "card": {"age_days": 0.5}}
        if i == 50:
            values["amount"] = "many"
        yield json.dumps(
            {
                "ts": format_time(start_us + round(i / rate_s * SECOND_US)),
                "payment_id": f"p{i:06}",
                "customer_id": f"c{customers[i]}",
                "currency": "EUR",
                **values,
            }
        ).encode()
