"""The first sentence of the overview. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.health.stream_health import HealthState, StreamHealth
from monitor.server.pages.formats import clock, plural, sentence, shorten_times, words
from monitor.server.pages.overview_rows import sort_problems

_WELL = frozenset({HealthState.WELL, HealthState.ENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewSentence:
    """The answer to "is all well?": `worst` names the stream that `problem` is about."""

    answer: str
    worst: str | None = None
    problem: str = ""
    incident_id: int | None = None
    detail: str = ""


def say_overview(streams: Sequence[StreamHealth]) -> OverviewSentence:
    """Return the first sentence for streams that are sorted worst first."""
    if not streams:
        return OverviewSentence(
            answer="No stream is stored yet.", detail="Start the daemon with `outrider run`; this page shows it then."
        )
    # Of streams that have ended, those with an open incident come first: the others need nobody.
    streams = sorted(streams, key=lambda each: each.state in _WELL and not each.problems)
    well = sum(each.state in _WELL and not each.problems for each in streams)
    learning = sum(each.state is HealthState.LEARNING for each in streams)
    answer = f"{well} of {plural(len(streams), 'stream')} {'is' if well == 1 else 'are'} well"
    if well == len(streams):
        answer = "The stream is well" if well == 1 else f"All {well} streams are well"
        if all(each.state is HealthState.ENDED for each in streams):
            answer = "The source has ended" if well == 1 else "All sources have ended"
    elif len(streams) == 1:
        answer = f"The stream is {'learning' if learning else 'not proven to be well'}"
    if learning and len(streams) > 1:
        answer += f", {learning} {'is' if learning == 1 else 'are'} learning"
    worst = streams[0]
    if worst.state is HealthState.LEARNING or not worst.problems:
        reason = f"{sentence(worst.reason or '')}."
        return OverviewSentence(answer=f"{answer}.", detail=reason if worst.reason and len(streams) == 1 else "")
    problem = sort_problems(worst)[0]
    since = "" if problem.since_us is None else f" since {clock(problem.since_us, beside_us=worst.now_us)}"
    if problem.incident_id is not None:
        what = f"has an open {words(problem.state)}{since}."
        count = sum(each.incident_id is not None for each in worst.problems)
        opened = "One incident is open" if count == 1 else f"{count:,} incidents are open"
        answer = answer if len(streams) > 1 else opened
    else:
        what = f"is {words(worst.state)}{since}."
    return OverviewSentence(
        answer=f"{answer}.",
        worst=worst.stream,
        problem=what,
        incident_id=problem.incident_id,
        detail=f"{sentence(shorten_times(problem.reason, beside_us=worst.now_us))}.",
    )
