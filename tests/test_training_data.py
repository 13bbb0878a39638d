"""The training split as condensers find it, against one that is copied and cut."""

import pytest
import torch

from rdmdc.randomness import generator
from rdmdc.records import PoisonSet, RecordError, Screening
from rdmdc.training_data import TrainingData


@pytest.fixture(scope="module")
def poisons(train):
    """Two ants, out of order, and three bees."""
    pixels = torch.randint(0, 256, (5, 3, 8, 8), generator=generator("poisons"))
    indices = torch.tensor([5, 2, 13, 20, 25])
    return PoisonSet(indices, train.labels[indices], pixels.to(torch.uint8))


@pytest.fixture(scope="module")
def screening(train):
    """A third of the images is left out, poisons among them."""
    scores = torch.rand(39, generator=generator("screen"), dtype=torch.float64)
    return Screening(scores, scores < 2 / 3)


@pytest.mark.parametrize("poisoned", [False, True])
@pytest.mark.parametrize("screened", [False, True])
def test_images_are_those_of_the_poisoned_split(train, poisons, screening, poisoned, screened):
    """Under the split's own indices, whatever is left out."""
    data = TrainingData(train, poisons if poisoned else None, screening if screened else None)
    expected = poisons.apply(train) if poisoned else train
    order = torch.randperm(39, generator=generator("order"))
    assert torch.equal(data.pixels(order), expected.pixels[order])
    assert data.poisoned(order).tolist() == [
        poisoned and i in poisons.indices.tolist() for i in order.tolist()
    ]
    assert data.class_names == train.class_names
    assert data.normalisation == train.normalisation
    assert data.shape == (3, 8, 8)
    assert torch.equal(data.labels, train.labels)


@pytest.mark.parametrize("screened", [False, True])
def test_a_class_has_its_kept_images(train, screening, screened):
    data = TrainingData(train, None, screening if screened else None)
    kept = screening.kept if screened else torch.ones(39, dtype=torch.bool)
    expected = [[i for i in range(39) if train.labels[i] == c and kept[i]] for c in range(3)]
    assert [data.indices(c).tolist() for c in range(3)] == expected
    assert data.counts() == [len(own) for own in expected]


def test_a_draw_takes_distinct_kept_images_each_equally_often(train, poisons, screening):
    """Every kept bee is drawn about 2000 · 4/n times, by the binomial's standard deviation."""
    data = TrainingData(train, poisons, screening)
    own = data.indices(1)
    counts = {bytes(data.pixels(own[i : i + 1])[0].flatten().tolist()): 0 for i in range(len(own))}
    laid = {bytes(p.flatten().tolist()) for p in poisons.pixels}
    for seed in range(2000):
        pixels, poisoned = data.draw(1, 4, generator("draw", seed))
        drawn = [bytes(p.flatten().tolist()) for p in pixels]
        assert len(set(drawn)) == 4
        assert poisoned.tolist() == [image in laid for image in drawn]
        for image in drawn:
            counts[image] += 1  # a KeyError is an image that was left out
    share = 4 / len(own)
    spread = (2000 * share * (1 - share)) ** 0.5
    assert max(abs(count - 2000 * share) for count in counts.values()) < 4 * spread


def test_a_draw_depends_on_its_generator_and_what_is_kept_alone(train, poisons):
    """The same places in the class, poisoned or clean, whatever other classes leave out."""
    kept = train.labels != 0
    kept[0] = True
    others = Screening(torch.zeros(39, dtype=torch.float64), kept)
    clean, laid, cut = (
        TrainingData(train, *given).draw(1, 5, generator("one"))[0]
        for given in ((None,), (poisons,), (None, others))
    )
    assert torch.equal(clean, cut)
    differing = (clean != laid).flatten(1).any(1)
    assert 0 < int(differing.sum()) < 5


def test_nothing_is_changed(train, poisons):
    before = train.pixels.clone(), poisons.pixels.clone()
    data = TrainingData(train, poisons)
    data.pixels(torch.arange(39)).zero_()
    data.draw(1, 14, generator("any"))[0].zero_()
    assert torch.equal(train.pixels, before[0])
    assert torch.equal(poisons.pixels, before[1])


def test_a_class_that_keeps_too_few_images(train, screening):
    least = min(TrainingData(train, None, screening).counts())
    data = TrainingData(train, None, screening)
    data.require(least, "the batch")
    fault = rf"the batch is {least + 1}, but class '\w+' has {least} images; lower it"
    with pytest.raises(RecordError, match=fault):
        data.require(least + 1, "the batch")


def test_poisons_or_a_screening_of_another_split(train, poisons):
    other = PoisonSet(torch.tensor([39]), torch.tensor([2]), poisons.pixels[:1])
    with pytest.raises(RecordError, match=r"index is outside 0\.\.38"):
        TrainingData(train, other)
    short = Screening(torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.bool))
    with pytest.raises(RecordError, match="4 screened images, 39 in the training split"):
        TrainingData(train, None, short)
