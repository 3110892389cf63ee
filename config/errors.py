"""Errors of every room, sorted by what the caller does about them; the message is what a person reads."""


class OutriderError(Exception):
    """Something that ends a command, said in one line: what happened, where, and what to try."""

    exit_code = 1


class ConfigError(OutriderError):
    """The configuration cannot be used as it is written."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SchemaMismatch(OutriderError):  # noqa: N818 - names the finding; every room raises it by this name
    """The database holds tables of another version than this program works with."""


class ModelError(OutriderError, ValueError):
    """A model, its file or the data given to it do not fit together."""


class BrokerUnavailable(OutriderError):  # noqa: N818 - names the state, which passes; the caller retries
    """The Kafka brokers cannot be reached at present; the caller retries with backoff."""


class StorageUnavailable(OutriderError):  # noqa: N818 - names the state, which passes; the caller retries
    """The database cannot be reached at present; the caller retries with backoff."""
