"""Derived features: their formulas, their names, and the functions of the library that compute them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config.errors import ModelError
from monitor.cli.output.reason_text import format_reasons
from monitor.detectors import GaussianMixture, derive, load_detector
from monitor.detectors.derivation import Derivation, derive_all
from monitor.statistics.key_history import GAIN

FIELDS = ("a", "b")


def _frame(n: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    hosts = np.arange(n) % 3
    level = 100.0 * hosts + np.cumsum(rng.normal(size=n)) * 0.1
    return pd.DataFrame(
        {
            "ts": pd.date_range("2026-01-01", periods=n, freq="20s"),
            "host": [f"h{host}" for host in hosts],
            "a": level + rng.normal(size=n),
            "b": rng.normal(size=n),
        },
        index=np.arange(n) + 7,
    )


def test_the_features_follow_their_formulas() -> None:
    derivation = Derivation(fields=FIELDS, changes=(1,), roughnesses=(0,), steps=(2.0,))
    events = np.array([[5.0, 6.0, 0.1, 0.2, 3.0, 4.0, 0.5, 0.25]])
    assert derivation.names == ("a", "b", "b.change", "a.roughness")
    assert derivation.sources == (0, 1, 1, 0)
    expected = [5.0, 6.0, 0.2, np.log(0.05 + 3.0 / 2.0 + 0.5)]
    assert derivation.apply(events)[0].tolist() == expected


def test_a_key_without_history_has_usual_values() -> None:
    derived = derive(_frame().iloc[:3], key="host", time="ts")
    assert derived["a.change"].tolist() == [0.0, 0.0, 0.0]
    assert derived["a.roughness"].tolist() == [np.log(1.05)] * 3


def test_a_flat_line_is_smooth_and_a_jump_is_a_change() -> None:
    frame = _frame()
    frame.loc[frame["host"] == "h1", "a"] = 100.0
    frame.loc[frame.index[-2], "a"] = 140.0
    derived = derive(frame, key="host", time="ts")
    assert derived["a.change"].iloc[-2] == pytest.approx(40.0)
    assert derived["a.roughness"].iloc[-5] < -2.5
    assert abs(derived["a.roughness"].iloc[-3]) < 1


def test_the_mean_step_is_that_of_all_steps_of_the_keys() -> None:
    frame = _frame()
    derived = derive(frame, key="host", time="ts")
    steps = frame.groupby("host")["a"].diff().abs()
    settled = np.exp(derived["a.roughness"]) - 0.05
    assert derived.attrs["outrider_derivation"].steps[0] == pytest.approx(steps.mean(), rel=0.05)
    assert settled.mean() == pytest.approx(1.0, rel=0.05)


def test_a_field_that_never_moves_has_a_finite_roughness() -> None:
    events = np.zeros((50, 8))
    events[:, :2] = 3.0
    derivation = derive_all(FIELDS, events)
    assert np.isfinite(derivation.apply(events)).all()
    assert min(derivation.steps) > 0


def test_a_field_with_the_name_of_a_derived_feature_is_refused() -> None:
    with pytest.raises(ModelError, match=r"a\.change has the name of a derived feature"):
        derive_all(("a", "a.change"), np.zeros((5, 8)))


def test_a_model_of_a_derived_frame_stores_what_it_derives(tmp_path: Path) -> None:
    train, live = _frame(), _frame(200, seed=1)
    derived = derive(train, key="host", time="ts")
    model = GaussianMixture(n_components=2, random_state=0).fit(derived).calibrate(derived)
    model.save(tmp_path / "model.safetensors")
    loaded = load_detector(tmp_path / "model.safetensors", n_features=2)
    assert loaded.derivation_ == model.derivation_ == derived.attrs["outrider_derivation"]
    found = derive(live, key="host", time="ts", like=loaded)
    assert list(found.columns) == list(loaded.feature_names_ or ())
    assert np.isfinite(loaded.energy(found)).all()
    assert list(found.index) == list(live.index)


def test_the_columns_of_another_frame_are_not_derived_features() -> None:
    derived = derive(_frame(), key="host", time="ts")
    assert GaussianMixture().fit(derived[["a", "b"]]).derivation_ is None


def test_times_may_be_numbers_and_pauses_begin_anew() -> None:
    frame = _frame(60)[["a"]].assign(t=np.arange(60.0))
    frame.loc[frame.index[40] :, "t"] += 1_000
    derived = derive(frame, time="t", features=["a"])
    assert derived["a.change"].iloc[40] == 0.0
    assert derived["a.roughness"].iloc[40] == np.log(1.05)
    steps = derived.attrs["outrider_derivation"].steps
    first = abs(frame["a"].iloc[1] - frame["a"].iloc[0])
    assert derived["a.roughness"].iloc[1] == pytest.approx(np.log(0.05 + GAIN * first / steps[0] + 1 - GAIN))


def test_errors_name_the_columns() -> None:
    with pytest.raises(ModelError, match="no column node"):
        derive(_frame(), key="node")
    with pytest.raises(ModelError, match="derives no features"):
        derive(_frame(), like=GaussianMixture().fit(_frame()[["a", "b"]]))


def test_an_explanation_sums_up_the_features_of_a_field_on_one_line() -> None:
    train = _frame()
    derived = derive(train, key="host", time="ts")
    model = GaussianMixture(n_components=3, random_state=0).fit(derived).calibrate(derived)
    live = _frame(120)
    live.loc[live.index[-1], "a"] -= 40.0
    rows = model.explain(derive(live, key="host", time="ts", like=model).iloc[-1:]).line_rows(1)[0]
    assert {row["field"] for row in rows} == {"a"}
    assert {row["feature"]: row["role"] for row in rows} == {
        "a": "value",
        "a.change": "level_difference",
        "a.roughness": "variation",
    }
    assert re.search(r"^a is 4\d.* below its recent level of", "\n".join(format_reasons(rows)))
