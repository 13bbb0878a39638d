"""Herding and k-centre against every choice tried in plain Python."""

import numpy as np
import pytest
import torch
from test_condense import poison, screening_of

from rdmdc import plugins
from rdmdc.condensers.choosing import Options
from rdmdc.condensers.herding import nearest_mean
from rdmdc.condensers.k_centre import farthest_first
from rdmdc.condensers.task import Task
from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

CORESETS = ("herding", "k_centre")


def herded(vectors, count):
    chosen = []
    for _ in range(count):
        trials = {
            i: np.linalg.norm(vectors.mean(0) - vectors[[*chosen, i]].mean(0))
            for i in range(len(vectors))
            if i not in chosen
        }
        chosen.append(min(trials, key=trials.get))
    return chosen


def spread(vectors, count):
    chosen = [int(np.linalg.norm(vectors - vectors.mean(0), axis=1).argmin())]
    while len(chosen) < count:
        trials = {
            i: min(np.linalg.norm(vectors[i] - vectors[j]) for j in chosen)
            for i in range(len(vectors))
            if i not in chosen
        }
        chosen.append(max(trials, key=trials.get))
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("choice", "plain"), [(nearest_mean, herded), (farthest_first, spread)])
def test_against_plain_python(choice, plain, seed):
    vectors = torch.randn(11, 4, generator=generator("rows", seed), dtype=torch.float64)
    assert choice(vectors, 6).tolist() == plain(vectors.numpy(), 6)


@pytest.mark.parametrize("choice", [nearest_mean, farthest_first])
def test_copies_of_one_image_are_all_chosen_once(choice):
    assert sorted(choice(torch.ones(4, 2, dtype=torch.float64), 4).tolist()) == [0, 1, 2, 3]


def test_one_centre_is_nearest_to_the_mean_and_the_next_is_an_outlier():
    vectors = torch.tensor([[0.0], [1], [2], [30]], dtype=torch.float64)
    assert farthest_first(vectors, 2).tolist() == [2, 3]
    assert nearest_mean(vectors, 1).tolist() == [2]


@pytest.fixture
def chosen(train, network, quiet, never):
    def chosen(name, ipc=3, pool=99, networks=2, poisons=None, screening=None):
        data = TrainingData(train, poisons, screening)
        task = Task(data, network, ("flip",), {"only": None}, 5, 0, "cpu")
        made = plugins.get("condenser", name, "")(task, Options(ipc, pool, networks), quiet, never)
        return made["only"][0].inputs

    return chosen


@pytest.mark.parametrize(("name", "plain"), [("herding", herded), ("k_centre", spread)])
def test_images_are_chosen_by_their_embeddings_in_all_networks(chosen, train, network, name, plain):
    """Of what the screening leaves, and with the poisons in place."""
    poisons = poison([1, 13], [0, 1])
    screening = screening_of(train, [2, 30])
    pixels, expected = poisons.apply(train).pixels, []
    for label in range(3):
        own = [i for i in range(39) if train.labels[i] == label and i not in (2, 30)]
        inputs = train.normalisation.normalise(pixels[own])
        vectors = [
            network.embed(network.draw(generator(5, "condense", 0, "network", k)), inputs)
            for k in range(2)
        ]
        picked = plain(torch.cat(vectors, 1).double().numpy(), 3)
        expected.append(inputs[picked])
    made = chosen(name, poisons=poisons, screening=screening)
    torch.testing.assert_close(made, torch.cat(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CORESETS)
def test_a_pool_as_small_as_the_set_is_the_set(chosen, name):
    """Then only the draw of the pool decides, so that both choose the same images."""
    one, other = (chosen(n, pool=1).flatten(1) for n in CORESETS)
    assert {tuple(row) for row in one.tolist()} == {tuple(row) for row in other.tolist()}
    assert not torch.equal(chosen(name, pool=1), chosen(name))
