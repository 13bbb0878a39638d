"""The screen by contrast: what is planted is found, whatever the size and number of classes."""

import pytest
import scipy.linalg
import torch

from rdmdc.checkpoints import NoCheckpoints, State
from rdmdc.contrast import ContrastError
from rdmdc.models import running
from rdmdc.networks.convnet import ConvNet
from rdmdc.records import LabelledImages, Normalisation, PoisonSet, RecordError
from rdmdc.screens.contrastive import Options, contrastive, relative_to_median
from rdmdc.screens.projecting import project
from rdmdc.screens.screening import Suspects
from rdmdc.training_data import TrainingData

OPTIONS = Options(networks=3, others=60, ridge=0.1, power_iterations=40, sample=1000, drop="3/20")


def quiet(done, total, loss):
    pass


def images(counts, seed=0):
    """Classes with a pattern each, of varying brightness and with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    patterns = 128 + 40 * torch.randn(len(counts), 3, 8, 8, generator=generator)
    shade = 40 * torch.randn(len(labels), 1, 1, 1, generator=generator)
    noise = 15 * torch.randn(len(labels), 3, 8, 8, generator=generator)
    pixels = (patterns[labels] + shade + noise).round().clamp(0, 255).to(torch.uint8)
    names = tuple(f"class {c}" for c in range(len(counts)))
    return LabelledImages(pixels, labels, names, Normalisation((0.5,) * 3, (0.25,) * 3))


def planted(train, label, count):
    """The first images of a class, drawn most of the way to a pattern that no class has."""
    indices = (train.labels == label).nonzero().squeeze(1)[:count]
    pattern = 128 + 40 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(77))
    pixels = 0.2 * train.pixels[indices] + 0.8 * pattern
    return PoisonSet(indices, train.labels[indices], pixels.round().clamp(0, 255).to(torch.uint8))


def suspects_of(train, poisons=None, seed=5, augmentation=("flip", "crop")):
    data = TrainingData(train, poisons)
    poisoned = data.poisoned(torch.arange(len(train.labels)))
    network = ConvNet(3, 8, len(train.class_names), 8, 2)
    return Suspects(data, poisoned, network, augmentation, seed, "cpu")


def test_planted_images_have_the_highest_scores_of_their_class():
    train = images((60, 50, 55))
    poisons = planted(train, 1, 5)
    found = contrastive(suspects_of(train, poisons), OPTIONS, quiet, NoCheckpoints())
    mine = found.scores[train.labels == 1]
    assert set(mine.topk(5).indices.tolist()) == set(range(5))
    assert not found.kept[poisons.indices].any()
    dropped = [int((~found.kept & (train.labels == c)).sum()) for c in range(3)]
    assert dropped == [9, 8, 9]  # ⌈3/20 · n⌉


def test_projections_are_on_scipy_s_generalised_eigenvector():
    suspects = suspects_of(images((60, 50, 55)), augmentation=())
    along = project(suspects, OPTIONS, 0, 1)[1][:, 0].double()
    weights = suspects.network.draw(suspects.generator("network", 0))

    def embed(indices):
        inputs = suspects.images.normalisation.normalise(suspects.images.pixels(indices))
        return running.embed_all(suspects.network, weights, inputs).double()

    rows = []  # the same images as drawn inside, by the same generators
    for c in (0, 2):
        indices = suspects.images.indices(c)
        order = torch.randperm(len(indices), generator=suspects.generator("compared", 0, c))
        compared = embed(indices[order[:32]])
        rows.append(compared - compared.mean(0))
    generator = suspects.generator("sample", 0, 1)
    torch.randperm(50, generator=generator)
    others = torch.cat(rows)[torch.randperm(64, generator=generator)[:60]]
    own = embed(suspects.images.indices(1))
    own = own - own.mean(0)
    regular = others.T @ others / len(others)
    identity = torch.eye(len(regular), dtype=torch.float64)
    regular = regular + 0.1 * regular.trace() / min(others.shape) * identity
    w = scipy.linalg.eigh((own.T @ own / len(own)).numpy(), regular.numpy())[1][:, -1]
    expected = own @ torch.from_numpy(w.copy())
    cosine = torch.nn.functional.cosine_similarity(expected, along, dim=0)
    assert abs(float(cosine)) == pytest.approx(1, abs=1e-4)
    assert float(along.norm()) == pytest.approx(float(expected.norm()), rel=1e-3)


def test_all_images_are_scored_where_the_directions_come_from_a_sample():
    train = images((60, 50, 55))
    poisons = planted(train, 1, 10)
    few = Options(**{**vars(OPTIONS), "sample": 30})
    found = contrastive(suspects_of(train, poisons), few, quiet, NoCheckpoints())
    assert set(found.scores[train.labels == 1].topk(10).indices.tolist()) == set(range(10))


def test_the_same_seed_gives_the_same_scores_and_another_seed_others():
    train = images((20, 25))
    one, again, other = (
        contrastive(suspects_of(train, seed=seed), OPTIONS, quiet, NoCheckpoints())
        for seed in (5, 5, 6)
    )
    assert torch.equal(one.scores, again.scores)
    assert not torch.equal(one.scores, other.scores)


def test_a_resumed_screen_ends_with_the_same_scores():
    suspects = suspects_of(images((20, 25)))
    states = []

    class Keeping(NoCheckpoints):
        def offer(self, state):
            scores = state.tensors["screen"]["scores"].clone()
            states.append(State({"screen": {"scores": scores}}, dict(state.facts)))

    class Resuming(NoCheckpoints):
        def resume(self):
            return states[0]

    whole = contrastive(suspects, OPTIONS, quiet, Keeping())
    assert torch.equal(contrastive(suspects, OPTIONS, quiet, Resuming()).scores, whole.scores)


@pytest.mark.parametrize("counts", [(30, 30), (2, 40, 30), (1, 40, 30), (6,) * 40])
def test_any_number_and_size_of_classes_has_finite_scores(counts):
    none = Options(**{**vars(OPTIONS), "drop": "0"})
    found = contrastive(suspects_of(images(counts)), none, quiet, NoCheckpoints())
    assert found.kept.all()


def test_one_class_has_nothing_to_be_compared_with():
    with pytest.raises(ContrastError, match="needs a second class"):
        contrastive(suspects_of(images((30,))), OPTIONS, quiet, NoCheckpoints())


def test_a_class_that_would_be_left_empty_is_an_error():
    with pytest.raises(RecordError, match="all 1 images of class 0"):
        contrastive(suspects_of(images((1, 30, 30))), OPTIONS, quiet, NoCheckpoints())


def test_distances_are_relative_to_the_median_or_where_it_is_zero_to_the_mean():
    values = torch.tensor([4.0, 0.0, 2.0], dtype=torch.float64)
    assert relative_to_median(values).tolist() == [2, 0, 1]
    assert relative_to_median(torch.tensor([0.0, 0.0, 3.0])).tolist() == [0, 0, 3]
    assert relative_to_median(torch.zeros(3)).tolist() == [0, 0, 0]
