"""The preview of a verb: what it would change in the calibration, computed with the code of the tick.

The basis is the last tick and the revision of the stream. On this basis the tick, computed again after the verb, gives
the previewed threshold to the last bit. The next tick has further windows.
"""

from collections.abc import Callable
from dataclasses import dataclass

from config.stream_rules import RuleSchedule
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.kept_look_backs import KeptLookBacks
from monitor.control_plane.rule_reader import RuleReader
from monitor.control_plane.stores import ModelsProtocol
from monitor.control_plane.verbs import load_new_reference, needs_reference
from monitor.incidents.effective_threshold import apply_to_window
from monitor.incidents.key_energies import EnergiesUnderTest
from monitor.incidents.lifecycle import Kind
from monitor.incidents.spike import judge_spike
from monitor.incidents.verb_plan import VerbRequest, plan_verb
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.part_codec import decode_part
from monitor.statistics.sketch import summarise_energies
from monitor.thresholds.look_back import LookBack
from storage.control.preview import PreviewThresholdStore
from storage.control.thresholds import ThresholdRow
from storage.control.verbs import Basis, VerbFacts, VerbPlan
from storage.control.windows import WindowStore
from storage.database.engine import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class SameWindow:
    """The strangest window of an incident under the threshold of the preview.

    `outliers_before` of its `events` were outliers, `outliers_after` would be. A window fires with `fires_at` outliers,
    or by its largest energy; `fires` tells whether this window would.
    """

    window_start_us: int
    events: int
    outliers_before: int
    outliers_after: int
    fires_at: int
    fires: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbPreview:
    """What a verb would change.

    Attributes:
        facts: The incident, with the basis of the preview.
        plan: The rows that the verb would write; None if the verb is repeated and changes nothing.
        windows: Number of windows that would count again, or no longer.
        stored: The threshold of the last tick. None if there is none that could be computed again.
        computed: The threshold of the last tick with the verb. None if the verb does not change the calibration.
        same_window: The strangest window of the incident under `computed`, if its windows would count again.
    """

    facts: VerbFacts
    plan: VerbPlan | None
    windows: int = 0
    stored: ThresholdRow | None = None
    computed: ThresholdRow | None = None
    same_window: SameWindow | None = None

    @property
    def basis(self) -> Basis:
        """Return the state of the stream that the preview was computed from."""
        return self.facts.basis


def preview_verb(
    db: Database,
    facts: VerbFacts,
    request: VerbRequest,
    schedule: RuleSchedule,
    load_models: Callable[[], ModelsProtocol],
    *,
    now_us: int,
    look_backs: KeptLookBacks | None = None,
) -> VerbPreview:
    """Return what a verb would change; nothing is written.

    Args:
        db: The database.
        facts: The incident and the state of its stream.
        request: The verb.
        schedule: The rules of the stream over event time.
        load_models: Returns the models of the stream; called only if a threshold is computed.
        now_us: Time on the database's clock.
        look_backs: The kept look-backs, for a process that previews many verbs.

    Raises:
        VerbRefused: The verb is not allowed in the state of the incident, or not yet.
        ConfigError: The look-back has too few events for a reference.
    """
    rules = schedule.newest
    reference = load_new_reference(db, facts, rules) if needs_reference(facts, request) else None
    plan = plan_verb(facts, request, rules, reference, now_us=now_us)
    if plan is None or not plan.changes_calibration:
        return VerbPreview(facts=facts, plan=plan)
    store = PreviewThresholdStore(db, facts, plan)
    tick = store.last_tick()
    if tick is None or tick.tick_us != facts.basis.tick_us:
        return VerbPreview(facts=facts, plan=plan, windows=store.changed_windows)
    models = load_models()
    computed = recompute_tick(db, store, facts, schedule, models, look_backs)
    return VerbPreview(
        facts=facts,
        plan=plan,
        windows=store.changed_windows,
        stored=tick.stored,
        computed=computed,
        same_window=None
        if computed is None or not plan.windows
        else _find_same_window(store, facts, computed, schedule),
    )


def recompute_tick(
    db: Database,
    store: PreviewThresholdStore,
    facts: VerbFacts,
    schedule: RuleSchedule,
    models: ModelsProtocol,
    look_backs: KeptLookBacks | None = None,
) -> ThresholdRow | None:
    """Return the threshold of the last tick, computed again over the windows of a store; None if it cannot be."""
    tick = store.last_tick()
    if tick is None:
        return None
    plane = ControlPlane(
        schedule.newest,
        facts.stream_id,
        stores=ControlPlaneStores(windows=WindowStore(db), thresholds=store),
        models=models,
        now_us=lambda: tick.tick_us,
        renew=lambda: False,
        notify_sealed=lambda: None,
        rule_reader=RuleReader(schedule),
    )
    tick_facts = store.tick_facts(facts.stream_id)
    if look_backs is not None:
        rules = schedule.at(tick.tick_us)
        plane.carry_look_back(look_backs.copy_for(store, facts.stream_id, tick, tick_facts.acceptances, rules))
    row, _, _ = plane.compute_tick(tick_facts, tick.previous, tick.tick_us)
    return row


def _find_same_window(
    store: PreviewThresholdStore, facts: VerbFacts, computed: ThresholdRow, schedule: RuleSchedule
) -> SameWindow | None:
    """Return the window of a spike with the most outliers under a threshold; None for other kinds and old windows."""
    if facts.incident.kind != Kind.SPIKE or not store.fired:
        return None
    strangest = max(store.fired, key=lambda window: (window.outliers, -window.window_start_us))
    start_us = strangest.window_start_us
    end_us = start_us + schedule.at(start_us).size_us
    found = store.judged_windows(facts.stream_id, computed.model_id, start_us, end_us)
    if not found or found[0].window_start_us != start_us:
        return None
    threshold = apply_to_window(ThresholdInForce.from_row(computed, model_version=0), start_us, end_us, {})
    look_back = LookBack(threshold.scale)
    part = decode_part(found[0].payload)
    look_back.add(start_us, part)
    events, outliers = look_back.count_by_window([start_us], computed.threshold)
    energies = summarise_energies(part, threshold.scale)
    largest = None if energies is None else energies.maximum
    tests = judge_spike(
        threshold, int(events[0]), int(outliers[0]), EnergiesUnderTest(others=largest), schedule.at(start_us)
    )
    return SameWindow(
        window_start_us=start_us,
        events=int(events[0]),
        outliers_before=strangest.outliers,
        outliers_after=int(outliers[0]),
        fires_at=tests.count.fires_at,
        fires=tests.fires,
    )
