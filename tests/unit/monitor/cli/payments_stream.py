"""Stream written through the real stores as a daemon does: a few windows, one of them a spike."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.loading import load
from config.settings import Settings
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.model_cache import ModelCache
from monitor.daemon.rules import build_stream_rules
from monitor.detectors import GaussianMixture
from monitor.incidents.explain import FeatureReasons
from monitor.models.scoring import LoadedModel
from monitor.statistics.part import Part, Scale, merge_parts, summarise
from monitor.statistics.part_codec import encode_part
from monitor.thresholds.tick import build_first_threshold
from storage.control.evidence import EvidenceStore
from storage.control.models import Activation, ModelStore, NewModel
from storage.control.thresholds import ThresholdRow, ThresholdStore
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.ledger.commit import Commit, Committed, DeadLetterColumns, OutlierColumns, ScoreColumns, WindowPartRow
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource
from tests.upgraded import give_newest_schema

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND = 1_000_000
MINUTE = 60 * SECOND
NAMES = ("amount", "card.age_days")
EVENTS = 60
_CONTRIBUTIONS: list[dict[str, float | str | None]] = [
    {"feature": "amount", "value": 99.5, "z": 9.0, "cost": 17.5, "expected": 12.5, "low": 10.0, "high": 15.0}
]
REFERENCE = np.sort(np.random.default_rng(1).normal(0, 1, 10_000)).astype(np.float32)


def write_config(folder: Path, url: str, more: str = "") -> Path:
    """Write a configuration with the streams `payments` and `clicks` and return its path."""
    path = folder / "outrider.yaml"
    path.write_text(
        f"""
database: {{url: {json.dumps(url)}}}
streams:
  payments:
    source: {{type: synthetic, rate: 1}}
    alerts: {{min_outliers: 3}}
  clicks:
    source: {{type: synthetic, rate: 1}}
{more}
"""
    )
    return path


class PaymentsStream:
    """Stream `payments` with one partition and one event per second from T0 on."""

    def __init__(self, db: Database, config: Path) -> None:
        self.db = db
        self.settings: Settings = load(config, {})
        self.ledger = Ledger(db)
        give_newest_schema(self.settings.database.url)
        window = self.settings.streams["payments"].window
        assert window.size.total_seconds() == 60
        self.stream = self.ledger.open_stream("payments", window_size_us=MINUTE, lead_us=610 * SECOND)
        new = NewSource(topic="payments", partition=0, identity="log-1", next_offset=0)
        source = self.ledger.register_sources(self.stream.id, [new])[0]
        claim = self.ledger.claim_source(source.source_id, "me")
        assert claim is not None
        self.claim = claim
        self.next_offset = 0
        self.minute = 0
        self.threshold_id: int | None = None

    def add_model(
        self, artefact: bytes = b"an artefact", names: tuple[str, ...] = NAMES, percentile: float = 99.5
    ) -> None:
        """Store a model with its first threshold and make it active."""
        ModelStore(self.db).add(
            self.stream.id,
            NewModel(
                kind="gaussian_mixture",
                artefact=artefact,
                feature_names=names,
                summary={"events": 10_000, "feature_means": [12.5, 300.0]},
            ),
            lambda model_id, activation: self._build_threshold(model_id, activation, percentile),
        )
        self.threshold_id = self.threshold_id or self.ledger.read_threshold_schedule(self.stream.id)[0].id

    def _build_threshold(self, model_id: int, activation: Activation, percentile: float) -> ThresholdRow:
        """Return a threshold without a tail law: single events of 20 nats open no incident."""
        row = build_first_threshold(REFERENCE, model_id, activation, percentile)
        return replace(row, details={**row.details, "tail": None})

    def commit_minute(
        self, outliers: int = 0, *, key: str = "alice", keys: Sequence[str] | None = None, dead: int = 0
    ) -> None:
        """Store the next minute: `outliers` events of energy 20, the others of energy 0.1, then `dead` dead letters."""
        assert self.threshold_id is not None
        event_keys = [key] * EVENTS if keys is None else list(keys)
        indices = np.arange(EVENTS, dtype=np.int64)
        start_us = T0 + self.minute * MINUTE
        offsets, times_us = self.next_offset + indices, start_us + indices * SECOND
        is_outlier = indices < outliers
        energies = np.where(is_outlier, 20, 0.1).astype(np.float32)
        dead_offsets = self.next_offset + EVENTS + np.arange(dead, dtype=np.int64)
        part = merge_parts(
            [summarise(energies, is_outlier, Scale.from_energies(REFERENCE)), Part.without_events(dead=dead)]
        )
        self.minute += 1
        self._commit(
            end=self.next_offset + EVENTS + dead,
            watermark_us=int(times_us[-1]),
            scores=ScoreColumns(
                offsets=offsets,
                times_us=times_us,
                energies=energies,
                threshold_ids=np.full(EVENTS, self.threshold_id, np.int64),
                keys=event_keys,
            ),
            outliers=OutlierColumns(
                offsets=offsets[is_outlier],
                times_us=times_us[is_outlier],
                energies=energies[is_outlier],
                threshold_ids=np.full(outliers, self.threshold_id, np.int64),
                features=np.full((outliers, 2), 99.5, np.float32),
                feature_names=NAMES,
                keys=event_keys[:outliers],
            ),
            dead=DeadLetterColumns(
                offsets=dead_offsets,
                end_offsets=dead_offsets + 1,
                reasons=["not_json"] * dead,
                details=["detail"] * dead,
                payloads=[b"{"] * dead,
            ),
            parts=[
                WindowPartRow(
                    window_start_us=start_us,
                    window_end_us=start_us + MINUTE,
                    threshold_id=self.threshold_id,
                    events=EVENTS,
                    outliers=outliers,
                    late=0,
                    dead=dead,
                    payload=encode_part(part),
                    first_offset=int(offsets[0]),
                    last_offset=int(offsets[-1]),
                )
            ],
        )

    def commit_energies(self, energies: NDArray[np.float32]) -> None:
        """Store the part of the next minute, with outliers above the threshold in force and without score rows."""
        start_us = T0 + self.minute * MINUTE
        rows = sorted(self.ledger.read_threshold_schedule(self.stream.id), key=lambda row: (row.valid_from_us, row.id))
        row = [each for each in rows if each.valid_from_us <= start_us][-1]
        part = summarise(energies, energies > row.threshold, Scale.from_energies(REFERENCE))
        self.minute += 1
        self._commit(
            end=self.next_offset + len(energies),
            watermark_us=start_us + MINUTE - 1,
            parts=[
                WindowPartRow(
                    window_start_us=start_us,
                    window_end_us=start_us + MINUTE,
                    threshold_id=row.id,
                    events=part.events,
                    outliers=part.outliers,
                    late=0,
                    dead=0,
                    payload=encode_part(part),
                )
            ],
        )

    def commit_gap(self, records: int) -> None:
        """Commit a gap for a range that the broker has deleted."""
        self._commit(end=self.next_offset + records, gap_reason="retention")

    def _commit(self, *, end: int, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "stream_id": self.stream.id,
            "source_id": self.claim.source_id,
            "epoch": self.claim.epoch,
            "begin": self.next_offset,
            "end": end,
            "end_cursor": None,
            "watermark_us": None,
            "assumed_control": self.ledger.read_control(self.stream.id),
            "scores": ScoreColumns.empty(),
            "outliers": OutlierColumns.empty(),
            "dead": DeadLetterColumns.empty(),
            "gap_reason": None,
            "parts": (),
            "ended": False,
        }
        outcome = self.ledger.commit(Commit(**(fields | changes)))
        assert isinstance(outcome, Committed)
        self.next_offset = end

    def run_due(self) -> None:
        """Run the due steps of the control plane."""
        self.control_plane().run_due()

    def control_plane(self) -> ControlPlane:
        """Build a control plane of the stream."""
        return ControlPlane(
            build_stream_rules(self.settings, "payments"),
            self.stream.id,
            stores=ControlPlaneStores(
                windows=WindowStore(self.db), thresholds=ThresholdStore(self.db), evidence=EvidenceStore(self.db)
            ),
            models=ReferenceModels("payments", ModelStore(self.db)),
            now_us=lambda: T0,
            renew=lambda: True,
            notify_sealed=lambda: None,
        )


class ReferenceModels(ModelCache):
    """Models with fixed reference energies and contributions, without loading an artefact."""

    def load(self, model_id: int) -> LoadedModel:
        return LoadedModel(
            record=self._models.load(model_id)[0],
            detector=GaussianMixture.from_parameters(np.ones(1), np.zeros((1, len(NAMES))), np.eye(len(NAMES))[None]),
            reference=REFERENCE,
            feature_means=None,
            scale=Scale.from_energies(REFERENCE),
        )

    def explain(self, model_id: int, events: Sequence[Mapping[str, float]]) -> Sequence[FeatureReasons]:
        return [_CONTRIBUTIONS for _ in events]


def store_spike(db: Database, config: Path, *, key: str = "alice") -> PaymentsStream:
    """Store four minutes, the third with 30 outliers, and judge the first three."""
    payments = PaymentsStream(db, config)
    payments.add_model()
    for outliers in (0, 1, 30, 0):
        payments.commit_minute(outliers, key=key)
    payments.run_due()
    return payments
