"""A record of each kind of artifact, and what saves and loads it."""

import pandas as pd
import pyarrow as pa
import pytest
import torch

from rdmdc.records import (
    LabelledImages,
    Normalisation,
    PoisonSet,
    Screening,
    SyntheticSet,
    Target,
)
from rdmdc.storage.images import (
    load_images,
    load_poisons,
    load_synthetic,
    load_target,
    save_images,
    save_poisons,
    save_synthetic,
    save_target,
)
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.rows import load_rows, save_rows
from rdmdc.storage.screenings import load_screening, save_screening
from rdmdc.storage.weights import load_weights, save_weights

PLAIN = Provenance("a stage", {}, "c0de", {}, 0.0)
NORMALISATION = Normalisation((0.1, 1 / 3, 0.7), (0.2, 1e-3, 1 / 7))
NAMES = ("ant", "Käfer, blue", "cat")
OPTIONS = {"dataset": {"name": "emoji", "classes": ["ant", "cat"]}, "seed": 3, "rate": 0.1}


def pixels(*shape):
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def inputs():
    """Floats whose bits are easily lost: a negative zero, a denormal, a large one."""
    drawn = torch.randn(6, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    drawn[0, 0, 0, :3] = torch.tensor([-0.0, 1e-42, 3e38])
    return drawn


def rows(kind):
    """Functions that save and load rows of a kind, as those of the other records do."""

    def save(path, record, provenance):
        save_rows(path, kind, record, provenance)

    def load(path, expect=None):
        return load_rows(path, kind, expect)

    return save, load


NUMBERS = ("target", "true_label", "adversarial_label", "predicted_label")
SHARES = ("adversarial_probability", "true_probability", "margin")
SCORES = pd.DataFrame(
    {
        "network": [0, 1],
        "accuracy": [0.1, 1 / 3],
        **{name: [number, 2] for number, name in enumerate(NUMBERS)},
        **{name: [0.1, float("nan")] for name in SHARES},
        "architecture": ["convnet", "mlp"],
        "condition": ["a", "b"],
        "run": [0, 0],
        "method": ["dm", "dm"],
    }
)
KINDS = {
    "images": (
        save_images,
        load_images,
        LabelledImages(pixels(5, 3, 2, 4), torch.tensor([0, 0, 1, 2, 2]), NAMES, NORMALISATION),
    ),
    "target": (
        save_target,
        load_target,
        Target(seed=3, index=7, pixels=pixels(3, 2, 4), true_label=2, adversarial_label=0),
    ),
    "poisons": (
        save_poisons,
        load_poisons,
        PoisonSet(torch.tensor([4, 2]), torch.tensor([2, 1]), pixels(2, 3, 2, 4)),
    ),
    "synthetic set": (
        save_synthetic,
        load_synthetic,
        SyntheticSet(inputs(), torch.arange(3).repeat_interleave(2), NAMES, NORMALISATION),
    ),
    "scores": (*rows("scores"), SCORES),
    "screening": (
        lambda path, record, provenance: save_screening(
            path, record, torch.tensor([0, 0, 1, 1, 1]), provenance
        ),
        load_screening,
        Screening(
            torch.tensor([0.5, 1 / 3, -2.0, 7e300, 7e300], dtype=torch.float64),
            torch.tensor([True, True, True, False, True]),
        ),
    ),
    "crafting trace": (*rows("crafting trace"), pd.DataFrame()),
    "weights": (
        save_weights,
        load_weights,
        {"linear.weight": inputs()[0], "norm.bias": torch.zeros(3)},
    ),
}
PARQUET = ("scores", "screening", "crafting trace")
everything = pytest.mark.parametrize("kind", KINDS)


def bits(record):
    """All that a record holds, in a form that == compares bit by bit."""
    if isinstance(record, torch.Tensor):
        return record.dtype, record.shape, record.contiguous().numpy().tobytes()
    if isinstance(record, pd.DataFrame):
        return [
            (name, c.dtype, pa.array(c.tolist(), from_pandas=True)) for name, c in record.items()
        ]
    if isinstance(record, Normalisation | tuple | int):
        return record
    fields = record if isinstance(record, dict) else vars(record)
    return [(name, bits(value)) for name, value in fields.items()]
