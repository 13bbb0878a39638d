"""What every screen promises, the simple ones exactly, and that condensers keep to a screening."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_screen_contrastive import images, planted, quiet, suspects_of

from rdmdc import plugins, rates
from rdmdc.checkpoints import NoCheckpoints, State
from rdmdc.condensers.dm import Options, dm
from rdmdc.condensers.task import Calibration, Task
from rdmdc.models.training import Schedule
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import RecordError
from rdmdc.screens.screening import keep_without_top
from rdmdc.screens.spectral_signatures import signatures
from rdmdc.training_data import TrainingData

SCREENS = plugins.load("screen").plugins
VALUES = {
    "drop": "3/20",
    "networks": 2,
    "others": 60,
    "ridge": 0.1,
    "power_iterations": 20,
    "sample": 1000,
    "directions": 2,
    "components": 4,
    "groups": 2,
    "smallest": "1/100",
    "largest": "3/10",
    "separation": 0.8,
    "margin": 3.5,
    "fewest": 20,
    "neighbour": 0.05,
    "neighbours": 5,
    "alpha": 4.0,
    "training": Schedule(
        epochs=20,
        batch=32,
        learning_rate=0.05,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        decay_after="1",
        augmentation=("flip",),
    ),
}
"""Options of every screen, by name."""
SEEING = {"none", "oracle"}
"""Screens that draw nothing."""


def options_of(name, **changed):
    options = SCREENS[name].options
    if options is None:
        return None
    names = [field.name for field in dataclasses.fields(options)]
    return options(**{field: (VALUES | changed)[field] for field in names})


def screened(name, suspects, checkpoints=None, progress=quiet, **changed):
    return SCREENS[name](
        suspects, options_of(name, **changed), progress, checkpoints or NoCheckpoints()
    )


@pytest.fixture(scope="module")
def train():
    return images((60, 50, 55))


@pytest.fixture(scope="module")
def poisons(train):
    """Five images of class 1, near a pattern that no class has."""
    return planted(train, 1, 5)


@pytest.fixture(scope="module")
def suspects(train, poisons):
    return suspects_of(train, poisons)


# --- every screen ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCREENS)
def test_a_screening_is_valid_and_the_seed_s_alone(suspects, train, name):
    """A score for each image, some of each class kept; the same bits whatever torch's own seed."""
    brief = replace(VALUES["training"], epochs=1)  # with more, neighbours agree in every network
    found = screened(name, suspects, training=brief)
    found.check(train)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = screened(name, suspects, training=brief)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found.scores, again.scores)
    assert torch.equal(found.kept, again.kept)
    other = screened(name, replace(suspects, seed=6), training=brief)
    assert torch.equal(found.scores, other.scores) == (name in SEEING)


@pytest.mark.parametrize("name", [name for name in SCREENS if name != "oracle"])
def test_only_the_oracle_looks_at_what_is_poisoned(suspects, name):
    found = screened(name, suspects)
    blind = screened(name, replace(suspects, poisoned=~suspects.poisoned))
    assert torch.equal(found.scores, blind.scores)
    assert torch.equal(found.kept, blind.kept)


@pytest.mark.parametrize("name", SCREENS)
def test_images_and_poisons_are_left_alone(train, poisons, suspects, name):
    before = train.pixels.clone(), poisons.pixels.clone()
    screened(name, suspects)
    assert torch.equal(train.pixels, before[0])
    assert torch.equal(poisons.pixels, before[1])


@pytest.mark.parametrize("name", SCREENS)
def test_a_resumed_screen_ends_with_the_same_bits(suspects, name):
    """From a state after about half of the steps; its facts are what JSON holds."""
    states = []

    class Keeping(NoCheckpoints):
        def offer(self, state):
            tensors = {
                group: {key: value.detach().clone() for key, value in own.items()}
                for group, own in state.tensors.items()
            }
            states.append(State(tensors, json.loads(json.dumps(dict(state.facts)))))

    class Resuming(NoCheckpoints):
        def resume(self):
            return states[(len(states) - 1) // 2]

    whole = screened(name, suspects, Keeping())
    assert bool(states) == (name not in SEEING | {"random"})
    if states:
        told = []
        resumed = screened(name, suspects, Resuming(), lambda *step: told.append(step))
        assert torch.equal(whole.scores, resumed.scores)
        assert torch.equal(whole.kept, resumed.kept)
        assert told[0][0] > 1 or len(states) == 1


@pytest.mark.parametrize("name", [name for name in SCREENS if hasattr(options_of(name), "drop")])
@pytest.mark.parametrize(("drop", "dropped"), [("3/20", [9, 8, 9]), ("0", [0, 0, 0])])
def test_a_share_of_each_class_is_left_out(suspects, train, name, drop, dropped):
    """⌈drop · n⌉ images, those of highest score."""
    found = screened(name, suspects, drop=drop)
    for c, k in enumerate(dropped):
        mine = train.labels == c
        assert int((mine & ~found.kept).sum()) == k
        if k:
            assert found.scores[mine & ~found.kept].min() >= found.scores[mine & found.kept].max()


# --- the simple ones -------------------------------------------------------------------------


def test_none_keeps_all(suspects):
    found = screened("none", suspects)
    assert found.kept.all()
    assert found.scores.eq(0).all()


def test_the_oracle_leaves_out_exactly_the_poisons(suspects, poisons):
    found = screened("oracle", suspects)
    assert (~found.kept).nonzero().flatten().tolist() == poisons.indices.tolist()
    assert torch.equal(found.scores == 1, ~found.kept)


def test_random_leaves_out_each_image_equally_often(suspects, train):
    """Of 2000 draws about 2000 · k/n, by the binomial's standard deviation."""
    dropped = torch.zeros(len(train.labels))
    for seed in range(2000):
        dropped += ~screened("random", replace(suspects, seed=seed)).kept
    for c, (k, n) in enumerate([(9, 60), (8, 50), (9, 55)]):
        mine = dropped[train.labels == c]
        spread = (2000 * k / n * (1 - k / n)) ** 0.5
        assert (mine - 2000 * k / n).abs().max() < 4.5 * spread


@pytest.mark.parametrize("drop", ["0", "1/100", "3/10", "0.3", "7/100", "99/100"])
def test_keep_without_top_drops_exactly_the_highest(drop):
    labels = torch.arange(3).repeat_interleave(torch.tensor([100, 7, 230]))
    scores = torch.rand(337, generator=generator("top"), dtype=torch.float64)
    if drop == "99/100":  # of seven it is seven
        with pytest.raises(RecordError, match="drop 99/100 leaves out all 7 images of class 1"):
            keep_without_top(scores, labels, 3, drop)
        return
    kept = keep_without_top(scores, labels, 3, drop)
    for c, n in enumerate((100, 7, 230)):
        mine = (labels == c).nonzero().flatten().tolist()
        worst = sorted(mine, key=lambda i: -scores[i])[: rates.count(drop, n)]
        assert {i for i in mine if not kept[i]} == set(worst)


def test_of_equal_scores_the_earlier_is_dropped():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    scores = torch.tensor([1, 2, 2, 0, 5, 5], dtype=torch.float64)
    kept = keep_without_top(scores, labels, 2, "1/4")
    assert kept.tolist() == [True, False, True, True, False, True]


# --- spectral signatures ---------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30), (12, 12), (200, 3), (1, 5), (2, 5)])
def test_signatures_are_numpy_s_singular_vector(n, d):
    features = torch.randn(n, d, generator=generator("signatures", n, d)) + 3
    features[: n // 4] += 2
    exact = features.double().numpy()
    centred = exact - exact.mean(0)
    expected = (centred @ np.linalg.svd(centred, full_matrices=False)[2][0]) ** 2
    found = signatures(features)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_equal_features_have_signatures_of_zero():
    assert signatures(torch.full((6, 4), 0.1)).abs().max() < 1e-20


def test_spectral_signatures_leave_out_planted_poisons(suspects, poisons):
    found = screened("spectral_signatures", suspects)
    assert not found.kept[poisons.indices].any()


# --- condensers keep to a screening ----------------------------------------------------------


OPTIONS = Options(
    ipc=3,
    batch=10,
    iterations=4,
    learning_rate=20.0,
    momentum=0.5,
    initialisation="real",
    log_every=1,
)
ESTIMATORS = plugins.load("estimator").plugins
METHODS = {
    "mean": Calibration(ESTIMATORS["mean"], None),
    "contrastive_mean": Calibration(
        ESTIMATORS["contrastive_mean"],
        ESTIMATORS["contrastive_mean"].options(
            drop="3/10", others=20, ridge=0.1, power_iterations=10
        ),
    ),
}


def condensed(train, poisons, screening, methods):
    data = TrainingData(train, poisons, screening)
    task = Task(data, ConvNet(3, 8, 3, 4, 2), ("flip", "crop"), methods, 5, 0, "cpu")
    return dm(task, OPTIONS, quiet, NoCheckpoints())


@pytest.mark.parametrize("initialisation", ["real", "noise"])
def test_after_no_screen_the_condensed_set_is_the_same_bits(
    train, poisons, suspects, initialisation, monkeypatch
):
    monkeypatch.setitem(globals(), "OPTIONS", replace(OPTIONS, initialisation=initialisation))
    plain = condensed(train, poisons, None, METHODS)
    after = condensed(train, poisons, screened("none", suspects), METHODS)
    for name in METHODS:
        assert torch.equal(plain[name][0].inputs, after[name][0].inputs)
        pd.testing.assert_frame_equal(plain[name][1], after[name][1], check_exact=True)


@pytest.mark.parametrize("methods", [["mean"], ["contrastive_mean"], list(METHODS)], ids="+".join)
@pytest.mark.parametrize("screen", SCREENS)
def test_a_condenser_never_draws_what_a_screen_left_out(
    train, poisons, suspects, screen, methods, monkeypatch
):
    """Alone and in a panel, as starts and in minibatches."""
    drawn = []
    pixels = TrainingData.pixels

    def noted(self, indices):
        drawn.extend(indices.tolist())
        return pixels(self, indices)

    screening = screened(screen, suspects)
    monkeypatch.setattr(TrainingData, "pixels", noted)
    made = condensed(train, poisons, screening, {name: METHODS[name] for name in methods})
    assert len(drawn) == 3 * 3 + 4 * 3 * 10
    assert screening.kept[drawn].all()
    if screen == "oracle":
        assert all((trace.poisons == 0).all() for _, trace in made.values())
