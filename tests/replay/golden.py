"""The golden dump: the columns of the contract that hold numbers and times, without texts and details.

Regenerate it with `python -m tests.replay FOLDER --golden`, and only for an intended change of rows.
"""

import json
from collections.abc import Iterable
from pathlib import Path

_FILE = Path(__file__).parent / "golden.jsonl"
_COLUMNS = {
    "score_history": ("source_offset", "event_time_us", "energy", "threshold", "is_outlier"),
    "window_history": ("window_start", "events", "outliers", "expected_outliers", "late", "p_value", "energy_p99"),
    "threshold_history": ("computed_at", "valid_from", "percentile", "threshold", "lower", "upper", "n", "method"),
    "incident_history": ("kind", "severity", "status", "window_start", "opened_at", "resolved_at"),
    "dead_letter_history": ("source_offset", "reason"),
    "drift_history": ("horizon", "window_start", "statistic", "feature", "effect", "z", "drifted"),
    "calibration_history": ("at", "promised_per_week", "windows_learned", "dispersion", "exceedance", "state"),
}
_ONE_SCORE_IN = 40


def golden_lines(dump: Iterable[str]) -> list[str]:
    """Return the lines of a dump that the golden file keeps."""
    lines, names, score = [], {}, 0
    for line in dump:
        view, _, text = line.partition(" ")
        if view == "#":
            view, _, columns = text.partition(": ")
            names[view] = columns.split(", ")
        elif view in _COLUMNS:
            score += view == "score_history"
            if view == "score_history" and score % _ONE_SCORE_IN:
                continue
            row = dict(zip(names[view], json.loads(text), strict=True))
            lines.append(json.dumps([view, *(_number(name, row[name]) for name in _COLUMNS[view])]))
    return lines


def _number(name: str, value: object) -> object:
    if name == "energy":
        return float(str(value).removeprefix("np.float32(").removesuffix(")"))
    return float(f"{value:.8g}") if isinstance(value, float) else value


def read_golden() -> list[str]:
    """Return the lines of the golden file."""
    return _FILE.read_text().splitlines()


def write_golden(dump: Iterable[str]) -> None:
    """Replace the golden file by a dump's lines."""
    _FILE.write_text("\n".join(golden_lines(dump)) + "\n")
