"""Streams, and the registration, retirement and incarnations of their sources."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from storage.control.models import ModelStore
from storage.database.engine import Database
from storage.database.tables import positions
from storage.ledger.commit import Committed, Fenced
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource
from tests.integration.storage.commits import (
    MINUTE,
    ClaimedStream,
    claim_stream,
    count_rows,
    fetch_rows,
)

LEAD = 10 * MINUTE


def _new_sources(*identities: str, next_offset: int = 0) -> list[NewSource]:
    return [
        NewSource(topic="t", partition=partition, identity=identity, next_offset=next_offset)
        for partition, identity in enumerate(identities)
    ]


def test_stream_is_created_once(db: Database, ledger: Ledger) -> None:
    assert ledger.open_stream("a", MINUTE, LEAD) == ledger.open_stream("a", MINUTE, LEAD)
    assert count_rows(db, "streams") == 1


def test_stream_opened_by_eight_threads_is_created_once(db: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Ledger(db).open_stream("a", MINUTE, LEAD).id, range(8)))
    assert len(set(opened)) == count_rows(db, "streams") == 1


def test_opening_a_stream_with_other_windows_does_not_change_it(ledger: Ledger) -> None:
    stream = ledger.open_stream("a", MINUTE, LEAD)
    assert ledger.open_stream("a", 5 * MINUTE, 2 * LEAD) == stream


def test_registering_a_source_again_keeps_its_position(feed: ClaimedStream, ledger: Ledger) -> None:
    feed.commit(10)
    again = [NewSource(topic="payments", partition=0, identity="log-1", next_offset=0)]
    (source,) = ledger.register_sources(feed.stream_id, again)
    assert (source.source_id, source.next_offset, source.incarnation) == (feed.claim.source_id, 10, 1)
    assert ledger.active_sources(feed.stream_id) == [source]


def test_partition_added_later_is_registered(ledger: Ledger) -> None:
    stream = ledger.open_stream("a", MINUTE, LEAD)
    ledger.register_sources(stream.id, _new_sources("x"))
    sources = ledger.register_sources(stream.id, _new_sources("x", "y", next_offset=5))
    assert [(each.partition, each.next_offset) for each in sources] == [(0, 0), (1, 5)]


def test_retired_source_fences_its_owner_and_resumes_at_its_position(feed: ClaimedStream, ledger: Ledger) -> None:
    feed.commit(10)
    (source,) = ledger.active_sources(feed.stream_id)
    assert ledger.retire_sources(feed.stream_id, [source]) == [source]
    assert ledger.retire_sources(feed.stream_id, [source]) == ledger.active_sources(feed.stream_id) == []
    assert feed.commit(5) == Fenced()
    again = [NewSource(topic="payments", partition=0, identity="log-1", next_offset=0)]
    (back,) = ledger.register_sources(feed.stream_id, again)
    assert (back.source_id, back.next_offset, back.watermark_us) == (source.source_id, 10, source.watermark_us)


def test_retired_source_with_a_new_identity_is_a_new_incarnation(feed: ClaimedStream, ledger: Ledger) -> None:
    ledger.retire_sources(feed.stream_id, ledger.active_sources(feed.stream_id))
    replaced = [NewSource(topic="payments", partition=0, identity="log-2", next_offset=3)]
    (source,) = ledger.register_sources(feed.stream_id, replaced)
    assert (source.incarnation, source.identity, source.next_offset) == (2, "log-2", 3)


def test_new_identity_is_a_new_incarnation_and_fences_the_old_owner(feed: ClaimedStream, ledger: Ledger) -> None:
    feed.commit(10)
    replaced = [NewSource(topic="payments", partition=0, identity="log-2", next_offset=3, cursor=40)]
    (source,) = ledger.register_sources(feed.stream_id, replaced)
    assert source.source_id != feed.claim.source_id
    assert (source.incarnation, source.identity, source.next_offset, source.cursor) == (2, "log-2", 3, 40)
    assert feed.commit(5) == Fenced()
    assert ledger.claim_source(feed.claim.source_id, "me") is None
    assert count_rows(feed.db, "scores") == 10


def test_reset_starts_a_new_incarnation_and_keeps_the_old_rows(feed: ClaimedStream, ledger: Ledger) -> None:
    feed.commit(10)
    ledger.restart_sources(feed.stream_id, [NewSource(topic="payments", partition=0, identity="log-1", next_offset=0)])
    again = claim_stream(feed.db)
    assert again.claim.source_id != feed.claim.source_id
    assert isinstance(again.commit(10), Committed)
    assert fetch_rows(feed.db, "SELECT incarnation, count(*) FROM score_history GROUP BY 1 ORDER BY 1") == [
        (1, 10),
        (2, 10),
    ]


def test_partitions_registered_concurrently_are_created_once(db: Database) -> None:
    stream = Ledger(db).open_stream("a", MINUTE, LEAD)
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(Ledger(db).register_sources, stream.id, _new_sources("x", "y", "z")) for _ in range(6)]
        results = [each.result(30) for each in found]
    assert all(result == results[0] for result in results)
    assert count_rows(db, "sources") == count_rows(db, "positions") == 3


def test_model_is_loaded_with_its_artefact_and_feature_names(feed: ClaimedStream, ledger: Ledger) -> None:
    model, artefact = ModelStore(feed.db).load(ledger.read_threshold_schedule(feed.stream_id)[0].model_id)
    assert (artefact, model.feature_names, model.summary) == (b"an artefact", ("amount", "age.days"), {"n": 3})


def test_model_with_a_damaged_artefact_is_an_error(feed: ClaimedStream, ledger: Ledger) -> None:
    with feed.db.write() as connection:
        connection.exec_driver_sql("UPDATE models SET checksum = 'other'")
    with pytest.raises(ValueError, match=r"model 1 of stream .* damaged"):
        ModelStore(feed.db).load(ledger.read_threshold_schedule(feed.stream_id)[0].model_id)


@pytest.mark.parametrize("register", [True, False], ids=["at the start", "while it is read"])
def test_a_replaced_log_that_was_not_read_to_its_end_is_a_gap(
    feed: ClaimedStream, ledger: Ledger, register: bool
) -> None:
    assert isinstance(feed.commit(5), Committed)
    new = [NewSource(topic="payments", partition=0, identity="log-2", next_offset=0)]
    change = ledger.register_sources if register else ledger.restart_sources
    change(feed.stream_id, new)
    assert fetch_rows(feed.db, "SELECT topic, partition, from_offset, to_offset, reason FROM gap_history") == [
        ("payments", 0, 5, 5, "log_replaced")
    ]


@pytest.mark.parametrize(("identity", "seen_at_its_end"), [("log-1", False), ("log-2", True)])
def test_a_reset_position_and_a_log_that_was_read_to_its_end_are_no_gap(
    feed: ClaimedStream, ledger: Ledger, identity: str, seen_at_its_end: bool
) -> None:
    assert isinstance(feed.commit(5), Committed)
    if seen_at_its_end:
        with feed.db.write() as connection:
            connection.execute(sa.update(positions).values(idle_seen_us=feed.db.now_us(connection)))
    ledger.restart_sources(feed.stream_id, [NewSource(topic="payments", partition=0, identity=identity, next_offset=0)])
    assert fetch_rows(feed.db, "SELECT reason FROM gap_history") == []
