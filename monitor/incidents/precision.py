"""The precision of the alarms of a stream, measured from the verdicts of people. Pure functions."""

from collections.abc import Mapping

from scipy import special

from config.time_format import DAY_US
from monitor.incidents.verbs import AlarmVerdict
from storage.control.thresholds import VerdictCounts

PRECISION_SPAN_US = 28 * DAY_US
"""Event time before a tick whose incidents are counted: verdicts are few, and are given days after an incident."""

_LEVEL = 0.95


def measure_precision(verdicts: Mapping[str | None, int]) -> VerdictCounts:
    """Return the numbers of true and false alarms and of incidents without a verdict, and the precision.

    The interval is that of Clopper and Pearson (1934) for a binomial proportion, at 95%. An accepted incident is
    neither a true nor a false alarm: it was a change, and the change is normal.

    Args:
        verdicts: Number of incidents by verdict; None is the number without one.
    """
    true, false = verdicts.get(AlarmVerdict.CONFIRMED, 0), verdicts.get(AlarmVerdict.FALSE_ALARM, 0)
    counts = VerdictCounts(true_alarms=true, false_alarms=false, without_verdict=sum(verdicts.values()) - true - false)
    if not true + false:
        return counts
    tail = (1 - _LEVEL) / 2
    return VerdictCounts(
        true_alarms=counts.true_alarms,
        false_alarms=counts.false_alarms,
        without_verdict=counts.without_verdict,
        precision=true / (true + false),
        precision_lower=float(special.betaincinv(true, false + 1, tail)) if true else 0.0,
        precision_upper=float(special.betaincinv(true + 1, false, 1 - tail)) if false else 1.0,
    )
