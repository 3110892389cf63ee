"""A stream as a daemon would store it: a few windows, one of them a spike, through the real stores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.loading import load
from config.settings import Settings
from monitor.control_plane.control import ControlPlane
from monitor.findings.calibration import first_threshold
from monitor.parts import Part, Scale, encode, merge, summarise
from monitor.rules import control_settings
from storage.calibration import CalibrationStore
from storage.control import ControlStore
from storage.engine import Database
from storage.evidence import EvidenceStore
from storage.ledger import (
    Commit,
    Committed,
    DeadLetterColumns,
    Ledger,
    NewSource,
    OutlierColumns,
    PartRow,
    ScoreColumns,
    checksum,
)
from storage.models import ModelStore, NewModel

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND = 1_000_000
MINUTE = 60 * SECOND
NAMES = ("amount", "card.age_days")
EVENTS = 60
_REASONS: list[dict[str, float | str | None]] = [
    {"feature": "amount", "value": 99.5, "z": 9.0, "cost": 17.5, "expected": 12.5, "low": 10.0, "high": 15.0}
]
REFERENCE = np.sort(np.random.default_rng(1).normal(0, 1, 10_000)).astype(np.float32)


def write_config(folder: Path, url: str, more: str = "") -> Path:
    """Write a configuration with the streams payments and clicks; returns its path."""
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


class Payments:
    """The stream `payments` of one partition with one event a second from T0 on."""

    def __init__(self, db: Database, config: Path) -> None:
        self.db = db
        self.settings: Settings = load(config, {})
        self.ledger = Ledger(db)
        db.upgrade()
        window = self.settings.streams["payments"].window
        assert window.size.total_seconds() == 60
        self.stream = self.ledger.open_stream("payments", window_size_us=MINUTE, lead_us=610 * SECOND)
        new = NewSource(topic="payments", partition=0, identity="log-1", next_offset=0)
        source = self.ledger.register(self.stream.id, [new])[0]
        claim = self.ledger.claim(source.source_id, "me")
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
                checksum=checksum(artefact),
                feature_names=names,
                summary={"events": 10_000, "feature_means": [12.5, 300.0]},
            ),
            lambda model_id, activation: first_threshold(REFERENCE, model_id, activation, percentile),
        )
        self.threshold_id = self.threshold_id or self.ledger.schedule(self.stream.id)[0].id

    def commit_minute(
        self, outliers: int = 0, *, key: str = "alice", keys: Sequence[str] | None = None, dead: int = 0
    ) -> None:
        """Store the next minute: energy 0.1, but 20 for its first events, the outliers; then what is unreadable."""
        assert self.threshold_id is not None
        keyed = [key] * EVENTS if keys is None else list(keys)
        places = np.arange(EVENTS, dtype=np.int64)
        start_us = T0 + self.minute * MINUTE
        offsets, times_us = self.next_offset + places, start_us + places * SECOND
        strange = places < outliers
        energies = np.where(strange, 20, 0.1).astype(np.float32)
        letters = self.next_offset + EVENTS + np.arange(dead, dtype=np.int64)
        part = merge([summarise(energies, strange, Scale.of(REFERENCE)), Part.counts_only(dead=dead)])
        self.minute += 1
        self._commit(
            end=self.next_offset + EVENTS + dead,
            watermark_us=int(times_us[-1]),
            scores=ScoreColumns(
                offsets=offsets,
                times_us=times_us,
                energies=energies,
                threshold_ids=np.full(EVENTS, self.threshold_id, np.int64),
                keys=keyed,
            ),
            outliers=OutlierColumns(
                offsets=offsets[strange],
                times_us=times_us[strange],
                energies=energies[strange],
                threshold_ids=np.full(outliers, self.threshold_id, np.int64),
                features=np.full((outliers, 2), 99.5, np.float32),
                feature_names=NAMES,
                keys=keyed[:outliers],
            ),
            dead=DeadLetterColumns(
                offsets=letters,
                end_offsets=letters + 1,
                reasons=["not_json"] * dead,
                details=["detail"] * dead,
                payloads=[b"{"] * dead,
            ),
            parts=[
                PartRow(
                    window_start_us=start_us,
                    window_end_us=start_us + MINUTE,
                    threshold_id=self.threshold_id,
                    events=EVENTS,
                    outliers=outliers,
                    late=0,
                    dead=dead,
                    payload=encode(part),
                    first_offset=int(offsets[0]),
                    last_offset=int(offsets[-1]),
                )
            ],
        )

    def commit_energies(self, energies: NDArray[np.float32]) -> None:
        """Store the next minute by its energies alone, under the threshold that is valid for it."""
        start_us = T0 + self.minute * MINUTE
        rows = sorted(self.ledger.schedule(self.stream.id), key=lambda row: (row.valid_from_us, row.id))
        row = [each for each in rows if each.valid_from_us <= start_us][-1]
        part = summarise(energies, energies > row.threshold, Scale.of(REFERENCE))
        self.minute += 1
        self._commit(
            end=self.next_offset + len(energies),
            watermark_us=start_us + MINUTE - 1,
            parts=[
                PartRow(
                    window_start_us=start_us,
                    window_end_us=start_us + MINUTE,
                    threshold_id=row.id,
                    events=part.events,
                    outliers=part.outliers,
                    late=0,
                    dead=0,
                    payload=encode(part),
                )
            ],
        )

    def lose(self, records: int) -> None:
        """Pass over a range that the broker no longer has."""
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
            "assumed": self.ledger.control(self.stream.id),
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

    def judge(self) -> None:
        """Seal and judge what is due, as the control plane does."""
        self.plane().run_due()

    def plane(self) -> ControlPlane:
        """Return a control plane of the stream."""
        return ControlPlane(
            control_settings(self.settings, "payments", self.stream.id),
            control=ControlStore(self.db),
            calibration=CalibrationStore(self.db),
            models=ModelStore(self.db),
            reference=lambda _: REFERENCE,
            now_us=lambda: T0,
            renew=lambda: True,
            advanced=lambda: None,
            early=ControlStore(self.db),
            evidence=EvidenceStore(self.db),
            explain=lambda _, events: [_REASONS for _ in events],
        )


def with_spike(db: Database, config: Path) -> Payments:
    """Store four minutes, the third with 30 outliers, and judge them but for the last."""
    payments = Payments(db, config)
    payments.add_model()
    for outliers in (0, 1, 30, 0):
        payments.commit_minute(outliers)
    payments.judge()
    return payments
