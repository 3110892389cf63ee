"""A log message for a wrong deployment: the codec rejects all of the first records of a stream."""

import logging

from consumers.decoded_batch import DecodedBatch

log = logging.getLogger(__name__)

_SAMPLE_RECORDS = 1_000


class AllRejectedWarning:
    """Logs one error if the first 1,000 records of a stream are all rejected."""

    def __init__(self) -> None:
        self._rejected = 0
        self._done = False

    def count(self, stream: str, batch: DecodedBatch) -> None:
        """Count the rejected records of a decoded batch."""
        if self._done:
            return
        dead_letters = batch.dead_letters
        self._rejected += len(dead_letters)
        if len(batch.events):
            self._done = True
        elif self._rejected >= _SAMPLE_RECORDS:
            self._done = True
            log.error(
                "Stream %s: all of the first %d records were rejected, the last one as %s (%s); "
                "check event.format and event.features.",
                stream,
                self._rejected,
                dead_letters.reasons[-1] if dead_letters.reasons else "?",
                dead_letters.details[-1] if dead_letters.details else "?",
                extra={"action": "reject"},
            )
