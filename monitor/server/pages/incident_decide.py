"""The verbs on an incident, each with what it will change beside its button. Pure."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from config.errors import ConfigError
from monitor.control_plane.preview import SameWindow, VerbPreview
from monitor.incidents.accepted_keys import list_acceptable_keys
from monitor.incidents.verbs import VERB_TABLE, WALL_CLOCK_KINDS, Verb, VerbRefused, allowed_verbs, state_of
from monitor.server.pages.formats import clock, plural, together
from storage.control.thresholds import ThresholdRow
from storage.control.verbs import Basis, VerbFacts, VerbPlan

LABELS: Mapping[Verb, str] = {
    Verb.ACKNOWLEDGE: "Acknowledge",
    Verb.CONFIRM: "True alarm",
    Verb.FALSE_ALARM: "False alarm",
    Verb.ACCEPT: "This is normal now",
    Verb.RESOLVE: "Resolve",
    Verb.REOPEN: "Reopen",
}
"""The text of the button of each verb, in the order of the page."""

REASONS = ("known campaign", "test traffic", "wrong data", "maintenance", "too small to matter")
"""Reasons for a false alarm to choose from; any other is typed."""

_GIVEN: Mapping[Verb, str] = {
    Verb.ACKNOWLEDGE: "It is acknowledged.",
    Verb.CONFIRM: "This is its verdict.",
    Verb.FALSE_ALARM: "This is its verdict.",
    Verb.ACCEPT: "This is its verdict.",
    Verb.RESOLVE: "It is resolved.",
    Verb.REOPEN: "It is open again.",
}
_KEEPS = "Threshold and windows stay as they are."


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The change of the calibration, as a table: value now and afterwards."""

    sentence: str
    rows: Sequence[tuple[str, str, str]]
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One verb with its button.

    Attributes:
        verb: Name of the verb.
        label: Text of the button.
        is_main: Whether this is the one blue button.
        effects: Sentences about what it will change.
        refused: The reason for which it cannot be pressed, or None.
        change: The change of the calibration, or None.
        has_reason: Whether a reason can be given.
        key: The key that it accepts; None for a verb on the incident.
    """

    verb: str
    label: str
    is_main: bool
    effects: Sequence[str]
    refused: str | None
    change: Change | None
    has_reason: bool
    key: str | None = None

    @property
    def anchor(self) -> str:
        """Return the part of the identifiers of its form that no other choice has."""
        return self.verb if self.key is None else f"{self.verb}-key-{self.key}"


def preview_key(facts: VerbFacts, verb: Verb, who: str) -> Hashable:
    """Return the facts that a preview of a verb depends on: it is computed again only if the stream has changed."""
    incident = facts.incident
    state = (incident.status, incident.acknowledged_until_us, facts.verdict, facts.last_verb)
    return (incident.id, verb, who, facts.basis, facts.last_judged_window, *state)


def list_verbs(facts: VerbFacts) -> list[Verb]:
    """Return the verbs of the table for the state of an incident, in the order of the page."""
    names = allowed_verbs(facts.incident.kind, state_of(facts.incident))
    return [verb for verb in LABELS if verb.value.replace("_", "-") in names]


def build_choice(
    facts: VerbFacts, verb: Verb, preview: Callable[[Verb], VerbPreview], beside_us: int, repeat_due_us: int | None
) -> Choice:
    """Return a verb with what it will change.

    Args:
        facts: The incident and the state of its stream.
        verb: The verb.
        preview: Returns the preview of a verb; may raise `VerbRefused` or `ConfigError`.
        beside_us: The present, whose day needs no date.
        repeat_due_us: The time of the next repeated message, or None.
    """
    effects: list[str] = []
    refused, change = None, None
    try:
        found = preview(verb)
        if found.plan is None:
            refused = _GIVEN[verb]
        else:
            effects = _describe_effects(verb, found, found.plan, beside_us, repeat_due_us)
            change = _describe_change(found, found.plan, beside_us)
    except (VerbRefused, ConfigError) as error:
        refused = f"Not possible: {error}."
    is_first = verb is (
        Verb.ACKNOWLEDGE if (Verb.ACKNOWLEDGE, state_of(facts.incident)) in VERB_TABLE else Verb.CONFIRM
    )
    return Choice(
        verb=verb.value,
        label=LABELS[verb],
        is_main=is_first and refused is None,
        effects=effects,
        refused=refused,
        change=change,
        has_reason=verb is Verb.FALSE_ALARM,
    )


def build_key_choices(facts: VerbFacts) -> list[Choice]:
    """Return a button for each habitual key of an incident that no person has accepted."""
    return [
        Choice(
            verb=Verb.ACCEPT.value,
            label=f"Key {key} is normal",
            is_main=False,
            effects=[
                "Its events usually are outliers, and are expected for 28 days. They are expected for as long as their "
                "rate remains. A higher rate is still told. The incident stays as it is."
            ],
            refused=None,
            change=None,
            has_reason=False,
            key=key,
        )
        for key in list_acceptable_keys(facts)
    ]


def write_basis(basis: Basis) -> str:
    """Return a basis as the value of a hidden field."""
    return f"{'-' if basis.tick_us is None else basis.tick_us}/{basis.revision}"


def read_basis(text: str) -> Basis:
    """Return the basis of a hidden field.

    Raises:
        ConfigError: The text has another form.
    """
    tick, _, revision = text.partition("/")
    try:
        return Basis(tick_us=None if tick == "-" else int(tick), revision=int(revision))
    except ValueError:
        raise ConfigError("the form has no valid basis; open the incident again") from None


def describe_basis(basis: Basis, beside_us: int) -> str:
    """Return a basis in words."""
    tick = "no tick yet" if basis.tick_us is None else f"tick {clock(basis.tick_us, beside_us=beside_us)}"
    return f"{tick}, revision {basis.revision}"


def _describe_effects(
    verb: Verb, preview: VerbPreview, plan: VerbPlan, beside_us: int, repeat_due_us: int | None
) -> list[str]:
    if verb is Verb.ACKNOWLEDGE:
        until = plan.incident_row.acknowledged_until_us
        due = "" if repeat_due_us is None else f" (next one due {clock(repeat_due_us, beside_us=beside_us)})"
        end = "" if until is None else f" until {clock(until, beside_us=beside_us)}, then reminds you"
        return [
            f"Stops the repeats{due}{end}. A higher severity is still told. Threshold and windows stay as they are."
        ]
    said = []
    ends = preview.facts.incident.status == "open" and plan.incident_row.status != "open"
    if verb is Verb.CONFIRM:
        said.append("Counts as a true alarm in the precision of the stream.")
    elif verb is Verb.FALSE_ALARM:
        said.append(
            "Counts as a false alarm in the precision of the stream" + (", and ends the incident." if ends else ".")
        )
    elif verb is Verb.RESOLVE:
        said.append("Ends the incident without a verdict.")
    elif verb is Verb.REOPEN:
        said.append("Opens the incident again, and takes back its verdict.")
    elif ends:
        said.append("Ends the incident.")
    if plan.acceptance is not None and plan.acceptance.rebase_from_us is not None:
        said.append(f"The drift baseline starts again at {clock(plan.acceptance.rebase_from_us, beside_us=beside_us)}.")
    said.append(_describe_windows(preview, plan))
    return said


def _describe_windows(preview: VerbPreview, plan: VerbPlan) -> str:
    if not plan.changes_calibration or preview.facts.incident.kind in WALL_CLOCK_KINDS:
        return _KEEPS
    if not preview.windows:
        return "No window changes its place in the calibration."
    verb = "counts" if preview.windows == 1 else "count"
    return (
        f"{plural(preview.windows, 'window')} {verb} {'again' if plan.windows else 'no longer'} from the next tick on."
    )


def _describe_change(preview: VerbPreview, plan: VerbPlan, beside_us: int) -> Change | None:
    """Return the change of the threshold; None if nothing in the calibration moves."""
    stored, computed = preview.stored, preview.computed
    if stored is None or computed is None or (stored.threshold == computed.threshold and not preview.windows):
        return None
    before, after, lower, upper = together([stored.threshold, computed.threshold, computed.lower, computed.upper], 4)
    moves = f"moves from {before} to {after}" if stored.threshold != computed.threshold else f"stays at {before}"
    rows = [("Threshold, nats", before, after), ("Interval of it, 90%", _interval(stored), f"{lower} to {upper}")]
    window = preview.same_window
    if window is not None:
        at = clock(window.window_start_us, beside_us=beside_us)
        name = f"Outliers among the {window.events:,} events of {at}"
        rows.append((name, f"{window.outliers_before:,}", f"{window.outliers_after:,}"))
        fires = f"{'yes' if window.fires else 'no'}: it fires at {window.fires_at:,}"
        rows.append(("Such a window fires again", "yes", fires))
    return Change(
        sentence=f"The threshold {moves} nats ({lower} to {upper}).", rows=rows, advice=_advise(window, plan, beside_us)
    )


def _interval(row: ThresholdRow) -> str:
    lower, upper = together([row.lower, row.upper, row.threshold], 4)[:2]
    return f"{lower} to {upper}"


def _advise(window: SameWindow | None, plan: VerbPlan, beside_us: int) -> str:
    if window is None or not window.outliers_after:
        return ""
    if plan.acceptance is not None and plan.acceptance.rate_until_us is not None and window.fires:
        until = clock(plan.acceptance.rate_until_us, beside_us=beside_us)
        return f"Their rate is normal until {until}. It does not make such events normal; only a refit would."
    if window.fires:
        return "It does not make such events normal: the next such window would fire again. Only a refit would."
    return "It does not make such events normal: they stay outliers, but so many no longer fire."
