"""The active model beside a shadow model or candidate, and the gate between them. Pure, from stored facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from monitor.models.shadow_gate import (
    LIKELIHOOD_SLACK,
    MAX_FLAGGED_RATIO,
    MIN_CLEAN_WINDOWS,
    MIN_EXPECTED_OUTLIERS,
    MIN_REFIT_WINDOWS,
)
from monitor.server.pages.formats import ABSENT, number, plural, words
from monitor.server.pages.panels import PanelTable
from monitor.thresholds.percentile import exceedance
from storage.queries.model_facts import Agreement, ModelFacts
from storage.queries.stream_series import ThresholdStep

_Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRow:
    """A figure of both models."""

    name: str
    active: str
    other: str
    difference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTest:
    """A test of the gate: its figure, the figure that it needs, and whether it holds; None while it is open."""

    name: str
    seen: str
    needed: str
    holds: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The models of a stream for its page.

    Attributes:
        active: The active model; None before the first.
        other: The shadow model, else the newest model that is not active; None without one.
        rows: Figures of both.
        agreement: The flagged events of both; None without windows that both scored.
        jaccard: Share of the events that both flag among those that one flags, with its 95% interval.
        headline: The state of the models in a sentence.
        advice: What follows from it.
        tests: The tests of the gate of the other model.
        promote_refusal: The reason for which the other model cannot be promoted here; None if it can.
        former: The model that a roll-back makes active; None without one.
        table: The rows as a table.
    """

    active: ModelFacts | None
    other: ModelFacts | None
    rows: Sequence[SideRow]
    agreement: Agreement | None
    jaccard: tuple[float, float, float] | None
    headline: str
    advice: str
    tests: Sequence[GateTest]
    promote_refusal: str | None
    former: ModelFacts | None
    table: PanelTable


def build_sides(stream: str, models: Sequence[ModelFacts], step: ThresholdStep | None) -> Sides:
    """Return the models side by side.

    Args:
        stream: Name of the stream.
        models: The models, newest version first.
        step: The threshold in force.
    """
    active = next((model for model in models if model.state == "active"), None)
    others = [model for model in models if model.state != "active"]
    other = next((model for model in others if model.state == "shadow"), others[0] if others else None)
    rows = [] if active is None else _side_rows(active, other, step)
    agreement = None if other is None else other.agreement
    return Sides(
        active=active,
        other=other,
        rows=rows,
        agreement=agreement,
        jaccard=None if agreement is None else _jaccard(agreement),
        headline=f"{stream}: {_headline(active, other)}",
        advice=_advice(other),
        tests=[] if other is None else list_gate_tests(other, 99.5 if step is None else step.percentile),
        promote_refusal=None if active is None or other is None else _refuse_promotion(active, other),
        former=max(
            (model for model in others if model.state == "retired"),
            key=lambda model: (model.activated_us or 0, model.version),
            default=None,
        ),
        table=PanelTable(
            columns=("Figure", "Active", "Other", "Difference"),
            rows=[(row.name, row.active, row.other, row.difference) for row in rows],
        ),
    )


def _side_rows(active: ModelFacts, other: ModelFacts | None, step: ThresholdStep | None) -> list[SideRow]:
    gate = {} if other is None or other.gate is None else other.gate
    agreement = None if other is None else other.agreement
    return [
        SideRow(name="Kind", active=_kind(active), other=_kind(other), difference=""),
        SideRow(
            name="Mean energy of held-out training events, nats",
            active=_number(active.held_out_energy, 3),
            other=_number(None if other is None else other.held_out_energy, 3),
            difference="",
        ),
        SideRow(
            name="Energy of the same clean events, nats",
            active="",
            other="",
            difference=_difference(gate),
        ),
        SideRow(
            name="Threshold, nats",
            active=_number(None if step is None else step.threshold, 2),
            other=_number(None if other is None else other.shadow_threshold, 2),
            difference="not comparable",
        ),
        SideRow(
            name="Flags a day",
            active=_number(None if agreement is None else agreement.active_per_day, 0),
            other=_number(None if agreement is None else agreement.shadow_per_day, 0),
            difference="" if agreement is None else _signed(agreement.shadow_per_day - agreement.active_per_day, 0),
        ),
        SideRow(
            name="Clean windows that would fire",
            active="0",
            other=_number(gate.get("would_fire"), 0),
            difference="" if "may_fire" not in gate else f"at most {gate['may_fire']}",
        ),
        SideRow(name="Fitted on", active=_fitted(active), other=_fitted(other), difference=""),
    ]


def _difference(gate: Mapping[str, Any]) -> str:
    if "energy_difference" not in gate or "standard_error" not in gate:
        return ABSENT
    difference, reach = float(gate["energy_difference"]), _Z95 * float(gate["standard_error"])
    return f"{_signed(difference, 3)} ({_signed(difference - reach, 3)} to {_signed(difference + reach, 3)})"


def _kind(model: ModelFacts | None) -> str:
    if model is None:
        return ABSENT
    components = model.summary.get("n_components")
    return words(model.kind) + (f", {components} components" if components else "")


def _fitted(model: ModelFacts | None) -> str:
    events = None if model is None else model.summary.get("events")
    return ABSENT if events is None else plural(int(events), "event")


def _number(value: float | None, digits: int) -> str:
    return number(value, digits)


def _signed(value: float, digits: int) -> str:
    return ("+" if value > 0 else "") + number(value, digits)


def _jaccard(agreement: Agreement) -> tuple[float, float, float] | None:
    """Return the share of common flags with its 95% interval (Clopper and Pearson 1934)."""
    both, either = agreement.both, agreement.both + agreement.active_only + agreement.shadow_only
    if not either:
        return None
    low = float(special.betaincinv(both, either - both + 1, 0.025)) if both else 0.0
    high = float(special.betaincinv(both + 1, either - both, 0.975)) if both < either else 1.0
    return both / either, low, high


def _headline(active: ModelFacts | None, other: ModelFacts | None) -> str:
    if active is None:
        return "no model is active yet"
    text = f"model {active.version} is active"
    if other is None:
        return f"{text}, and there is no other"
    if other.state == "shadow":
        return f"{text}, model {other.version} is on trial beside it"
    if other.state == "candidate":
        return f"{text}, model {other.version} has not passed its gate"
    return f"{text}, model {other.version} was active before"


def _advice(other: ModelFacts | None) -> str:
    if other is None:
        return "A shadow model (outrider fit --shadow, or model.refit) would be compared here on the same events."
    if other.gate is None:
        return f"The gate has not judged model {other.version} yet."
    reason = str(other.gate.get("reason", ""))
    if other.gate.get("holds"):
        return f"The gate holds: {reason}."
    return f"The gate {'does not hold' if other.gate.get('holds') is False else 'waits'}: {reason}."


def _refuse_promotion(active: ModelFacts, other: ModelFacts) -> str | None:
    """Return the reason for which a model cannot be promoted without force."""
    if other.feature_names != active.feature_names:
        return "Refused: it has other features than the active model."
    if other.gate is not None and other.gate.get("holds") is False:
        return "Refused: its gate did not hold. Only outrider models promote --force overrides it."
    return None


def list_gate_tests(model: ModelFacts, percentile: float) -> list[GateTest]:
    """Return the tests of the gate of a model, with the figures of its last verdict.

    Args:
        model: A model that is or was a shadow model.
        percentile: The percentile of the stream.
    """
    gate: Mapping[str, Any] = model.gate or {}
    nominal = float(gate.get("nominal_share", exceedance(percentile)))
    windows = gate.get("clean_windows", 0 if model.agreement is None else model.agreement.windows)
    events = gate.get("events", 0 if model.agreement is None else model.agreement.events)
    # The gate of a refit decides on fewer windows.
    is_refit = gate.get("holds") is not None and windows < MIN_CLEAN_WINDOWS
    least = MIN_REFIT_WINDOWS if is_refit else MIN_CLEAN_WINDOWS
    tests = [
        GateTest(
            name="Clean windows scored",
            seen=number(windows),
            needed=f"{least} or more",
            holds=True if windows >= least else None,
        )
    ]
    if not is_refit:
        needed = round(MIN_EXPECTED_OUTLIERS / nominal)
        tests.append(
            GateTest(
                name="Clean events scored",
                seen=number(events),
                needed=f"{needed:,} or more",
                holds=True if events >= needed else None,
            )
        )
    share = gate.get("flagged_share")
    low, high = nominal / MAX_FLAGGED_RATIO, nominal * MAX_FLAGGED_RATIO
    tests.append(
        GateTest(
            name="Share that it flags",
            seen=ABSENT if share is None else f"{100 * share:.2f}%",
            needed=f"up to {100 * high:.2f}%" if is_refit else f"{100 * low:.2f} to {100 * high:.2f}%",
            holds=None if share is None else (is_refit or share >= low) and share <= high,
        )
    )
    fired, may_fire = gate.get("would_fire"), gate.get("may_fire")
    tests.append(
        GateTest(
            name="Clean windows that would fire",
            seen=number(fired),
            needed="1 and twice the budget" if may_fire is None else f"{may_fire} or fewer",
            holds=None if fired is None or may_fire is None else fired <= may_fire,
        )
    )
    difference, error = gate.get("energy_difference"), gate.get("standard_error")
    if difference is not None and error is not None:
        most = LIKELIHOOD_SLACK + 2 * error
        tests.append(
            GateTest(
                name="Mean energy not worse, nats",
                seen=_signed(difference, 3),
                needed=f"{number(float(np.round(most, 3)), 3)} or less",
                holds=difference <= most,
            )
        )
    return tests
