"""Look-backs that a process keeps between the previews of verbs, so that each preview reads what has changed."""

import threading
from collections import OrderedDict

from config.stream_rules import StreamRules
from monitor.thresholds.look_back_cache import LookBackCache
from monitor.thresholds.tick import load_scale
from storage.control.preview import PreviewThresholdStore, PreviewTick

MAX_WINDOWS = 30_000
"""Windows that are kept in all, about 4 kB each: 14 days of windows of a minute are 20,160."""


class _Kept:
    def __init__(self, look_back: LookBackCache) -> None:
        self.lock = threading.Lock()
        self.look_back = look_back


class KeptLookBacks:
    """The look-backs of the streams whose verbs were previewed last, for all threads of a process.

    Args:
        max_windows: The windows that are kept in all; the newest look-back is kept at any size.
    """

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self._max_windows = max_windows
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int], _Kept] = OrderedDict()

    def copy_for(
        self, store: PreviewThresholdStore, stream_id: int, tick: PreviewTick, acceptances: int, rules: StreamRules
    ) -> LookBackCache:
        """Return the look-back of a tick with the alarms of a store: that of `tick.previous` read from the beginning.

        Args:
            store: The windows as they would be after the verb.
            stream_id: The stream.
            tick: Its last tick.
            acceptances: Number of its acceptances; another number is another look-back, as in the control plane.
            rules: The rules at the tick.
        """
        kept = self._find(stream_id, tick, acceptances)
        with kept.lock:
            read_until_us = kept.look_back.read_until_us
            if read_until_us is not None and read_until_us > tick.tick_us:
                # An older basis than that of another request: its windows are in it, but the seal must not move back.
                kept.look_back = _make(stream_id, tick, acceptances)
            kept.look_back.refresh(store, tick.tick_us, rules)
            look_back = kept.look_back
            alarms = store.read_alarms(stream_id, tick.tick_us - rules.look_back_us, tick.tick_us)
            copy = look_back.copy_with_alarms(alarms)
        self._drop_oldest()
        return copy

    def _find(self, stream_id: int, tick: PreviewTick, acceptances: int) -> _Kept:
        key = (stream_id, tick.previous.model_id, acceptances)
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                for other in [each for each in self._kept if each[0] == stream_id]:
                    del self._kept[other]
                found = self._kept[key] = _Kept(_make(stream_id, tick, acceptances))
            self._kept.move_to_end(key)
            return found

    def _drop_oldest(self) -> None:
        with self._lock:
            while len(self._kept) > 1 and sum(len(each.look_back) for each in self._kept.values()) > self._max_windows:
                self._kept.popitem(last=False)


def _make(stream_id: int, tick: PreviewTick, acceptances: int) -> LookBackCache:
    return LookBackCache(stream_id, tick.previous.model_id, load_scale(tick.previous.details), acceptances)
