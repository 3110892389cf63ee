"""Promotion and roll-back of models of configured streams: for the command line, the API and the page."""

import difflib

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError, ModelError
from config.settings import Settings
from monitor.daemon.rules import build_rule_schedule, build_stream_rules
from monitor.daemon.stored_sizes import follow_stored_sizes
from monitor.models.promotion import Promoter
from monitor.models.scoring import load_model
from monitor.models.shadow_gate import GateVerdict
from storage.control.models import ModelRecord, ModelStore
from storage.control.settings import SettingsStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdStore
from storage.database.engine import Database
from storage.queries.status import load_stream_ids


class UnknownModel(ConfigError):  # noqa: N818 - names the state, as its siblings do
    """The stream has no model of this version."""


def promote_version(db: Database, settings: Settings, stream: str, version: int, *, force: bool = False) -> ModelRecord:
    """Make a model the active one of a configured stream, from the next free window on.

    Args:
        db: The database.
        settings: All settings.
        stream: The stream.
        version: The version of the model.
        force: Promote it without a passed gate.

    Raises:
        UnknownModel: The stream has no such model.
        ModelError: It is active already, has other features, or does not pass the gate.
    """
    models = list_models(db, stream)
    chosen = _find_version(stream, version, models)
    _require_same_features(stream, chosen, models)
    if not force:
        _require_gate(db, settings, stream, chosen)
    return _build_promoter(db, settings, stream).promote(chosen.id)


def roll_back(db: Database, settings: Settings, stream: str) -> ModelRecord:
    """Make the previously active model of a configured stream active again.

    Raises:
        ConfigError: There is none.
    """
    retired = [model for model in list_models(db, stream) if model.state == "retired"]
    if not retired:
        raise ConfigError(f"stream {stream} has no previously active model to roll back to")
    before = max(retired, key=lambda model: (model.valid_from_us or 0, model.version))
    return _build_promoter(db, settings, stream).promote(before.id)


def list_models(db: Database, stream: str) -> list[ModelRecord]:
    """Return the models of a stream, oldest first; none of a stream that has never run."""
    stream_id = load_stream_ids(db).get(stream)
    return [] if stream_id is None else ModelStore(db).list(stream_id)


def _build_promoter(db: Database, settings: Settings, stream: str) -> Promoter:
    def reference(model_id: int) -> NDArray[np.float32]:
        return load_model(*ModelStore(db).load(model_id), "cpu").reference

    stream_id = load_stream_ids(db)[stream]
    rows = SettingsStore(db).read_rows(stream_id)
    return Promoter(
        build_stream_rules(follow_stored_sizes(db, settings), stream),
        stream_id,
        shadows=ShadowStore(db),
        models=ModelStore(db),
        thresholds=ThresholdStore(db),
        reference=reference,
        rules_at=build_rule_schedule(settings, stream, rows).at if rows else None,
    )


def evaluate_shadow(db: Database, settings: Settings, stream: str) -> GateVerdict:
    """Return the verdict of the gate on the shadow model of a stream, which must exist."""
    shadow = ShadowStore(db).current(load_stream_ids(db)[stream])
    assert shadow is not None, "a model in the state shadow has a shadow row"
    return _build_promoter(db, settings, stream).evaluate(shadow)


def _require_gate(db: Database, settings: Settings, stream: str, chosen: ModelRecord) -> None:
    """Check that a shadow model passes the gate, and store the verdict with the model.

    Raises:
        ModelError: The shadow model does not pass, or the candidate failed the gate earlier.
    """
    if chosen.state != "shadow":
        past_verdict = ShadowStore(db).verdicts(load_stream_ids(db)[stream]).get(chosen.id)
        if chosen.state == "candidate" and past_verdict is not None and past_verdict["holds"] is False:
            raise ModelError(
                f"model {chosen.version} of stream {stream} remains a candidate: {past_verdict['reason']} "
                "(--force promotes it anyway)"
            )
        return
    verdict = evaluate_shadow(db, settings, stream)
    ShadowStore(db).store_verdict(chosen.id, {"holds": verdict.holds, "reason": verdict.reason, **verdict.numbers})
    if not verdict.holds:
        raise ModelError(
            f"model {chosen.version} of stream {stream} stays the shadow model: {verdict.reason} "
            "(--force promotes it anyway)"
        )


def _find_version(stream: str, version: int, models: list[ModelRecord]) -> ModelRecord:
    model = next((model for model in models if model.version == version), None)
    if model is None:
        versions = [str(model.version) for model in models]
        near = difflib.get_close_matches(str(version), versions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(versions) or 'none'}"
        raise UnknownModel(f"stream {stream} has no model {version}; {hint}")
    if model.state == "active":
        raise ModelError(f"model {version} is already the active model of stream {stream}; nothing was changed")
    return model


def _require_same_features(stream: str, chosen: ModelRecord, models: list[ModelRecord]) -> None:
    active = next((model for model in models if model.state == "active"), None)
    if active is not None and active.feature_names != chosen.feature_names:
        raise ModelError(
            f"model {chosen.version} has the features {', '.join(chosen.feature_names)}, the active model of stream "
            f"{stream} has {', '.join(active.feature_names)}: all models of a stream have the same features; create "
            "another stream for other features"
        )
