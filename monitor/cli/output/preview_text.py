"""Text of the preview of a verb. Pure."""

from collections.abc import Iterator

from config.number_format import format_together
from config.time_format import format_time
from monitor.control_plane.preview import SameWindow, VerbPreview
from monitor.incidents.accepted_keys import describe_key_acceptance
from monitor.incidents.verbs import WALL_CLOCK_KINDS
from storage.control.thresholds import ThresholdRow
from storage.control.verbs import Basis, VerbPlan

_DIGITS = 4


def format_basis(basis: Basis) -> str:
    """Return a basis as text: its tick and its revision."""
    return f"{'-' if basis.tick_us is None else format_time(basis.tick_us)}/{basis.revision}"


def format_preview(preview: VerbPreview, verb: str, key: str | None = None) -> str:
    """Return what a verb would change, with its basis; with `key`, what the acceptance of that key would."""
    incident = preview.facts.incident
    name = f"incident {incident.id} ({incident.kind.replace('_', ' ')} on {preview.facts.stream})"
    if key is not None:
        name = f"key {key} of {name}"
    if preview.plan is None:
        return f"{verb.replace('_', '-')} has been applied to {name} already: nothing would change."
    lines = [f"{verb.replace('_', '-')} on {name} would change:"]
    lines += [f"  {line}" for line in _changes(preview, preview.plan)]
    return "\n".join([*lines, f"Basis: {format_basis(preview.basis)} (tick / revision). Nothing was changed."])


def _changes(preview: VerbPreview, plan: VerbPlan) -> Iterator[str]:
    before, after = preview.facts.incident, plan.incident_row
    yield from _describe_keys(plan)
    if before.status != after.status:
        yield f"the incident is {after.status}"
    if before.acknowledged_until_us is None and after.acknowledged_until_us is not None:
        yield f"it is acknowledged by {plan.who} until {format_time(after.acknowledged_until_us)}"
    if preview.facts.verdict != plan.verdict:
        yield f"its verdict is {plan.verdict or 'withdrawn'}"
    message = "no message" if after.transition is None else f"the message `{after.transition.type}`"
    yield f"{message} is stored"
    if not plan.changes_calibration:
        yield "the calibration does not change"
        return
    if preview.facts.incident.kind not in WALL_CLOCK_KINDS:
        yield _describe_windows(preview.windows, plan)
    if preview.stored is not None and preview.computed is not None:
        yield _describe_threshold(preview.stored, preview.computed)
    else:
        yield "the threshold cannot be previewed: the last two thresholds are not of one model and of the last tick"
    if plan.acceptance is not None and plan.acceptance.rebase_from_us is not None:
        yield f"the drift baseline starts again at {format_time(plan.acceptance.rebase_from_us)}"
    if preview.same_window is not None:
        yield _describe_same_window(preview.same_window, plan)


def _describe_keys(plan: VerbPlan) -> Iterator[str]:
    for row in () if plan.keys is None else plan.keys.rows:
        if row.accepted_by is None:
            yield f"the habit of key {row.key} ends at {format_time(row.until_us)}, since its acceptance is withdrawn"
        else:
            yield describe_key_acceptance(row.key, row.rate)


def _describe_windows(windows: int, plan: VerbPlan) -> str:
    counted = "1 window counts" if windows == 1 else f"{windows:,} windows count"
    return f"{counted} {'again' if plan.windows else 'no longer'} in the calibration from the next tick on"


def _describe_threshold(stored: ThresholdRow, computed: ThresholdRow) -> str:
    before, value, lower, upper = format_together(
        (stored.threshold, computed.threshold, computed.lower, computed.upper), _DIGITS
    )
    if stored.threshold == computed.threshold:
        return f"the threshold of the last tick stays at {value} ({lower} to {upper})"
    return f"the threshold of the last tick moves from {before} to {value} ({lower} to {upper})"


def _describe_same_window(window: SameWindow, plan: VerbPlan) -> str:
    text = (
        f"{window.outliers_after:,} of the {window.events:,} events of its window of "
        f"{format_time(window.window_start_us)} would be outliers ({window.outliers_before:,} were)"
    )
    if not window.fires:
        return f"{text}: the same window would not fire again (it fires with {window.fires_at:,} outliers)"
    if plan.acceptance is not None and plan.acceptance.rate_until_us is not None:
        until = format_time(plan.acceptance.rate_until_us)
        return f"{text}: their rate is normal until {until}; this does not make such events normal; a refit would"
    return f"{text}: the same window would fire again; this does not make such events normal; a refit would"
