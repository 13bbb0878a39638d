"""Targets: a test image and the label that the attacker wants it to get (§5.1, Figure 2)."""

from __future__ import annotations

import torch

from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, RecordError, Target


def draw(test: LabelledImages, seed: int) -> Target:
    """The target of a seed: an image of the test split, and a uniform label other than its own.

    Images are drawn without replacement: seed s gets the s-th image of one random order of the
    split, so that seeds name different images and a longer list of seeds does not change the draws
    of a shorter one. The draws depend on the seed, the size of the split and the number of classes,
    nothing else. Raises RecordError where the split has no image for the seed.
    """
    classes, size = len(test.class_names), len(test.labels)
    if classes < 2:
        raise RecordError("a target needs a data set of at least two classes")
    if not 0 <= seed < size:
        raise RecordError(
            f"target {seed}: the test split has {size} images, enough for seeds 0..{size - 1};"
            " choose one of these or list the target's index"
        )
    order = torch.randperm(size, generator=generator("target", "order"))
    other = int(torch.randint(classes - 1, (), generator=generator("target", seed, "label")))
    index = int(order[seed])
    true_label = int(test.labels[index])
    return listed(test, seed, index, other + (other >= true_label))


def listed(test: LabelledImages, seed: int, index: int, adversarial_label: int) -> Target:
    """The target at an index of the class-sorted test split; RecordError where it is out of range.

    ``seed`` is its name and what its poisons are drawn from.
    """
    if not 0 <= index < len(test.labels):
        raise RecordError(
            f"target {seed}: index {index} is outside the test split's 0..{len(test.labels) - 1}"
        )
    if not 0 <= adversarial_label < len(test.class_names):
        raise RecordError(
            f"target {seed}: adversarial label {adversarial_label} is outside"
            f" 0..{len(test.class_names) - 1}"
        )
    return Target(
        seed, index, test.pixels[index].clone(), int(test.labels[index]), adversarial_label
    )
