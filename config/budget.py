"""The false-alarm budget of one window, and the number of windows that a count model is learned from."""

from config.time_format import WEEK_US

LEARNED_WINDOWS = 300
"""Minimum number of windows for the state `learned` of a count model.

With fewer windows the state is `provisional`: the false-alarm rate may be several times the budget. In simulations of
negative binomial counts (dispersion 1, 2 and 4) the realised rate was at most twice the budget.
"""

EARLY_LEARNED_WINDOWS = 100
"""Minimum number of windows for the state `learned` where the tail probability is well determined.

In the same simulations 100 windows kept the realised rate within twice the budget for `EARLY_ALPHA` or more per window,
or for `EARLY_OUTLIERS` or more expected outliers per window.
"""

EARLY_ALPHA = 1e-3
EARLY_OUTLIERS = 6.0


def false_alarm_probability(per_week: float, window_us: int, *, share: float = 0.5) -> float:
    """Return the false-alarm probability of one window.

    Args:
        per_week: False-alarm budget of the whole stream per week.
        window_us: Length of a window.
        share: Share of the budget for this test.

    Raises:
        ValueError: An argument is not positive, or the share exceeds 1.
    """
    if not (per_week > 0 and window_us > 0 and 0 < share <= 1):
        raise ValueError(
            f"per_week and window_us must be positive and share in (0, 1], not {per_week}, {window_us} and {share}"
        )
    return min(per_week * share * window_us / WEEK_US, 0.5)


def windows_to_learn(alpha: float, outliers: float) -> int:
    """Return the number of clean windows from which on a count model is learned.

    Args:
        alpha: False-alarm probability of one window.
        outliers: Expected number of outliers in a clean window.
    """
    return EARLY_LEARNED_WINDOWS if alpha >= EARLY_ALPHA or outliers >= EARLY_OUTLIERS else LEARNED_WINDOWS
