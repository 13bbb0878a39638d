"""Records refuse what contradicts itself, normalise as numpy does, and are never changed."""

import numpy as np
import pytest
import torch

from rdmdc.records import (
    LabelledImages,
    Normalisation,
    PoisonSet,
    RecordError,
    Screening,
    SyntheticSet,
    Target,
)

NORMALISATION = Normalisation((0.5, 0.25, 0.1), (0.2, 0.3, 0.05))
NAMES = ("ant", "bee", "cat")


def pixels(*shape, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def images(**changed):
    """Seven images of classes 0, 0, 1, 1, 1, 2, 2, with some fields changed."""
    fields = {
        "pixels": pixels(7, 3, 2, 4),
        "labels": torch.tensor([0, 0, 1, 1, 1, 2, 2]),
        "class_names": NAMES,
        "normalisation": NORMALISATION,
    }
    return LabelledImages(**(fields | changed))


def poisons(**changed):
    fields = {
        "indices": torch.tensor([4, 2]),
        "labels": torch.tensor([1, 1]),
        "pixels": pixels(2, 3, 2, 4, seed=1),
    }
    return PoisonSet(**(fields | changed))


def target(**changed):
    fields = {"seed": 3, "index": 0, "pixels": pixels(3, 2, 4)}
    return Target(**(fields | {"true_label": 0, "adversarial_label": 1} | changed))


def synthetic(**changed):
    fields = {
        "inputs": torch.randn(6, 3, 2, 4, generator=torch.Generator().manual_seed(0)),
        "labels": torch.tensor([0, 0, 1, 1, 2, 2]),
        "class_names": NAMES,
        "normalisation": NORMALISATION,
    }
    return SyntheticSet(**(fields | changed))


def screening(**changed):
    """Leaves out one image of the last two classes."""
    fields = {
        "scores": torch.tensor([0, 1, 0, 3, 0, 2, -1.0], dtype=torch.float64),
        "kept": torch.tensor([1, 1, 1, 0, 1, 0, 1]).bool(),
    }
    return Screening(**(fields | changed))


def with_bad_pixel(value):
    inputs = torch.zeros(6, 3, 2, 4)
    inputs[2, 1, 0, 3] = inputs[5, 0, 1, 0] = value
    return inputs


FAULTS = [
    (Normalisation, {"mean": (0.5,), "std": (0.5, 0.5)}, "1 means, 2 stds"),
    (Normalisation, {"mean": (0.5, 0), "std": (0.5, 0.0)}, "not positive"),
    (Normalisation, {"mean": (0.5,), "std": (float("nan"),)}, "not positive"),
    (Normalisation, {"mean": (0.5,), "std": (float("inf"),)}, "not finite"),
    (Normalisation, {"mean": (float("nan"),), "std": (0.5,)}, "not finite"),
    (images, {"pixels": torch.zeros(7, 3, 2, 4)}, "float32, not uint8"),
    (images, {"pixels": pixels(7, 8)}, r"\(7, 8\), not N,C,H,W"),
    (images, {"labels": torch.zeros(7, dtype=torch.int32)}, "int32, not int64"),
    (images, {"labels": torch.tensor([0, 1, 2])}, r"7 images but labels of shape \(3,\)"),
    (images, {"labels": torch.tensor([[0, 0, 1, 1, 1, 2, 2]])}, r"labels of shape \(1, 7\)"),
    (images, {"normalisation": Normalisation((0.5,), (0.5,))}, "1 normalisation means, 3 ch"),
    (images, {"labels": torch.tensor([0, 0, 1, 1, 1, 2, 3])}, r"labels 0\.\.3 outside 0\.\.2"),
    (images, {"labels": torch.tensor([-1, 0, 1, 1, 1, 2, 2])}, r"labels -1\.\.2 outside 0\.\.2"),
    (images, {"labels": torch.tensor([0, 0, 0, 0, 0, 2, 2])}, "no images of class bee"),
    (images, {"labels": torch.tensor([0, 1, 0, 1, 1, 2, 2])}, "not sorted by class"),
    (images, {"pixels": pixels(0, 3, 2, 4), "labels": torch.tensor([]).long()}, "ant, bee, cat"),
    (target, {"adversarial_label": 0}, "target 3: the adversarial label 0 is the true label"),
    (target, {"pixels": torch.zeros(3, 2, 4)}, "target 3: pixels must be uint8"),
    (target, {"pixels": pixels(1, 3, 2, 4)}, r"must be uint8 \(C, H, W\)"),
    (target, {"index": -1}, "target 3: a negative index or label"),
    (target, {"true_label": -1}, "target 3: a negative index or label"),
    (poisons, {"pixels": torch.zeros(2, 3, 2, 4)}, "float32, not uint8"),
    (poisons, {"pixels": pixels(3, 3, 2, 4)}, r"2 indices, 2 labels, pixels \(3, 3, 2, 4\)"),
    (poisons, {"pixels": pixels(2, 24)}, r"2 labels, pixels \(2, 24\)"),
    (poisons, {"labels": torch.tensor([1])}, "2 indices, 1 labels"),
    (poisons, {"indices": torch.tensor([4, 4])}, "poisoned twice"),
    (poisons, {"indices": torch.tensor([1, 0], dtype=torch.uint8)}, "uint8, not int64"),
    (poisons, {"labels": torch.tensor([1.0, 1.0])}, "float32, not int64"),
    (synthetic, {"inputs": torch.zeros(6, 3, 2, 4).double()}, "float64, not float32"),
    (synthetic, {"inputs": torch.zeros(6, 24)}, r"\(6, 24\), not N,C,H,W"),
    (synthetic, {"labels": torch.tensor([0, 1, 2])}, "as many labels"),
    (
        synthetic,
        {"inputs": with_bad_pixel(float("nan"))},
        "2 of 6 .* lower the condenser's learning_rate",
    ),
    (
        synthetic,
        {"inputs": with_bad_pixel(-float("inf"))},
        "2 of 6 .* lower the condenser's learning_rate",
    ),
    (synthetic, {"labels": torch.tensor([0, 0, 1, 1, 1, 2])}, r"differ: \[2, 3, 1\]"),
    (synthetic, {"labels": torch.tensor([0, 0, 1, 1, 1, 1])}, r"differ: \[2, 4, 0\]"),
    (synthetic, {"labels": torch.tensor([0, 0, 1, 1, 3, 3])}, r"labels 0\.\.3 outside 0\.\.2"),
    (synthetic, {"labels": torch.tensor([-1, -1, 0, 0, 1, 1])}, r"labels -1\.\.1 outside 0\.\.2"),
    (synthetic, {"labels": torch.zeros(6)}, "float32, not int64"),
    (synthetic, {"labels": torch.tensor([0, 1, 0, 1, 2, 2])}, "not sorted by class"),
    (synthetic, {"normalisation": Normalisation((0.5,), (0.5,))}, "1 normalisation means, 3 ch"),
    (screening, {"scores": torch.zeros(7)}, "scores are torch.float32 .* not float64"),
    (screening, {"scores": torch.zeros(7, 1).double()}, r"float64 \(7, 1\), not float64 \(N,\)"),
    (screening, {"kept": torch.ones(7)}, "kept is torch.float32 .* not bool like the scores"),
    (screening, {"kept": torch.ones(6).bool()}, r"bool \(6,\), not bool like the scores"),
    (screening, {"scores": torch.tensor([float("nan")] * 2 + [0] * 5).double()}, "2 scores are"),
    (screening, {"scores": torch.tensor([float("inf")] + [0] * 6).double()}, "1 scores are NaN or"),
]


@pytest.mark.parametrize(("make", "changed", "fault"), FAULTS)
def test_fault(make, changed, fault):
    with pytest.raises(RecordError, match=fault):
        make(**changed)


def test_sound_records_are_made():
    assert images().counts().tolist() == [2, 3, 2]
    assert images().class_start().tolist() == [0, 2, 5]
    assert synthetic().ipc == 2
    target().check(images())
    poisons().check(images())
    synthetic().check(images())
    screening().check(images())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalise_is_numpys_and_images_takes_it_back(dtype):
    given = pixels(2, 7, 3, 4, 5).to(dtype)
    mean, std = (np.array(v)[:, None, None] for v in (NORMALISATION.mean, NORMALISATION.std))
    inputs = NORMALISATION.normalise(given)
    assert inputs.dtype == torch.float32
    np.testing.assert_allclose(inputs, (given.numpy() / 255.0 - mean) / std, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(NORMALISATION.images(inputs), given.numpy() / 255.0, atol=1e-6)


def test_images_are_clipped():
    inputs = torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert NORMALISATION.images(inputs).flatten(1).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_normalise_is_differentiable():
    given = pixels(3, 2, 2).float().requires_grad_()
    NORMALISATION.normalise(given).sum().backward()
    expected = 1 / (255 * torch.tensor(NORMALISATION.std))
    torch.testing.assert_close(given.grad, expected[:, None, None].expand(3, 2, 2))


def test_apply_is_a_loop_over_a_copy():
    train, laid = images(), poisons()
    before = train.pixels.clone()
    poisoned = laid.apply(train)
    assert torch.equal(train.pixels, before)
    for i in range(7):
        where = laid.indices.tolist()
        expected = laid.pixels[where.index(i)] if i in where else before[i]
        assert torch.equal(poisoned.pixels[i], expected)
    assert torch.equal(poisoned.labels, train.labels)
    assert poisoned.normalisation == train.normalisation
    poisoned.pixels.zero_()
    assert torch.equal(train.pixels, before)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"pixels": pixels(2, 3, 4, 2)}, r"shape \(3, 4, 2\), images of \(3, 2, 4\)"),
        ({"indices": torch.tensor([4, 7])}, r"outside 0\.\.6"),
        ({"indices": torch.tensor([4, -1])}, r"outside 0\.\.6"),
        ({"labels": torch.tensor([1, 2])}, "label differs"),
    ],
)
@pytest.mark.parametrize("use", ["apply", "check"])
def test_poisons_that_do_not_fit(changed, fault, use):
    with pytest.raises(RecordError, match=fault):
        getattr(poisons(**changed), use)(images())


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"pixels": pixels(3, 4, 2)}, r"target 3 has shape \(3, 4, 2\), the images \(3, 2, 4\)"),
        ({"adversarial_label": 3}, r"target 3: a label outside 0\.\.2"),
        ({"true_label": 3}, r"target 3: a label outside 0\.\.2"),
    ],
)
def test_a_target_that_does_not_fit(changed, fault):
    with pytest.raises(RecordError, match=fault):
        target(**changed).check(images())


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"class_names": ("ant", "cat", "bee")}, "differ in class_names"),
        ({"normalisation": Normalisation((0.5,) * 3, (0.2,) * 3)}, "differ in normalisation"),
        ({"inputs": torch.zeros(6, 3, 4, 4)}, r"shape \(3, 4, 4\), images of \(3, 2, 4\)"),
    ],
)
def test_a_condensed_set_that_does_not_fit(changed, fault):
    with pytest.raises(RecordError, match=fault):
        synthetic(**changed).check(images())


def test_a_screening_of_another_split():
    short = {"scores": torch.zeros(6).double(), "kept": torch.ones(6).bool()}
    with pytest.raises(RecordError, match="6 screened images, 7 in the training split"):
        screening(**short).check(images())


def test_a_screening_that_leaves_nothing_of_a_class():
    kept = torch.tensor([1, 1, 0, 0, 0, 1, 1]).bool()
    with pytest.raises(RecordError, match="no image of class 'bee'; lower its drop"):
        screening(kept=kept).check(images())
