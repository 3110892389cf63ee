"""The tables as SQLAlchemy Core metadata; the migrations create them.

Times are BIGINT microseconds since 1970 in UTC (`*_us`); JSON is TEXT. The tables of the control plane have foreign
keys. The tables that a commit fills with thousands of rows (`scores`, `outliers`, `dead_letters`, `window_parts`) have
none, because a look-up per row would slow down the path of every event.
"""

from __future__ import annotations

import sqlalchemy as sa

from storage.database.texts import StorableText

FOREVER_US = 2**63 - 1
"""`positions.idle_until_us` of a source that has ended: it never holds a window open again."""

WIDE_RANGE_US = 3_600_000_000
"""A range of commits whose events on time are further apart is a wide one, in an index of its own."""

WIDE_RANGE = f"max_time_us - min_time_us > {WIDE_RANGE_US}"
"""SQL condition of a wide range of commits, as written in its index."""

HEALTH_REPORT_INTERVAL_S = 5
"""Seconds after which a row of `health_reports` that has not changed is written again."""

HEALTH_REPORT_TTL_S = 15
"""Seconds after which a row of `health_reports` that was not written again proves nothing."""

HEALTH_CLOCK_TOLERANCE_S = 5
"""A row of `health_reports` that is further in the future proves nothing: the database's clock was set back."""

CONTROL_LEASE_TTL_S = 10
"""Seconds after which another process may take the lease on the control plane of a stream that was not renewed."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite generates row ids only for a column whose type is exactly INTEGER.
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Us = sa.BigInteger
_Text = StorableText
_Double = sa.Double


def _foreign_key_column(name: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.ForeignKey(target), nullable=nullable)


streams = sa.Table(
    "streams",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", _Text, nullable=False, unique=True),
    sa.Column("window_size_us", _Us, nullable=False),
    # The largest grace + ahead that the stream has ever had: no stored event lies beyond sealed_until + lead.
    sa.Column("lead_us", _Us, nullable=False, server_default="0"),
    sa.Column("sealed_until_us", _Us),
    sa.Column("last_tick_us", _Us),
    sa.Column("revision", _Us, nullable=False, server_default="0"),
    sa.Column("created_at_us", _Us, nullable=False),
    sa.Column("details", _Text),
    # State of the window tests between judged windows (JSON), updated in the transaction that judges.
    sa.Column("judge_state", _Text),
    # Revision of the newest row of `settings`; 0 before the first one.
    sa.Column("settings_revision", sa.Integer, nullable=False, server_default="0"),
    # Number of accepted incidents: results that are computed from windows are recomputed when it changes.
    sa.Column("acceptances", sa.Integer, nullable=False, server_default="0"),
    # Event time up to which the windows are rolled up, a multiple of 15 minutes; NULL before the first roll-up.
    sa.Column("rolled_up_us", _Us),
)

# The settings of a stream over event time. Each class of settings (`scope`) has its own rows: a row is valid from
# `valid_from_us` on, the first one from the start. The rows of one revision come from one configuration file.
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("scope", _Text, primary_key=True),
    sa.Column("valid_from_us", _Us),
    sa.Column("hash", _Text, nullable=False),
    sa.Column("content", _Text, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
)

# The processes that run a stream, with the hash of the settings in the file of each.
replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("owner", _Text, primary_key=True),
    sa.Column("heartbeat_us", _Us, nullable=False),
    sa.Column("settings_hash", _Text, nullable=False),
    sa.Column("version", _Text, nullable=False),
)

# The state of a stream and of what it depends on, as each process that runs the stream reports it. A process that ends
# in order deletes its rows; those of a process that was killed are ignored after `HEALTH_REPORT_TTL_S`.
health_reports = sa.Table(
    "health_reports",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("replica", _Text, primary_key=True),
    sa.Column("component", _Text, primary_key=True),
    sa.Column("state", _Text, nullable=False),
    sa.Column("since_us", _Us, nullable=False),
    sa.Column("reason", _Text),
    sa.Column("reported_at_us", _Us, nullable=False),
    # Of the component `stream`: offsets between the stored positions and the ends of the logs, over the partitions of
    # the process, and seconds that its oldest waiting record has waited; NULL if unknown, and of other components.
    sa.Column("lag_events", _Us),
    sa.Column("waiting_s", _Double),
)

sources = sa.Table(
    "sources",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("topic", _Text, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("incarnation", sa.Integer, nullable=False),
    sa.Column("identity", _Text, nullable=False),
    sa.Column("created_at_us", _Us, nullable=False),
    sa.UniqueConstraint("stream_id", "topic", "partition", "incarnation"),
)

positions = sa.Table(
    "positions",
    metadata,
    sa.Column("source_id", sa.ForeignKey("sources.id"), primary_key=True, autoincrement=False),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("next_offset", _Us, nullable=False),
    sa.Column("cursor", _Us),
    sa.Column("epoch", _Us, nullable=False, server_default="0"),
    sa.Column("owner", _Text),
    sa.Column("watermark_us", _Us),
    sa.Column("last_event_us", _Us),
    sa.Column("idle_until_us", _Us, nullable=False, server_default="0"),
    # Time on the database's clock at which the owner last saw the source at the end of its log; NULL before that.
    sa.Column("idle_seen_us", _Us),
    sa.Column("committed_at_us", _Us),
    sa.Index("ix_positions_stream_id", "stream_id"),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("kind", _Text, nullable=False),
    sa.Column("state", _Text, nullable=False),
    sa.Column("artefact", sa.LargeBinary, nullable=False),
    sa.Column("checksum", _Text, nullable=False),
    sa.Column("created_at_us", _Us, nullable=False),
    sa.Column("valid_from_us", _Us),
    sa.Column("feature_names", _Text, nullable=False),
    sa.Column("summary", _Text),
    sa.UniqueConstraint("stream_id", "version"),
)

thresholds = sa.Table(
    "thresholds",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _foreign_key_column("stream_id", "streams.id"),
    _foreign_key_column("model_id", "models.id"),
    sa.Column("computed_at_us", _Us, nullable=False),
    sa.Column("valid_from_us", _Us, nullable=False),
    sa.Column("percentile", _Double, nullable=False),
    sa.Column("threshold", _Double, nullable=False),
    sa.Column("lower", _Double),
    sa.Column("upper", _Double),
    sa.Column("n", _Us, nullable=False),
    sa.Column("method", _Text, nullable=False),
    sa.Column("details", _Text),
    sa.Column("recorded_at_us", _Us, nullable=False),
    # Time of storing of the newest score under the row, not older than a minute; NULL before the first one. Retention
    # needs it, because scores have no index on their threshold.
    sa.Column("used_at_us", _Us),
    sa.Index("ix_thresholds_valid_from", "stream_id", "valid_from_us", "id"),
    sa.Index("ix_thresholds_model", "stream_id", "model_id", "valid_from_us"),
    sa.Index("ix_thresholds_computed", "stream_id", "computed_at_us"),
)

# On PostgreSQL `scores` has one more column in front, stored_day (days since 1970): the partition key and the first
# column of the primary key (partitions.py). These columns are common to both databases.
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("source_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("source_offset", _Us, primary_key=True, autoincrement=False),
    sa.Column("event_time_us", _Us, nullable=False),
    sa.Column("energy", sa.REAL, nullable=False),
    sa.Column("threshold_id", sa.Integer, nullable=False),
    sa.Column("stored_at_us", _Us, nullable=False),
    sa.Column("key", _Text),
    sa.Column("event_id", _Text),
    sqlite_with_rowid=False,
)

outliers = sa.Table(
    "outliers",
    metadata,
    sa.Column("source_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("source_offset", _Us, primary_key=True, autoincrement=False),
    sa.Column("event_time_us", _Us, nullable=False),
    sa.Column("energy", sa.REAL, nullable=False),
    sa.Column("threshold_id", sa.Integer, nullable=False),
    sa.Column("stored_at_us", _Us, nullable=False),
    sa.Column("key", _Text),
    sa.Column("event_id", _Text),
    sa.Column("features", _Text, nullable=False),
    sa.Column("trace_id", _Text),
    sa.Index("ix_outliers_event_time_us", "event_time_us"),
    sa.Index("ix_outliers_key", "key", "event_time_us"),
    sa.Index("ix_outliers_event_id", "event_id"),
    sqlite_with_rowid=False,
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("source_id", sa.Integer, nullable=False),
    sa.Column("source_offset", _Us, nullable=False),
    sa.Column("end_offset", _Us, nullable=False),
    sa.Column("count", _Us, nullable=False),
    sa.Column("reason", _Text, nullable=False),
    sa.Column("detail", _Text),
    sa.Column("payload", sa.LargeBinary),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sa.Index("ix_dead_letters_recorded", "source_id", "recorded_at_us"),
)

# The offsets and event times of consecutive commits of a source: readers of a time range select offsets by it.
commit_ranges = sa.Table(
    "commit_ranges",
    metadata,
    sa.Column("source_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first_offset", _Us, primary_key=True, autoincrement=False),
    sa.Column("last_offset", _Us, nullable=False),
    sa.Column("events", _Us, nullable=False),
    # Event times of the events that are not late, and apart from them of the late ones; NULL if there are none.
    sa.Column("min_time_us", _Us),
    sa.Column("max_time_us", _Us),
    sa.Column("min_late_us", _Us),
    sa.Column("max_late_us", _Us),
    sa.Column("stored_at_us", _Us, nullable=False),
    sa.Index("ix_commit_ranges_times", "source_id", "max_time_us", "min_time_us"),
    sqlite_with_rowid=False,
)
sa.Index(
    "ix_commit_ranges_wide",
    commit_ranges.c.source_id,
    commit_ranges.c.max_time_us,
    sqlite_where=sa.text(WIDE_RANGE),
    postgresql_where=sa.text(WIDE_RANGE),
)
sa.Index(
    "ix_commit_ranges_late",
    commit_ranges.c.source_id,
    commit_ranges.c.max_late_us,
    commit_ranges.c.min_late_us,
    sqlite_where=sa.text("max_late_us IS NOT NULL"),
    postgresql_where=sa.text("max_late_us IS NOT NULL"),
)

# The state of the keys of a source up to an offset: all keys (snapshot), or those that one commit changed.
key_states = sa.Table(
    "key_states",
    metadata,
    sa.Column("source_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("end_offset", _Us, primary_key=True, autoincrement=False),
    sa.Column("snapshot", sa.Boolean, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

window_parts = sa.Table(
    "window_parts",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("stream_id", sa.Integer, nullable=False),
    sa.Column("source_id", sa.Integer, nullable=False),
    sa.Column("window_start_us", _Us, nullable=False),
    sa.Column("window_end_us", _Us, nullable=False),
    sa.Column("threshold_id", sa.Integer),
    sa.Column("events", _Us, nullable=False),
    sa.Column("outliers", _Us, nullable=False),
    sa.Column("late", _Us, nullable=False),
    sa.Column("dead", _Us, nullable=False),
    # Records that the stream's filter left out: no events, no dead letters, no rows.
    sa.Column("filtered", _Us, nullable=False, server_default="0"),
    # How late the late events are in seconds: the sum, and the largest.
    sa.Column("late_sum_s", _Us, nullable=False, server_default="0"),
    sa.Column("late_max_s", _Us, nullable=False, server_default="0"),
    sa.Column("payload", sa.LargeBinary),
    # Offsets of the first and last event that is not late: the range of the window in the log.
    sa.Column("first_offset", _Us),
    sa.Column("last_offset", _Us),
    # A sample of the events that are not late, with their features; it moves to `window_samples` at judging.
    sa.Column("sample", sa.LargeBinary),
    sa.Index("ix_window_parts_due", "stream_id", "window_end_us", "window_start_us"),
)

windows = sa.Table(
    "windows",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("window_start_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("window_end_us", _Us, nullable=False),
    _foreign_key_column("threshold_id", "thresholds.id", nullable=True),
    sa.Column("events", _Us, nullable=False),
    sa.Column("outliers", _Us, nullable=False),
    sa.Column("late", _Us, nullable=False),
    sa.Column("dead", _Us, nullable=False),
    sa.Column("filtered", _Us, nullable=False, server_default="0"),
    sa.Column("expected", _Double),
    sa.Column("p_value", _Double),
    sa.Column("energy_p50", _Double),
    sa.Column("energy_p99", _Double),
    sa.Column("energy_max", _Double),
    sa.Column("payload", sa.LargeBinary),
    sa.Column("details", _Text),
    sa.Column("judged_at_us", _Us),
    # Time at which a user accepted the window as normal: it counts in the look-back despite its incidents.
    sa.Column("adopted_at_us", _Us),
    # The smallest number of outliers at which the window is a spike; NULL without events and for older windows.
    sa.Column("fires_at", _Us),
    sa.Index("ix_windows_judged", "stream_id", "judged_at_us"),
    sa.Index("ix_windows_threshold_id", "threshold_id"),
)

# Sums over the windows that start in an interval of 15 minutes or 6 hours, for charts of long times. `end_us` is the
# end of the last of these windows. An interval without windows has no row.
window_rollups = sa.Table(
    "window_rollups",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("resolution_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("start_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("end_us", _Us, nullable=False),
    # Judged windows, and those of them with an alarm.
    sa.Column("windows", _Us, nullable=False),
    sa.Column("fired", _Us, nullable=False),
    sa.Column("events", _Us, nullable=False),
    sa.Column("outliers", _Us, nullable=False),
    sa.Column("late", _Us, nullable=False),
    sa.Column("dead", _Us, nullable=False),
    sa.Column("filtered", _Us, nullable=False),
    sa.Column("expected", _Double),
    # The most outliers of one window, the smallest number that is a spike in one, and the lowest p-value of one.
    sa.Column("most_outliers", _Us, nullable=False),
    sa.Column("fires_at", _Us),
    sa.Column("p_value", _Double),
    # Of all events that the newest model of the interval scored, and the version of this model.
    sa.Column("energy_p50", _Double),
    sa.Column("energy_p99", _Double),
    sa.Column("energy_max", _Double),
    sa.Column("model_version", sa.Integer),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sqlite_with_rowid=False,
)

# Samples of the events of judged windows, with their features: what a model is fitted on later.
window_samples = sa.Table(
    "window_samples",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("window_start_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("window_end_us", _Us, nullable=False),
    # The model that scored the window: its features are the columns of the sample.
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    # Number of events that the sample stands for.
    sa.Column("events", _Us, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Index("ix_window_samples_model_id", "model_id"),
)

# Keys whose events are usually outliers, by the event times for which they are expected.
habitual_keys = sa.Table(
    "habitual_keys",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("key", _Text, primary_key=True),
    sa.Column("since_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("until_us", _Us, nullable=False),
    sa.Column("rate", _Double, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("accepted_by", _Text),
    sa.Column("accepted_at_us", _Us),
    sa.Column("recorded_at_us", _Us, nullable=False),
)

incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("kind", _Text, nullable=False),
    sa.Column("severity", _Text, nullable=False),
    sa.Column("status", _Text, nullable=False),
    sa.Column("window_start_us", _Us, nullable=False),
    sa.Column("opened_at_us", _Us, nullable=False),
    sa.Column("resolved_at_us", _Us),
    sa.Column("last_told_us", _Us, nullable=False),
    sa.Column("clean_windows", _Us, nullable=False),
    sa.Column("windows_fired", _Us, nullable=False),
    sa.Column("summary", _Text, nullable=False),
    sa.Column("details", _Text),
    # Event time up to which a user accepted the incident's windows as normal.
    sa.Column("accepted_at_us", _Us),
    # A person who takes care of the incident. `acknowledged_until_us` is an event time; NULL ends the acknowledgement.
    sa.Column("acknowledged_at_us", _Us),
    sa.Column("acknowledged_by", _Text),
    sa.Column("acknowledged_until_us", _Us),
    # The judgement of a person: `accepted`, `false_alarm` or `confirmed`.
    sa.Column("verdict", _Text),
    # A finding of the same kind before this event time opens the resolved incident again; NULL: it stays resolved.
    sa.Column("reopen_until_us", _Us),
    # Share of each feature in the latest finding (JSON, of length 1), for the search of similar incidents.
    sa.Column("contributions", _Text),
)
sa.Index(
    "uq_incidents_open",
    incidents.c.stream_id,
    incidents.c.kind,
    unique=True,
    sqlite_where=sa.text("status = 'open'"),
    postgresql_where=sa.text("status = 'open'"),
)
sa.Index("ix_incidents_opened", incidents.c.stream_id, incidents.c.opened_at_us)
# Partial, since SQLite otherwise prefers it to the index of open incidents.
sa.Index(
    "ix_incidents_reopen",
    incidents.c.stream_id,
    incidents.c.reopen_until_us,
    sqlite_where=sa.text("reopen_until_us IS NOT NULL"),
    postgresql_where=sa.text("reopen_until_us IS NOT NULL"),
)

# The verbs that people applied to incidents (audit). `before` and `after` are the state of the incident, `effects` are
# the changes of the calibration (JSON). They act on the windows that end after `judged_until_us` and on the ticks
# after `tick_us`.
incident_verbs = sa.Table(
    "incident_verbs",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _foreign_key_column("incident_id", "incidents.id"),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("verb", _Text, nullable=False),
    sa.Column("who", _Text, nullable=False),
    sa.Column("note", _Text),
    sa.Column("at_us", _Us, nullable=False),
    sa.Column("judged_until_us", _Us),
    sa.Column("tick_us", _Us),
    sa.Column("before", _Text, nullable=False),
    sa.Column("after", _Text, nullable=False),
    sa.Column("effects", _Text, nullable=False),
    sa.Index("ix_incident_verbs_incident_id", "incident_id"),
    sa.Index("ix_incident_verbs_stream", "stream_id", "at_us"),
)

# Messages that a person does not want: NULL columns match everything. Times are those of the database's clock.
mutes = sa.Table(
    "mutes",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("stream", _Text),
    sa.Column("kind", _Text),
    sa.Column("key", _Text),
    _foreign_key_column("incident_id", "incidents.id", nullable=True),
    sa.Column("starts_at_us", _Us, nullable=False),
    sa.Column("ends_at_us", _Us, nullable=False),
    # Weekly window in the time zone of the stream, such as `sat 22:00 - sun 06:00`; NULL: the whole time.
    sa.Column("weekly", _Text),
    sa.Column("who", _Text, nullable=False),
    sa.Column("note", _Text),
    sa.Column("held_back", _Us, nullable=False, server_default="0"),
    sa.Column("created_at_us", _Us, nullable=False),
    sa.Index("ix_mutes_ends_at_us", "ends_at_us"),
    sa.Index("ix_mutes_incident_id", "incident_id"),
)

transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _foreign_key_column("incident_id", "incidents.id"),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("transition", _Text, nullable=False),
    sa.Column("window_start_us", _Us, nullable=False),
    sa.Column("at_us", _Us, nullable=False),
    sa.Column("summary", _Text, nullable=False),
    sa.Column("details", _Text),
    sa.Column("recorded_at_us", _Us, nullable=False),
    # Severity of the incident at the transition: it may escalate later, but a message is the same at every attempt.
    sa.Column("severity", _Text),
    sa.UniqueConstraint("incident_id", "transition", "window_start_us"),
)

notifications = sa.Table(
    "notifications",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    _foreign_key_column("incident_id", "incidents.id"),
    _foreign_key_column("transition_id", "transitions.id"),
    sa.Column("channel", _Text, nullable=False),
    sa.Column("state", _Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_attempt_at_us", _Us),
    sa.Column("last_error", _Text),
    sa.Column("created_at_us", _Us, nullable=False),
    sa.Column("delivered_at_us", _Us),
    # The reason of the last failed attempt: a word of a closed set; NULL if there is none.
    sa.Column("reason", _Text),
    # The first message of those that are sent as one; NULL for a message of its own.
    sa.Column("group_id", _Text),
    sa.Index("ix_notifications_incident_id", "incident_id"),
    sa.Index("ix_notifications_transition_id", "transition_id"),
)
# A channel's sender reads the oldest pending notification every second.
sa.Index(
    "ix_notifications_channel",
    notifications.c.channel,
    notifications.c.transition_id,
    sqlite_where=sa.text("state = 'pending'"),
    postgresql_where=sa.text("state = 'pending'"),
)
# A level-triggered channel reads the recently delivered notifications.
sa.Index(
    "ix_notifications_delivered",
    notifications.c.channel,
    notifications.c.delivered_at_us,
    sqlite_where=sa.text("delivered_at_us IS NOT NULL"),
    postgresql_where=sa.text("delivered_at_us IS NOT NULL"),
)
sa.Index(
    "ix_notifications_pending",
    notifications.c.next_attempt_at_us,
    sqlite_where=sa.text("state = 'pending'"),
    postgresql_where=sa.text("state = 'pending'"),
)

# The message of an incident in a chat that changes it at each transition, instead of posting another one.
posted_messages = sa.Table(
    "posted_messages",
    metadata,
    sa.Column("channel", _Text, primary_key=True),
    sa.Column("incident_id", sa.ForeignKey("incidents.id"), primary_key=True, autoincrement=False),
    # The place as configured: another place gets a message of its own.
    sa.Column("target", _Text, nullable=False),
    # The place and the message as the chat names them.
    sa.Column("place", _Text, nullable=False),
    sa.Column("reference", _Text, nullable=False),
    # The last notification that was delivered into the message: it is not repeated.
    sa.Column("notification_id", _Text, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sa.Index("ix_posted_messages_incident_id", "incident_id"),
)

# Signed links that have acted. A link acts once; it cannot be used after its expiry.
used_links = sa.Table(
    "used_links",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    sa.Column("used_at_us", _Us, nullable=False),
    sa.Column("expires_at_us", _Us, nullable=False),
    sa.Index("ix_used_links_expires_at_us", "expires_at_us"),
)

gaps = sa.Table(
    "gaps",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _foreign_key_column("source_id", "sources.id"),
    sa.Column("from_offset", _Us, nullable=False),
    sa.Column("to_offset", _Us, nullable=False),
    sa.Column("reason", _Text, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sa.Column("event_time_us", _Us),
    _foreign_key_column("incident_id", "incidents.id", nullable=True),
    sa.Index("ix_gaps_source_id", "source_id"),
    sa.Index("ix_gaps_incident_id", "incident_id"),
)

# A model that scores beside the active one, with its own threshold; it flags no outliers and opens no incidents.
shadows = sa.Table(
    "shadows",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True, autoincrement=False),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("percentile", _Double, nullable=False),
    sa.Column("threshold", _Double, nullable=False),
    sa.Column("since_us", _Us, nullable=False),
    # Event time from which the daemon decides on the promotion; NULL leaves the decision to the user.
    sa.Column("due_us", _Us),
    sa.Column("ended", sa.Boolean, nullable=False),
    sa.Column("verdict", _Text),
)

shadow_parts = sa.Table(
    "shadow_parts",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("stream_id", sa.Integer, nullable=False),
    sa.Column("model_id", sa.Integer, nullable=False),
    sa.Column("window_start_us", _Us, nullable=False),
    sa.Column("window_end_us", _Us, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    # Outliers of both models; NULL for parts of older versions.
    sa.Column("outliers_of_both", _Us),
    sa.Index("ix_shadow_parts_due", "stream_id", "window_end_us"),
)

shadow_windows = sa.Table(
    "shadow_windows",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True, autoincrement=False),
    sa.Column("window_start_us", _Us, primary_key=True, autoincrement=False),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("window_end_us", _Us, nullable=False),
    sa.Column("events", _Us, nullable=False),
    sa.Column("outliers", _Us, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("outliers_of_both", _Us),
)

# The refits of a stream: one row for each event time at which one was due, with what became of it.
refits = sa.Table(
    "refits",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("due_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("state", _Text, nullable=False),
    # The fitted model. NULL without one, and after retention has deleted it.
    _foreign_key_column("model_id", "models.id", nullable=True),
    # Event time from which the gate decides whether the model becomes active.
    sa.Column("gate_us", _Us),
    sa.Column("details", _Text),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sa.Index("ix_refits_model_id", "model_id"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", _Text, primary_key=True),
    sa.Column("holder", _Text, nullable=False),
    sa.Column("expires_at_us", _Us, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("name", _Text, primary_key=True),
    sa.Column("succeeded_at_us", _Us),
    sa.Column("failed_at_us", _Us),
    sa.Column("last_error", _Text),
)

calibrations = sa.Table(
    "calibrations",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("at_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("promised_per_week", _Double),
    sa.Column("realised_per_week", _Double),
    sa.Column("windows_learned", _Us),
    sa.Column("dispersion", _Double),
    sa.Column("exceedance", _Double),
    sa.Column("state", _Text, nullable=False),
    sa.Column("recorded_at_us", _Us),
    # Verdicts on the incidents of the last 28 days that share the budget, and the precision with its 95% interval.
    sa.Column("true_alarms", _Us),
    sa.Column("false_alarms", _Us),
    sa.Column("without_verdict", _Us),
    sa.Column("precision", _Double),
    sa.Column("precision_lower", _Double),
    sa.Column("precision_upper", _Double),
)

accepted_references = sa.Table(
    "accepted_references",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _foreign_key_column("stream_id", "streams.id"),
    _foreign_key_column("model_id", "models.id"),
    _foreign_key_column("incident_id", "incidents.id"),
    # Energies of the look-back that a user accepted as normal. They replace the model's reference: float32, ascending.
    sa.Column("energies", sa.LargeBinary, nullable=False),
    sa.Column("at_us", _Us, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
    # Time at which a later verb took the acceptance back; the reference before it is used again.
    sa.Column("withdrawn_at_us", _Us),
    sa.Index("ix_accepted_references_model_id", "model_id"),
    sa.Index("ix_accepted_references_incident_id", "incident_id"),
)

# Per stream: the event time up to which drift is judged, the earliest start of its baseline, and its state (JSON).
drift_marks = sa.Table(
    "drift_marks",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("until_us", _Us),
    sa.Column("rebased_from_us", _Us),
    sa.Column("state", _Text),
)

# The frozen baseline of a horizon. `season` was true for baselines that revision 0010 has deleted; it is always false.
drift_bases = sa.Table(
    "drift_bases",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("horizon_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("season", sa.Boolean, primary_key=True, autoincrement=False),
    sa.Column("from_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("until_us", _Us, nullable=False),
    sa.Column("base", _Text, nullable=False),
)

# The sums of a whole local day since the start of the base; `hours` is the number of its hours with events.
drift_days = sa.Table(
    "drift_days",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("base_from_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("start_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("end_us", _Us, nullable=False),
    sa.Column("events", _Us, nullable=False),
    sa.Column("outliers", _Us, nullable=False),
    sa.Column("fired", sa.Boolean, nullable=False),
    sa.Column("hours", sa.Integer, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)

drift_verdicts = sa.Table(
    "drift_verdicts",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    _foreign_key_column("stream_id", "streams.id"),
    sa.Column("horizon", _Text, nullable=False),
    sa.Column("window_start_us", _Us, nullable=False),
    sa.Column("window_end_us", _Us, nullable=False),
    sa.Column("statistic", _Text, nullable=False),
    # '' if the statistic belongs to the whole stream: a unique key does not cover NULL.
    sa.Column("feature", _Text, nullable=False, server_default=""),
    sa.Column("before", _Double),
    sa.Column("after", _Double),
    sa.Column("effect", _Double),
    sa.Column("z", _Double),
    sa.Column("limit", _Double),
    sa.Column("drifted", sa.Boolean, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sa.UniqueConstraint("stream_id", "horizon", "window_end_us", "statistic", "feature"),
)

# The names of the statistics of a model (JSON list of statistic and feature), in the order of `drift_cells.payload`.
drift_cell_names = sa.Table(
    "drift_cell_names",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True, autoincrement=False),
    sa.Column("statistics", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("names", _Text, nullable=False),
)

# All statistics of one tested horizon: z, effect, mean before and after as float16, one array after the other.
drift_cells = sa.Table(
    "drift_cells",
    metadata,
    sa.Column("stream_id", sa.ForeignKey("streams.id"), primary_key=True, autoincrement=False),
    sa.Column("horizon_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("window_end_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("window_start_us", _Us, nullable=False),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("statistics", sa.Integer, nullable=False),
    sa.Column("limit", _Double, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sa.Index("ix_drift_cells_model_id", "model_id"),
    sqlite_with_rowid=False,
)

# The distribution of each feature of a model among its training events (`kind` is `training`), and among the events of
# the base of a horizon (`base`), as quantiles. The distribution in a horizon comes from `window_samples`.
feature_summaries = sa.Table(
    "feature_summaries",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True, autoincrement=False),
    sa.Column("kind", _Text, primary_key=True),
    sa.Column("horizon_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("from_us", _Us, primary_key=True, autoincrement=False),
    sa.Column("until_us", _Us, nullable=False),
    # Number of the events that the quantiles come from.
    sa.Column("sampled", _Us, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at_us", _Us, nullable=False),
    sqlite_with_rowid=False,
)
