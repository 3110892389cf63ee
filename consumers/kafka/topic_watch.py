"""The identity of the topics that are read: re-created and missing topics."""

import logging
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from config.errors import BrokerUnavailable, ConfigError, TopicMissing
from consumers.kafka.topic_directory import Topic, TopicDirectory

log = logging.getLogger(__name__)

# Deleting, re-creating and filling a topic takes longer than this. A lookup takes 1 ms.
_TOPIC_ID_VALID_S = 0.1
_MISSING_CHECK_INTERVAL_S = 5.0


class TopicWatch:
    """Compares topics with those that were found when the connection was opened.

    Args:
        directory: The lookup of topics.
        names: The names of the topics.
    """

    def __init__(self, directory: TopicDirectory, names: Sequence[str]) -> None:
        self._directory = directory
        self._names = tuple(names)
        self.topics_by_name: dict[str, Topic] = {}
        """The topics that are read."""
        self.missing: TopicMissing | None = None
        self._ids_checked_s = 0.0
        self._missing_checked_s = float("-inf")

    def forget_check(self) -> None:
        """Look up the topics again at the next comparison."""
        self._ids_checked_s = 0.0

    def find_replaced(self) -> AbstractSet[str]:
        """Return the topics that are re-created, for records that were fetched before the call.

        The client fetches by topic name. If a topic was deleted, re-created and filled beyond the position,
        the client continues without an error. Records are therefore accepted only if the topic ids were looked
        up after the fetch, or so shortly before it that the topic cannot have been re-created meanwhile.

        Raises:
            BrokerUnavailable: No broker answered.
            ConfigError: A topic does not exist.
        """
        if time.monotonic() - self._ids_checked_s < _TOPIC_ID_VALID_S:
            return frozenset()
        found = self._directory.describe(self._names)
        self._ids_checked_s = time.monotonic()
        return {topic for topic in found if found[topic].identity != self.topics_by_name[topic].identity}

    def replaced_by(self, ids: Mapping[str, str | None]) -> AbstractSet[str]:
        """Return the topics that have another id in the client's metadata; None stands for an unknown id."""
        return {name for name in self._names if ids[name] not in {None, self.topics_by_name[name].identity}}

    def look_for_missing(self, ids: Mapping[str, str | None]) -> None:
        """Find out whether a topic that the client's metadata do not contain was deleted, at most every 5 s."""
        if all(ids.values()):
            self.missing = None
            return
        if time.monotonic() - self._missing_checked_s < _MISSING_CHECK_INTERVAL_S:
            return
        self._missing_checked_s = time.monotonic()
        try:
            self._directory.describe(self._names)
        except ConfigError as error:
            self.missing = TopicMissing(str(error))
        except BrokerUnavailable as error:
            log.debug("cannot look up the topics: %s", error, extra={"action": "look_up"})
        else:
            self.missing = None
