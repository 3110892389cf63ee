"""Any cuts, kills, freezes, rebalances and lost answers give the rows of an undisturbed run, on both databases."""

from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation.machine import SETTINGS, open_machine

PROFILE = settings(SETTINGS, max_examples=6, derandomize=True)


def test_a_disturbed_run_stores_the_rows_of_an_undisturbed_one(database_url: str, tmp_path: Path) -> None:
    with open_machine(database_url, f"sqlite:///{tmp_path / 'reference.db'}") as machine:
        run_state_machine_as_test(machine, settings=PROFILE)
