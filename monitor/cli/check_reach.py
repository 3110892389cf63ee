"""Lines of `outrider check` on the sizes of a stream and on the times after which its tests work as promised."""

from collections.abc import Iterator, Sequence

from config.auto_sizes import find_sizes, has_auto, with_sizes
from config.sizing import EventRate, EventVolume
from config.streams import StreamSettings
from consumers.source import PartitionInfo
from monitor.cli.check_sample import SampleReport
from monitor.cli.output.budget_text import (
    EXAMPLE_EVENT_COUNTS,
    describe_budget,
    nominal_count_model,
    small_reference_warning,
    suggest_window_size,
)
from monitor.cli.output.reach_text import Milestone, find_milestones
from monitor.cli.output.season_text import describe_season
from monitor.thresholds.tick import load_clean_rate, load_count_model
from storage.queries.status import StreamStatus


def preview_sizes(
    stream_settings: StreamSettings, sample: SampleReport | None, partitions: Sequence[PartitionInfo]
) -> tuple[StreamSettings, str | None]:
    """Return the settings with the values that `auto` would have by a sample, and a line that tells them."""
    if not has_auto(stream_settings):
        return stream_settings, None
    rate = known_rate(stream_settings, None, sample)
    if rate is None:
        return stream_settings, "auto: the first model finds the values, from the rate of the first events"
    usable = 1.0 if sample is None or not sample.n_records else 1 - sample.n_rejected / sample.n_records
    volume = EventVolume(
        available=int(usable * sum(each.end - each.begin for each in partitions)),
        grows=stream_settings.source.type != "file",
        rate=rate,
    )
    found = find_sizes(stream_settings, volume, len(sample.features) if sample is not None else 1)
    values = ", ".join(f"{key} {value}" for key, value in found.items())
    return with_sizes(stream_settings, found), f"auto: by this sample {values}; the first model finds and stores them"


def known_rate(
    stream_settings: StreamSettings, status: StreamStatus | None, sample: SampleReport | None
) -> EventRate | None:
    """Return the rate of a stream: that of its judged windows, of a sample, or of the synthetic source."""
    if status is not None and status.events_per_window:
        rate_s = status.events_per_window / (status.window_size_us / 1e6)
        return EventRate(median_s=rate_s, mean_s=rate_s)
    if stream_settings.source.type == "synthetic":
        return EventRate(median_s=stream_settings.source.rate, mean_s=stream_settings.source.rate)
    return None if sample is None else sample.rate


def budget_lines(stream_settings: StreamSettings, status: StreamStatus | None, rate: EventRate | None) -> Iterator[str]:
    """Describe the false-alarm budget in counts for the usual window, or for example sizes if the rate is not known."""
    threshold = None if status is None else status.threshold
    count_model = nominal_count_model(stream_settings) if threshold is None else load_count_model(threshold.details)
    clean_rate = count_model.rate if threshold is None else load_clean_rate(threshold.details)
    typical_events = None if status is None else status.events_per_window
    expected = None if rate is None else max(1, round(rate.median_s * stream_settings.window.size.total_seconds()))
    usual = expected if typical_events is None else typical_events
    counts = EXAMPLE_EVENT_COUNTS if usual is None else (usual,)
    yield from describe_budget(count_model, counts, stream_settings, clean_rate)
    season = describe_season(threshold, stream_settings.threshold.season)
    if season is not None:
        yield f"  season: {season}"
    hint = suggest_window_size(count_model, counts[-1], stream_settings)
    if hint is not None:
        yield f"  {hint}"
    warning = small_reference_warning(stream_settings) if threshold is None else None
    if warning is not None:
        yield f"  {warning}"
    if typical_events is None and stream_settings.source.type != "synthetic":
        which = "examples of events per window" if usual is None else "the events of a window at the rate of the sample"
        yield f"  (no window has been judged yet: these are {which})"


def find_reach(stream_settings: StreamSettings, status: StreamStatus | None, rate: EventRate | None) -> list[Milestone]:
    """Return what the stream reaches, and what its settings never reach."""
    threshold = None if status is None else status.threshold
    count_model = nominal_count_model(stream_settings) if threshold is None else load_count_model(threshold.details)
    return list(find_milestones(stream_settings, None if rate is None else rate.mean_s, count_model))


def closing_lines(never: dict[str, list[str]], *, offline: bool) -> Iterator[str]:
    """Yield the last lines: whether the checks passed, and what the settings of each stream never reach."""
    result = "The settings are valid; no connection was made." if offline else "All checks passed."
    if not never:
        yield result
        return
    yield result.removesuffix(".") + ", but some things are never reached with these settings:"
    yield from (f"  stream {stream}: {', '.join(names)} (see above)" for stream, names in never.items())
