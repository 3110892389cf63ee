"""Re-created and missing topics."""

from collections.abc import Sequence

import pytest

from config.errors import BrokerUnavailable, ConfigError, TopicMissing
from consumers.kafka import topic_watch
from consumers.kafka.topic_directory import Topic, TopicDirectory
from consumers.kafka.topic_watch import TopicWatch


class Directory(TopicDirectory):
    """A directory of topics by their identities, with an error in place of an answer."""

    def __init__(self, identities: dict[str, str]) -> None:
        self.identities = identities
        self.error: Exception | None = None
        self.lookups = 0

    def describe(self, topics: Sequence[str]) -> dict[str, Topic]:
        self.lookups += 1
        if self.error is not None:
            raise self.error
        return {name: Topic(identity=self.identities[name], partitions=()) for name in topics}


@pytest.fixture
def directory() -> Directory:
    return Directory({"a": "1", "b": "2"})


@pytest.fixture
def watch(directory: Directory) -> TopicWatch:
    watch = TopicWatch(directory, ["a", "b"])
    watch.topics_by_name = directory.describe(["a", "b"])
    return watch


def test_topic_with_another_id_is_replaced(directory: Directory, watch: TopicWatch) -> None:
    directory.identities["b"] = "3"
    assert watch.find_replaced() == {"b"}
    assert watch.replaced_by({"a": None, "b": "3"}) == {"b"}
    assert watch.replaced_by({"a": "1", "b": None}) == set()


def test_ids_are_looked_up_once_in_a_while_and_after_a_new_connection(
    directory: Directory, watch: TopicWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_watch, "_TOPIC_ID_VALID_S", 5.0)
    for _ in range(3):
        assert watch.find_replaced() == set()
    assert directory.lookups == 2
    watch.forget_check()
    directory.error = BrokerUnavailable("no answer")
    with pytest.raises(BrokerUnavailable):
        watch.find_replaced()


def test_deleted_topic_is_missing_until_it_is_known_again(directory: Directory, watch: TopicWatch) -> None:
    directory.error = ConfigError("there is no topic 'b'")
    watch.look_for_missing({"a": "1", "b": None})
    assert isinstance(watch.missing, TopicMissing)
    watch.look_for_missing({"a": "1", "b": None})
    assert directory.lookups == 2
    watch.look_for_missing({"a": "1", "b": "2"})
    assert watch.missing is None


def test_topic_without_an_answer_is_not_missing(directory: Directory, watch: TopicWatch) -> None:
    directory.error = BrokerUnavailable("no answer")
    watch.look_for_missing({"a": "1", "b": None})
    assert watch.missing is None
