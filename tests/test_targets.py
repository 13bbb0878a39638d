"""Targets: what is drawn, that it stays drawn, and what cannot be a target."""

import pytest
import torch
from scipy.stats import chisquare

from rdmdc.datasets import targets
from rdmdc.records import LabelledImages, Normalisation, RecordError


@pytest.fixture(scope="module")
def many():
    """A split of 1500 images in three classes; each image holds its index."""
    index = torch.arange(1500)
    pixels = torch.stack([index // 256, index % 256], 1).to(torch.uint8).view(1500, 2, 1, 1)
    labels = torch.arange(3).repeat_interleave(500)
    return LabelledImages(pixels, labels, ("a", "b", "c"), Normalisation((0.5,) * 2, (0.5,) * 2))


@pytest.fixture(scope="module")
def drawn(many):
    """The targets of all seeds that the split is enough for."""
    return [targets.draw(many, seed) for seed in range(1500)]


def test_a_target_is_a_test_image_under_another_label(many, drawn):
    for seed, target in enumerate(drawn):
        assert target.seed == seed
        assert torch.equal(target.pixels, many.pixels[target.index])
        assert target.true_label == many.labels[target.index]
        assert target.adversarial_label != target.true_label
        assert 0 <= target.adversarial_label < 3


def test_seeds_name_different_images_and_all_of_them(drawn):
    assert sorted(target.index for target in drawn) == list(range(1500))


def test_the_first_seeds_take_images_of_all_places_and_labels_are_uniform(drawn):
    places = torch.tensor([target.index // 150 for target in drawn[:500]])
    assert chisquare(places.bincount(minlength=10).numpy()).pvalue > 1e-3
    for true_label in range(3):
        others = [t.adversarial_label for t in drawn if t.true_label == true_label]
        higher = sum(label == max({0, 1, 2} - {true_label}) for label in others)
        assert abs(higher / len(others) - 0.5) < 4 * 0.5 / len(others) ** 0.5


def test_neither_index_nor_label_tells_the_other(drawn):
    """Labels are drawn apart from images: by seed, with a generator of its own."""
    steps = [(t.adversarial_label - t.true_label) % 3 for t in drawn]
    early = sum(step == 1 for t, step in zip(drawn, steps, strict=True) if t.index % 2)
    assert abs(early / 750 - 0.5) < 4 * 0.5 / 750**0.5


def test_draws_depend_on_seed_and_sizes_only(test):
    other = LabelledImages(
        255 - test.pixels, test.labels, ("x", "y", "z"), Normalisation((0.1,) * 3, (1.0,) * 3)
    )
    first = [targets.draw(test, seed) for seed in range(25)]
    torch.manual_seed(99)
    for target in reversed(first):  # no seed's draw depends on those before it
        again = targets.draw(other, target.seed)
        for field in ("index", "true_label", "adversarial_label"):
            assert getattr(again, field) == getattr(target, field)
        assert torch.equal(again.pixels, 255 - target.pixels)


@pytest.mark.parametrize("seed", [25, 26, 10**6, -1])
def test_a_seed_outside_the_split(test, seed):
    fault = rf"target {seed}: the test split has 25 images, enough for seeds 0\.\.24; choose"
    with pytest.raises(RecordError, match=fault):
        targets.draw(test, seed)


def test_a_target_does_not_share_memory_with_the_split(test):
    target = targets.listed(test, 1, 4, 2)
    before = test.pixels.clone()
    target.pixels.fill_(7)
    assert torch.equal(test.pixels, before)


def test_two_classes_leave_one_adversarial_label():
    labels = torch.tensor([0, 0, 1])
    pixels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    two = LabelledImages(pixels, labels, ("a", "b"), Normalisation((0.5,), (0.5,)))
    drawn = [targets.draw(two, seed) for seed in range(3)]
    assert all(t.adversarial_label == 1 - t.true_label for t in drawn)


def test_one_class_has_no_target():
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    one = LabelledImages(pixels, torch.tensor([0, 0]), ("a",), Normalisation((0.5,), (0.5,)))
    with pytest.raises(RecordError, match="at least two classes"):
        targets.draw(one, 0)


def test_a_listed_target_is_taken_as_listed(test):
    target = targets.listed(test, 50, 24, 0)
    assert (target.seed, target.index, target.true_label, target.adversarial_label) == (
        50,
        24,
        2,
        0,
    )
    assert torch.equal(target.pixels, test.pixels[24])


@pytest.mark.parametrize(
    ("index", "label", "fault"),
    [
        (25, 0, r"target 6: index 25 is outside the test split's 0\.\.24"),
        (-1, 0, "index -1 is outside"),
        (24, 3, r"target 6: adversarial label 3 is outside 0\.\.2"),
        (24, -1, "adversarial label -1 is outside"),
        (24, 2, "target 6: the adversarial label 2 is the true label"),
    ],
)
def test_what_cannot_be_a_target(test, index, label, fault):
    with pytest.raises(RecordError, match=fault):
        targets.listed(test, 6, index, label)
