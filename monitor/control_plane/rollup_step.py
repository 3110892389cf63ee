"""The roll-up step of the control plane: sum the judged windows up over 15 minutes and 6 hours.

The step has no influence on any decision. It reads stored windows only, so that it continues after a restart, and fills
the roll-ups of a database of an earlier version, by the same code.
"""

from collections.abc import Callable

from monitor.control_plane.stores import RollupStoreProtocol
from monitor.statistics.rollup import RollupSums, ScoredBy, build_row, merge_sums, sum_window
from storage.control import rollups
from storage.control.rollups import RollupFacts, RollupRow


class RollupStep:
    """Stores the roll-ups of one stream in the order of event time; used by one thread.

    Args:
        stream_id: The stream.
        store: The store of windows and roll-ups.
        scored_by: Returns the model of a threshold row.
    """

    def __init__(self, stream_id: int, *, store: RollupStoreProtocol, scored_by: Callable[[int], ScoredBy]) -> None:
        self._stream_id = stream_id
        self._store = store
        self._scored_by = scored_by
        self._idle_at_us: int | None = None
        self._due_us: int | None = None

    def run_due(self, sealed_until_us: int | None, *, changed: bool) -> bool:
        """Store the next 15 minutes, and the 6 hours that end with them; return False if no window is due.

        The database is read only as far as the seal has passed the next interval, and otherwise after a change.

        Args:
            sealed_until_us: The seal of the stream, up to which all windows are judged.
            changed: Whether another step has changed anything since the last call.
        """
        if sealed_until_us is None or (sealed_until_us == self._idle_at_us and not changed):
            return False
        if self._due_us is not None and sealed_until_us < self._due_us:
            return False
        facts = self._store.rollup_facts(self._stream_id)
        self._due_us = _first_end_us(facts)
        self._idle_at_us = sealed_until_us if self._due_us is None else None
        until_us = next_rollup_end_us(facts)
        if until_us is None:
            return False
        self._due_us = None
        return self._store.store_rollups(self._stream_id, facts.rolled_up_us, until_us, self._build(facts, until_us))

    def _build(self, facts: RollupFacts, until_us: int) -> list[RollupRow]:
        rows = [
            self._build_row(start_us, resolution_us) for resolution_us, start_us in _ended_intervals(facts, until_us)
        ]
        return [row for row in rows if row is not None]

    def _build_row(self, start_us: int, resolution_us: int) -> RollupRow | None:
        sums: list[RollupSums] = []
        for windows in self._store.rolled_windows(self._stream_id, start_us, start_us + resolution_us):
            sums = [merge_sums([*sums, *(sum_window(window, self._scored_by) for window in windows)])]
        return build_row(sums[0], start_us=start_us, resolution_us=resolution_us) if sums else None


def next_rollup_end_us(facts: RollupFacts) -> int | None:
    """Return the end of the next 15 minutes with a window, once all windows in them are judged; None before."""
    end_us = _first_end_us(facts)
    if end_us is None or facts.sealed_until_us is None or facts.sealed_until_us < end_us:
        return None
    judged = facts.first_unjudged_us is None or facts.first_unjudged_us >= end_us
    return end_us if judged else None


def _first_end_us(facts: RollupFacts) -> int | None:
    first_us = facts.next_window_us
    return None if first_us is None else first_us // rollups.FINE_US * rollups.FINE_US + rollups.FINE_US


def _ended_intervals(facts: RollupFacts, until_us: int) -> list[tuple[int, int]]:
    """Return length and start of the intervals that end with a step: 15 minutes, and 6 hours that it ends or passes."""
    length_us = rollups.COARSE_US
    starts_us = {(until_us - 1) // length_us * length_us}
    if facts.rolled_up_us is not None and facts.rolled_up_us % length_us:
        starts_us.add(facts.rolled_up_us // length_us * length_us)
    coarse = [(length_us, start_us) for start_us in sorted(starts_us) if start_us + length_us <= until_us]
    return [(rollups.FINE_US, until_us - rollups.FINE_US), *coarse]
