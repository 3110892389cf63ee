"""A habitual key is compared with its own largest energies; all other events with the law of the stream."""

import json
from dataclasses import replace

import numpy as np
import pytest

from monitor.incidents.habitual_keys import KeyHabits, TrackedKey
from monitor.incidents.key_energies import (
    KEYS_SHARE,
    MAX_ROOTS,
    EnergiesUnderTest,
    KeyMagnitude,
    add_root,
    count_peaks,
    fit_key_law,
    halve_roots,
)
from monitor.incidents.spike import judge_spike
from monitor.statistics.part import summarise
from monitor.statistics.part_codec import encode_part
from storage.control.evidence import WindowKeys
from storage.control.records import Incident, WindowFacts
from tests.unit.monitor.incidents.test_magnitude import ALPHA, threshold
from tests.unit.monitor.judged_windows import EVENTS, RULES, SCALE, Stream

RNG_SEED = 7
WITHOUT_WAIT = replace(RULES, adopt_after_us=0)


class KeyStream(Stream):
    """A stream whose windows have one event of the key HA, and maybe one of another key, with large energies."""

    habit: float | None = None
    other: float | None = None

    def facts(self, outliers: int, events: int = EVENTS) -> WindowFacts:
        known = super().facts(0, events)
        energies = np.full(events, 8.0, np.float32)
        large = [each for each in (self.habit, self.other) if each is not None]
        energies[: len(large)] = large
        part = summarise(energies, energies > 24, SCALE)
        stored = replace(known.parts[0], outliers=outliers, payload=encode_part(part))
        return replace(known, parts=[stored])

    def step(self, habit: float | None, other: float | None = None, *, early: bool = False) -> list[Incident]:
        """Judge the next window with an event of the key, and one of another key; return its spikes."""
        self.habit, self.other = habit, other
        events = {key: energy for key, energy in (("HA", habit), ("other", other)) if energy is not None}
        keys = WindowKeys(
            counts={key: (1, int(energy > 24)) for key, energy in events.items()},
            largest={key: energy for key, energy in events.items() if energy > 24},
        )
        x = len(keys.largest)
        if early:
            return self.judge_early(x, keys=keys)
        rows = self.judge(x, keys=keys).incidents
        spikes = [row for row in rows if row.kind == "spike" and row.status == "open"]
        self.open_incidents.clear()
        return spikes


def usual(rng: np.random.Generator) -> float:
    return float(np.float32(280 + rng.gamma(4, 10)))


def with_habit(seed: int = RNG_SEED) -> tuple[KeyStream, np.random.Generator]:
    """Return a stream in which HA is habitual: 40 events of 300 to 400 nats, where one of 95 opens a spike."""
    rng = np.random.default_rng(seed)
    stream = KeyStream(threshold=threshold(), rules=WITHOUT_WAIT)
    fired = [bool(stream.step(usual(rng))) for _ in range(40)]
    assert fired[:30] == [True] * 30, "no key is habitual before 30 windows"
    assert not any(fired[31:])
    return stream, rng


def test_usual_energy_of_a_habitual_key_is_no_spike_and_that_of_another_key_is() -> None:
    stream, rng = with_habit()
    assert not stream.step(usual(rng), early=True)
    assert not stream.step(usual(rng))
    (spike,) = stream.step(usual(rng), 300.0)
    assert spike.details["opened"]["magnitude"]["energy"] == 300.0
    assert "key" not in spike.details["opened"]["magnitude"]


def test_energy_far_beyond_those_of_a_habitual_key_is_a_spike_early_and_at_the_end() -> None:
    for early in (True, False):
        stream, _ = with_habit()
        (spike,) = stream.step(20_000.0, early=early)
        found = spike.details["opened"]["magnitude"]
        assert (found["key"], found["energy"]) == ("HA", 20_000.0)
        assert 400 < found["limit"] < 20_000
        assert found["p_value"] <= found["alpha"] / found["events"]
        assert "an event of key HA with an energy of 20000 nats" in spike.summary
        assert "among the events of this key" in spike.summary


def test_the_smaller_energy_of_another_key_is_not_hidden_by_a_habitual_key() -> None:
    stream, rng = with_habit()
    (spike,) = stream.step(usual(rng), 150.0)
    assert spike.details["opened"]["magnitude"]["energy"] == 150.0
    assert not stream.step(usual(rng), 30.0)


def test_event_that_fired_counts_at_its_limit_so_that_the_next_one_fires_too() -> None:
    stream, rng = with_habit()
    limits = [stream.step(1e6)[0].details["opened"]["magnitude"]["limit"] for _ in range(2)]
    assert limits[0] < limits[1] < 1e6
    roots = KeyHabits.from_json(stream.state["keys"]).tracked["HA"].roots
    assert roots[0] == pytest.approx(np.sqrt(limits[1] - SCALE.median), rel=1e-5)
    assert not stream.step(usual(rng))


def test_key_of_an_earlier_version_is_tested_as_the_stream_until_it_has_a_law() -> None:
    stream, rng = with_habit()
    del stream.state["keys"]["energies"]
    stream.state = json.loads(json.dumps(stream.state))
    assert [bool(stream.step(usual(rng))) for _ in range(31)] == [True] * 30 + [False]


def test_energies_of_a_key_are_bounded_and_forget_an_extreme() -> None:
    roots: tuple[float, ...] = (1e3,)
    for i in range(100):
        roots = add_root(roots, 100.0 + i, 50.0)
    assert (len(roots), roots[0]) == (MAX_ROOTS, 1e3)
    assert add_root(roots, None, 50.0) == roots
    assert 1e3 not in halve_roots(roots)
    tracked = TrackedKey(windows=1, events=1, outliers=1, squares=1, first_us=0, last_us=0, measured=1, roots=roots)
    habits = KeyHabits(tracked={"HA": tracked})
    assert KeyHabits.from_json(json.loads(json.dumps(habits.to_json()))) == habits
    assert (count_peaks(roots, 29), count_peaks(roots[:5], 60), count_peaks(roots[:6], 60)) == (0, 0, 5)


@pytest.mark.parametrize(("windows", "tolerance"), [(30, 6.0), (200, 6.0)])
@pytest.mark.parametrize("law", ["gamma", "squared normal", "lognormal", "squared t5"])
def test_realised_false_alarms_of_a_key_are_near_its_share_of_the_budget(
    law: str, windows: int, tolerance: float
) -> None:
    """The mean over 40 keys of P(energy > limit) is at most `tolerance` times the promised probability, here 1e-4."""
    rng = np.random.default_rng(RNG_SEED)

    def draw(size: int) -> np.ndarray:
        return {
            "gamma": lambda: 100 + rng.gamma(4, 10, size),
            "squared normal": lambda: (10 + rng.normal(size=size)) ** 2,
            "lognormal": lambda: 60 + np.exp(3 + 0.5 * rng.normal(size=size)),
            "squared t5": lambda: 100 + rng.standard_t(5, size) ** 2,
        }[law]()

    many, realised = np.sort(draw(1_000_000)), []
    for _ in range(40):
        energies = draw(windows)
        roots = tuple(sorted(np.sqrt(energies - SCALE.median).tolist(), reverse=True)[:MAX_ROOTS])
        limit = fit_key_law(roots, windows, SCALE.median).energy_at(1e-4)
        realised.append((len(many) - np.searchsorted(many, limit)) / len(many))
    assert np.mean(realised) < tolerance * 1e-4


def test_habitual_keys_share_a_part_of_the_budget_that_other_events_do_not_have() -> None:
    in_force, roots = threshold(), tuple(np.linspace(18, 17, MAX_ROOTS).tolist())
    of_keys = [
        KeyMagnitude(key=key, energy=1e5, share=KEYS_SHARE / 2, roots=roots, measured=60, median=SCALE.median)
        for key in ("a", "b")
    ]
    largest = EnergiesUnderTest(others=90.0, habitual=tuple(of_keys), others_share=1 - KEYS_SHARE)
    tests = judge_spike(in_force, EVENTS, 0, largest, RULES)
    assert sum(each.alpha for each in tests.magnitudes) == pytest.approx(ALPHA - tests.count.attainable)
    of_key = tests.magnitudes[1]
    assert fit_key_law(roots, 60, SCALE.median).p_value(of_key.limit) == pytest.approx(of_key.alpha, rel=1e-6)
