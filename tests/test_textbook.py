"""The fast path against the textbook loop that the benchmark runs beside it."""

import pytest
import textbook
import torch

from rdmdc.condensers.dm import Options, dm
from rdmdc.condensers.task import Calibration, Task
from rdmdc.estimators import spectral_mean as spectral
from rdmdc.estimators.estimate import Drop
from rdmdc.estimators.mean import mean
from rdmdc.estimators.truncated_mean import truncated_mean
from rdmdc.models import running
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, Normalisation
from rdmdc.training_data import TrainingData

pytestmark = pytest.mark.usefixtures("compiled")

STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
NETWORK = ConvNet(channels=3, side=32, classes=3, width=32, depth=3)
OPTIONS = Options(
    ipc=4,
    batch=16,
    iterations=20,
    learning_rate=0.2,
    momentum=0.5,
    initialisation="noise",
    log_every=20,
)


@pytest.fixture(scope="module")
def images():
    """Three classes of twenty: a colour each, a texture each, noise."""
    draws = generator("textbook images")
    patterns = torch.randint(0, 256, (3, 3, 4, 4), generator=draws).repeat(1, 1, 8, 8)
    labels = torch.arange(3).repeat_interleave(20)
    noise = torch.randn((60, 3, 32, 32), generator=draws) * 50
    pixels = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
    return LabelledImages(pixels, labels, ("a", "b", "c"), Normalisation((0.5,) * 3, (0.25,) * 3))


def class_augment(drawn):
    """What a class's images go through under an iteration's draws."""
    return lambda batch, c: augment(
        batch[None], Draw((drawn.operations[c],), drawn.uniforms[c : c + 1])
    )[0]


def the_loop(train, options, seed):
    """Distribution matching by the textbook, from the numbers that the package would draw."""
    shape = (3 * options.ipc, 3, 32, 32)
    made = torch.randn(shape, generator=generator(seed, "condense", 0, "start"))
    momentum = torch.zeros_like(made)
    normalised = train.normalisation.normalise(train.pixels)
    for number in range(options.iterations):
        purpose = (seed, "condense", 0, number)
        book = textbook.ConvNet(NETWORK.draw(generator(*purpose, "network")), frozen=True)
        drawn = draw(STRATEGY, 3, generator(*purpose, "augmentation"), shared=False)
        orders = [torch.randperm(20, generator=generator(*purpose, "batch", c)) for c in range(3)]
        real = [normalised[20 * c + orders[c][: options.batch]] for c in range(3)]
        gradient = textbook.matching_gradient(
            book, real, made, class_augment(drawn), textbook.mean, 0, [torch.empty(0)] * 3
        )
        momentum = options.momentum * momentum + gradient
        made = made - options.learning_rate * momentum
    return made


def test_twenty_iterations(images, quiet, never):
    """To 1e-4 of the set, which moves by 5e-2. The rate is low: where rounding decides a ReLU, two
    paths in single precision part, and torch's own from the textbook's as much as ours."""
    expected = the_loop(images, OPTIONS, 7)
    methods = {"dm": Calibration(mean, None)}
    task = Task(TrainingData(images), NETWORK, STRATEGY, methods, 7, 0, "cpu")
    made = dm(task, OPTIONS, quiet, never)["dm"][0].inputs
    start = torch.randn(made.shape, generator=generator(7, "condense", 0, "start"))
    assert (expected - start).norm() > 0.04 * start.norm(), "nothing has moved"
    assert (made - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        (spectral.spectral_mean, spectral.Options(drop="3/10", power_iterations=200)),
        (truncated_mean, Drop(drop="3/10")),
    ],
    ids=["spectral_mean", "truncated_mean"],
)
def test_filters_keep_what_the_textbook_keeps(images, estimator, options):
    """But for samples whose scores are within 1e-5 of the last that is kept."""
    weights = NETWORK.draw(generator("filter network"))
    inputs = images.normalisation.normalise(images.pixels)
    exact = textbook.ConvNet(weights, frozen=True).double().embed(inputs.double()).view(3, 20, -1)
    fast = running.embed_all(NETWORK, weights, inputs).view(3, 20, -1)
    estimate = estimator(fast, [generator("v", c) for c in range(3)], options)
    for c in range(3):
        centred = exact[c] - exact[c].mean(0)
        scores = centred.norm(dim=1)
        if estimator is spectral.spectral_mean:
            scores = (centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]).abs()
        limit = scores.sort().values[13:15].mean()  # 6 of 20 are dropped
        clear = (scores - limit).abs() > 1e-5 * scores.max()
        assert clear.sum() >= 18
        assert torch.equal(estimate.kept[c][clear], (scores < limit)[clear])
        aggregate = exact[c][estimate.kept[c]].mean(0)
        assert (estimate.value[c] - aggregate).norm() < 1e-5 * aggregate.norm()
