"""Targets: a test image and the label that the attacker wants it to get (§5.1, Figure 2)."""

import torch

from rdmdc.randomness import generator
from rdmdc.records import LabelledImages, RecordError, Target


def draw(test: LabelledImages, seed: int) -> Target:
    """The target of a seed: a uniform test image and a uniform other label.

    Its draws depend on the seed, the size of the split and the number of classes, nothing else.
    """
    classes = len(test.class_names)
    if classes < 2:
        raise RecordError("a target needs a data set of at least two classes")
    index = int(torch.randint(len(test.labels), (), generator=generator("target", seed, "index")))
    other = int(torch.randint(classes - 1, (), generator=generator("target", seed, "label")))
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
