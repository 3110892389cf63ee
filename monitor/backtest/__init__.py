"""Back-test: replay of recorded events or stored windows, for a grid of percentiles and false-alarm budgets.

In a notebook: `backtest("outrider.yaml", "payments", since="7d").to_frame()`.
"""

from monitor.backtest.outcome import Backtest, Outcome
from monitor.backtest.run import backtest

__all__ = ["Backtest", "Outcome", "backtest"]
