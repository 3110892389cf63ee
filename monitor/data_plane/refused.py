"""A wrong deployment, said loudly: the first events of a stream are all refused."""

import logging

from consumers.batch import Decoded

log = logging.getLogger(__name__)

_REFUSED_SAMPLE = 1_000


class Refusals:
    """Says loudly when the first events of a stream are all refused."""

    def __init__(self) -> None:
        self._refused = 0
        self._done = False

    def count(self, stream: str, decoded: Decoded) -> None:
        """Take in what a batch became."""
        if self._done:
            return
        self._refused += len(decoded.dead)
        if len(decoded.events):
            self._done = True
        elif self._refused >= _REFUSED_SAMPLE:
            self._done = True
            log.error(
                "Stream %s: the first %d records were all refused, the last as %s (%s); "
                "check event.format and event.features.",
                stream,
                self._refused,
                decoded.dead.reasons[-1] if decoded.dead.reasons else "?",
                decoded.dead.details[-1] if decoded.dead.details else "?",
                extra={"action": "refuse"},
            )
