"""A simulation of the data plane: the real intake, worker, ledger and control plane of several replicas in one process.

Only the broker, the clocks and the order of the steps are simulated. The stored rows must equal those of an undisturbed
run, whatever the cuts, kills, freezes, rebalances and lost answers.
"""
