"""The memory store of a back-test over windows whose size changes."""

from config.stream_rules import WindowRules
from consumers.window_schedule import make_window_schedule
from monitor.backtest.memory_store import MemoryStore
from storage.ledger.commit import WindowPartRow

MINUTE = 60_000_000
WINDOWS = make_window_schedule(
    (
        WindowRules(size_us=MINUTE, grace_us=0, ahead_us=0),
        WindowRules(valid_from_us=6 * MINUTE, size_us=3 * MINUTE, grace_us=0, ahead_us=0),
    )
)


def part(start: int, end: int) -> WindowPartRow:
    return WindowPartRow(
        window_start_us=start * MINUTE,
        window_end_us=end * MINUTE,
        threshold_id=1,
        events=1,
        outliers=0,
        late=0,
        dead=0,
        payload=b"",
    )


def test_windows_of_both_sizes_are_due_once_they_are_sealed() -> None:
    store = MemoryStore([], windows=WINDOWS, lead_us=0)
    store.add_parts([part(4, 5), part(5, 6), part(6, 9), part(9, 12)], 20 * MINUTE)
    due = []
    for sealed in (5, 6, 9, 12):
        store.seal(1, lambda _, sealed=sealed: sealed * MINUTE)  # type: ignore[misc]
        due.append([start // MINUTE for start in store.due_windows(1)])
    assert due == [[4], [4, 5], [4, 5, 6], [4, 5, 6, 9]]
    ends = [facts.window_end_us // MINUTE for start in (4, 6) if (facts := store.read_window(1, start * MINUTE))]
    assert ends == [5, 9]
    assert store.tick_facts(1).first_part_end_us == 5 * MINUTE
