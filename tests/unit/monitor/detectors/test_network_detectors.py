"""VAEGMM and AEGMM through their public interface: fit, score, predict, explain, files, images, bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from config.errors import ModelError
from monitor.detectors.detector import Detector, load_detector
from monitor.detectors.networks.aegmm import AEGMM
from monitor.detectors.networks.vaegmm import VAEGMM

BOTH = pytest.mark.parametrize("make", [VAEGMM, AEGMM])
QUICK = {"epochs": 3, "batch_size": 128, "verbose": False}


def events(n=900, seed=0, dtype=np.float32):
    """Return rows on a curved sheet in five columns of very different scales."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    columns = [a, b, a * b, np.sin(a), a - b]
    noise = 0.05 * rng.normal(size=(n, 5))
    return ((np.column_stack(columns) + noise) * [1, 1e4, 1e-3, 5, 1] + [0, 1e6, 3, 0, -8]).astype(dtype)


@pytest.fixture(scope="module")
def train():
    return events()


@pytest.fixture(scope="module")
def fitted(train):
    return {make: make(random_state=3).fit(train, **QUICK) for make in (VAEGMM, AEGMM)}


@BOTH
def test_outliers_score_higher(make, fitted, train):
    outliers = train[:200] + 8 * train.std(axis=0) * np.array([1, -1, 1, -1, 1])
    scores = fitted[make].score(np.vstack([events(seed=1), outliers]))
    assert roc_auc_score(np.repeat([0, 1], [900, 200]), scores) > 0.95


@BOTH
def test_same_seed_and_events_give_the_same_model(make, fitted, train):
    again = make(random_state=3).fit(train, **QUICK)
    np.testing.assert_array_equal(again.score(train), fitted[make].score(train))


@pytest.mark.slow
@BOTH
def test_second_fit_of_a_detector_ignores_the_first(make, train):
    detector = make(random_state=3)
    first = detector.fit(train, **QUICK).energy(train)
    np.testing.assert_array_equal(detector.fit(train, **QUICK).energy(train), first)


@BOTH
def test_fit_does_not_change_the_global_random_state(make, train):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make().fit(train[:100], **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


@BOTH
def test_score_of_an_event_is_identical_to_the_bit_in_any_batch(make, fitted, train):
    detector = fitted[make]
    for scores in (detector.energy, detector.score):
        together = scores(train)
        alone = np.concatenate([scores(train[i : i + 1]) for i in range(0, 900, 90)])
        np.testing.assert_array_equal(alone, together[::90])
        np.testing.assert_array_equal(np.concatenate([scores(train[:7]), scores(train[7:])]), together)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_energies_have_the_precision_of_the_events(make, dtype, fitted):
    assert fitted[make].energy(events(dtype=dtype)).dtype == dtype


@BOTH
def test_energies_of_far_events_are_finite_and_ordered_by_distance(make, fitted, train):
    direction = np.array([1, -1e4, 1e-3, 5, -1.0])
    far = train.mean(axis=0) + np.geomspace(100, 1e12, 60)[:, None] * direction
    energies = fitted[make].energy(far)
    assert np.isfinite(energies).all()
    assert (np.diff(energies) > 0).all()


@BOTH
def test_largest_float32_values_have_finite_energies(make, fitted):
    extreme = np.full((2, 5), np.finfo(np.float32).max, dtype=np.float32) * np.array([[1], [-1]], np.float32)
    assert np.isfinite(fitted[make].energy(extreme)).all()
    assert np.isfinite(fitted[make].score(extreme)).all()


@pytest.mark.slow
@BOTH
def test_energies_do_not_depend_on_the_units_of_the_features(make, fitted, train):
    scale, shift = np.array([1e-6, 1e3, 1, 1e6, 1e-3]), np.array([5, -1e4, 0, 1, 2.0])
    wide = train.astype(np.float64)
    other = make(random_state=3).fit(wide * scale + shift, **QUICK)
    found, expected = other.energy(wide * scale + shift), fitted[make].energy(wide)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


@BOTH
def test_constant_and_collinear_columns_fit_and_a_later_change_is_an_outlier(make, train):
    rows = np.column_stack([train, np.zeros(900), np.full(900, 7.0), train[:, 0] * 2])
    detector = make().fit(rows, **QUICK)
    moved = rows[:50].copy()
    moved[:, 5] = 40.0
    assert np.isfinite(detector.energy(rows)).all()
    assert np.median(detector.energy(moved)) > np.quantile(detector.energy(rows), 0.99)


@BOTH
def test_prediction_has_meta_and_data(make, fitted, train):
    detector = fitted[make]
    detector.infer_threshold(train, threshold_perc=90)
    answer = detector.predict(train)
    assert set(answer) == {"meta", "data"}
    assert answer["meta"]["name"] == make.__name__
    assert answer["data"]["is_outlier"].sum() == 90
    np.testing.assert_array_equal(answer["data"]["instance_score"], detector.score(train))
    assert detector.predict(train, return_instance_score=False)["data"]["instance_score"] is None


@BOTH
def test_prediction_without_a_threshold_is_an_error(make, train):
    detector = make().fit(train[:100], **QUICK)
    with pytest.raises(ModelError, match="infer_threshold"):
        detector.predict(train)


def test_scores_average_over_reproducible_draws(fitted, train):
    detector = fitted[VAEGMM]
    np.testing.assert_array_equal(detector.score(train), detector.score(train, samples=10))
    np.testing.assert_array_equal(detector.score(train, samples=0), detector.energy(train))
    assert not np.array_equal(detector.score(train, samples=1), detector.score(train, samples=2))


@BOTH
def test_cost_in_an_explanation_is_the_energy_saved_by_the_replacement(make, fitted, train):
    detector = fitted[make]
    outliers = train[:40].astype(np.float64)
    outliers[:, 1] += 9 * train[:, 1].std()
    explanation = detector.explain(outliers)
    for j in range(5):
        replaced = outliers.copy()
        replaced[:, j] = explanation.expected[:, j]
        saved = detector.energy(outliers) - detector.energy(replaced)
        np.testing.assert_allclose(explanation.cost[:, j], saved, rtol=1e-3, atol=2e-3)


@BOTH
def test_contributions_sum_to_the_energy_above_the_typical_energy(make, fitted, train):
    detector = fitted[make]
    events = train[:20].astype(np.float64)
    events[:10, 1] += 9 * train[:, 1].std()
    explanation = detector.explain(events)
    sums = explanation.contribution.sum(axis=1) + explanation.typical_energy
    np.testing.assert_allclose(sums, detector.energy(events), rtol=1e-9)


@pytest.mark.slow
@BOTH
def test_explanation_ranks_the_changed_feature_first(make, train):
    frame = pd.DataFrame(train, columns=["amount", "volume", "rate", "phase", "gap"])
    detector = make().fit(frame, **{**QUICK, "epochs": 8})
    outliers = frame[:20].copy()
    outliers["volume"] += np.float32(30 * frame["volume"].std())
    reasons = [row[0].feature for row in detector.explain(outliers)]
    assert reasons.count("volume") >= 15


@BOTH
def test_usual_ranges_contain_most_training_values(make, fitted, train):
    explanation = fitted[make].explain(train)
    inside = (explanation.low <= explanation.value) & (explanation.value <= explanation.high)
    assert inside.mean() > 0.85
    assert explanation.features == ("x0", "x1", "x2", "x3", "x4")


@BOTH
def test_detector_is_restored_from_its_bytes_and_its_file(make, fitted, train, tmp_path):
    detector = fitted[make]
    assert isinstance(detector, Detector)
    detector.save(tmp_path / "m.safetensors")
    for source in (detector.to_bytes(), tmp_path / "m.safetensors"):
        again = load_detector(source, kind=detector.kind, n_features=5)
        np.testing.assert_array_equal(again.energy(train), detector.energy(train))
        np.testing.assert_array_equal(again.score(train), detector.score(train))
        assert again.training_ == detector.training_


@BOTH
def test_names_threshold_and_reference_energies_are_restored(make, train):
    frame = pd.DataFrame(train, columns=list("abcde"))
    detector = make(data_type="tabular").fit(frame, reference_fraction=0.2, **QUICK)
    detector.infer_threshold(frame)
    again = load_detector(detector.to_bytes())
    assert again.feature_names_ == ("a", "b", "c", "d", "e")
    assert again.predict(frame)["meta"] == detector.predict(frame)["meta"]
    np.testing.assert_array_equal(again.reference_energies_, detector.reference_energies_)
    with pytest.raises(ModelError, match="names"):
        again.energy(frame.rename(columns={"a": "z"}))


@pytest.mark.slow
@BOTH
def test_reference_energies_are_those_of_the_held_out_last_events(make, train):
    detector = make().fit(train, reference_fraction=0.2, **QUICK)
    assert detector.training_["rows"] == 720
    np.testing.assert_array_equal(detector.reference_energies_, np.sort(detector.energy(train[720:])))
    np.testing.assert_array_equal(detector.energy(train), make().fit(train[:720], **QUICK).energy(train))


def custom_networks(latent):
    torch.manual_seed(1)
    return {
        "encoder_net": nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, latent)),
        "decoder_net": nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)),
        "gmm_density_net": nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(dim=1)),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("make", "latent"), [(VAEGMM, 6), (AEGMM, 2)])
def test_custom_networks_are_used_and_required_again_at_load(make, latent, train, tmp_path):
    detector = make(**custom_networks(latent), n_gmm=3).fit(train, **QUICK)
    detector.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"load\(path, encoder_net=\.\.\., decoder_net"):
        load_detector(tmp_path / "m.safetensors")
    again = make.load(tmp_path / "m.safetensors", **custom_networks(latent))
    np.testing.assert_array_equal(again.score(train), detector.score(train))
    narrow = {**custom_networks(latent), "decoder_net": nn.Linear(2, 5)}
    with pytest.raises(ModelError, match="networks passed do not match"):
        make.load(tmp_path / "m.safetensors", **narrow)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "latent"), [(VAEGMM, 6), (AEGMM, 2)])
def test_softmax_inside_the_density_network_is_not_applied_twice(make, latent, train):
    with_own = make(**custom_networks(latent), n_gmm=3).fit(train, **QUICK).energy(train)
    bare = custom_networks(latent)
    bare["gmm_density_net"] = bare["gmm_density_net"][:-1]
    np.testing.assert_array_equal(make(**bare, n_gmm=3).fit(train, **QUICK).energy(train), with_own)


@pytest.mark.parametrize(("make", "latent"), [(VAEGMM, 6), (AEGMM, 2)])
def test_custom_density_network_determines_the_number_of_components(make, latent, train):
    assert make(**custom_networks(latent)).fit(train, **QUICK).n_gmm == 3


@BOTH
def test_custom_reconstruction_features_are_used(make, train):
    def squared_error(x, reconstruction):
        return (x - reconstruction).square().mean(1, keepdim=True)

    detector = make(recon_features=squared_error).fit(train, **QUICK)
    assert np.isfinite(detector.energy(train)).all()
    with pytest.raises(ModelError, match="recon_features"):
        load_detector(detector.to_bytes())


WRONG_NETWORKS = [
    ("encoder_net", nn.Linear(4, 2), "encoder_net does not accept events of shape"),
    ("decoder_net", nn.Linear(2, 6), "decoder_net returns events of shape"),
    ("decoder_net", nn.Linear(9, 5), "decoder_net does not accept a latent"),
    ("gmm_density_net", nn.Linear(4, 5), "must return n_gmm=3"),
    ("gmm_density_net", nn.Linear(9, 3), "gmm_density_net does not accept 4 columns"),
]


@pytest.mark.parametrize(("make", "latent"), [(VAEGMM, 6), (AEGMM, 2)])
@pytest.mark.parametrize(("name", "module", "message"), WRONG_NETWORKS)
def test_error_names_the_network_of_the_wrong_width(make, latent, name, module, message, train):
    networks = {**custom_networks(latent), name: module}
    with pytest.raises(ModelError, match=message):
        make(**networks, n_gmm=3).fit(train, **QUICK)


BAD_EVENTS = [
    (np.zeros((0, 5)), "0 sample"),
    (np.zeros(5), "2D"),
    (np.array([[1.0, np.nan, 0, 0, 0]] * 4), "NaN in 4 of 4 rows .*columns 1"),
    (np.array([[1.0, np.inf, 0, 0, 0]] * 4), "inf"),
    (np.array([["a"] * 5] * 4), "must hold numbers"),
    (None, "x is None"),
    ("x.csv", "text"),
]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(("x", "message"), BAD_EVENTS)
def test_bad_events_are_an_error_at_fit_and_at_scoring(make, x, message, fitted):
    with pytest.raises(ModelError, match=message):
        make().fit(x, **QUICK)
    with pytest.raises(ModelError, match=message):
        fitted[make].energy(x)


@BOTH
def test_wrong_number_of_features_and_scoring_before_the_fit_are_errors(make, fitted, train):
    with pytest.raises(ModelError, match="3 features"):
        fitted[make].energy(train[:, :3])
    with pytest.raises(ModelError, match="not fitted yet"):
        make().energy(train)


@BOTH
def test_fit_checks_the_configured_number_of_features(make, train):
    assert make(n_features=5).fit(train, **QUICK).n_features == 5
    with pytest.raises(ModelError, match="5 features"):
        make(n_features=4).fit(train, **QUICK)


@BOTH
def test_fewer_rows_than_components_are_an_error(make, train):
    with pytest.raises(ModelError, match="fewer than the n_gmm=5"):
        make(n_gmm=5).fit(train[:4], **QUICK)


@pytest.mark.parametrize("settings", [{"n_gmm": 0}, {"latent_dim": 1.5}, {"samples": -1}, {"random_state": "x"}])
def test_invalid_settings_are_errors(settings):
    with pytest.raises(ModelError, match=next(iter(settings))):
        VAEGMM(**settings)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 1}, {"reference_fraction": 1.0}])
def test_invalid_fit_options_are_errors(options, train):
    with pytest.raises(ModelError, match=next(iter(options))):
        AEGMM().fit(train, **{**QUICK, **options})


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32)
    return images[labels != 1], images[labels == 1]


def convolutional(latent):
    torch.manual_seed(2)
    return {
        "encoder_net": nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), *latent
        ),
        "decoder_net": nn.Sequential(
            nn.Linear(4, 64),
            nn.ReLU(),
            nn.Unflatten(1, (16, 2, 2)),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
        ),
    }


IMAGES = [(VAEGMM, [nn.ReLU()]), (AEGMM, [nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)])]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "latent"), IMAGES)
def test_convolutional_networks_separate_digits_from_shuffled_pixels(make, latent, digits, tmp_path):
    ordinary, _ = digits
    detector = make(**convolutional(latent), latent_dim=4, data_type="image")
    options = {"w_recon": 1e-3} if make is VAEGMM else {}
    detector.fit(ordinary[:1200], epochs=15, batch_size=64, verbose=False, **options)
    noise = np.random.default_rng(0).permuted(ordinary[1200:].reshape(-1, 64), axis=1).reshape(-1, 1, 8, 8)
    held = np.concatenate([ordinary[1200:], noise])
    truth = np.repeat([0, 1], len(noise))
    assert roc_auc_score(truth, detector.score(held)) > 0.8
    detector.save(tmp_path / "m.safetensors")
    again = make.load(tmp_path / "m.safetensors", **convolutional(latent))
    np.testing.assert_array_equal(again.score(held[:50]), detector.score(held[:50]))


@BOTH
def test_images_fit_with_the_default_networks(make, digits):
    ordinary, ones = digits
    detector = make().fit(ordinary[:300], **QUICK)
    assert detector.n_features == 64
    np.testing.assert_array_equal(detector.energy(ones), detector.energy(ones.reshape(-1, 64)))
    with pytest.raises(ModelError, match="fitted on"):
        detector.energy(ones.reshape(-1, 8, 8))
