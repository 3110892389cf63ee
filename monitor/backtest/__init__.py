"""Back-test: what the daemon would have found in the past, for a grid of percentiles and promises.

For a notebook: `backtest("outrider.yaml", "payments", since="7d").to_frame()`.
"""

from monitor.backtest.outcome import Backtest, Outcome
from monitor.backtest.run import backtest

__all__ = ["Backtest", "Outcome", "backtest"]
