"""Exceptions of all packages, grouped by the caller's reaction. Their messages are shown to operators."""


class OutriderError(Exception):
    """An error that ends a command. The message has one line: the problem, its location and a remedy."""

    exit_code = 1


class ConfigError(OutriderError):
    """The configuration is not valid."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SchemaMismatch(OutriderError):  # noqa: N818 - a public name
    """The database has tables of another schema version than this program requires."""


class OlderReplicasRunning(OutriderError):  # noqa: N818 - a temporary state; the caller waits
    """Processes of an earlier version run on a database that has to be upgraded. The daemon waits for their end."""


class ModelError(OutriderError, ValueError):
    """A model, its file and its input data are not compatible."""


class BrokerUnavailable(OutriderError):  # noqa: N818 - a temporary state; the caller retries
    """The Kafka brokers are temporarily unavailable. The caller retries with backoff."""


class TopicMissing(BrokerUnavailable):
    """The brokers answer, and a topic that was read before does not exist. It may be created again."""


class StorageUnavailable(OutriderError):  # noqa: N818 - a temporary state; the caller retries
    """The database is temporarily unavailable. The caller retries with backoff."""
