"""A wrong deployment, said loudly: the first events of a stream are all refused."""

import logging

from consumers.batch import DecodedBatch

log = logging.getLogger(__name__)

_SAMPLE_RECORDS = 1_000


class AllRejectedWarning:
    """Says loudly when the first events of a stream are all refused."""

    def __init__(self) -> None:
        self._refused = 0
        self._done = False

    def count(self, stream: str, decoded: DecodedBatch) -> None:
        """Take in what a batch became."""
        if self._done:
            return
        self._refused += len(decoded.dead_letters)
        if len(decoded.events):
            self._done = True
        elif self._refused >= _SAMPLE_RECORDS:
            self._done = True
            log.error(
                "Stream %s: the first %d records were all refused, the last as %s (%s); "
                "check event.format and event.features.",
                stream,
                self._refused,
                decoded.dead_letters.reasons[-1] if decoded.dead_letters.reasons else "?",
                decoded.dead_letters.details[-1] if decoded.dead_letters.details else "?",
                extra={"action": "refuse"},
            )
