"""A generator is a function of its purpose and of nothing else."""

import hashlib
from itertools import combinations

import torch

from rdmdc.randomness import generator

PURPOSES = [
    (0, "condense", 1, 2),
    (0, "condense", 12),
    (0, "condense", 1, "2"),
    (0, "condense", "1", 2),
    (0, "condense", 2, 1),
    ("0", "condense", 1, 2),
    ("a", 1),
    ("a1",),
    ("a", "1"),
    ("1", "a"),
    (-1,),
    (1,),
    (),
]


def test_same_purpose_same_numbers():
    for purpose in PURPOSES:
        first, second = (torch.randn(5, generator=generator(*purpose)) for _ in range(2))
        assert torch.equal(first, second)


def test_other_purposes_other_numbers():
    for one, other in combinations(PURPOSES, 2):
        drawn = [torch.rand(5, generator=generator(*purpose)) for purpose in (one, other)]
        assert not torch.equal(*drawn), (one, other)


def test_seed_is_the_first_eight_bytes_of_the_hash():
    """Written out, so that no change of it passes unseen: it would change every result."""
    expected = hashlib.sha256(b'[3, "condense", 1, 250, "batch", 7]').hexdigest()[:16]
    made = generator(3, "condense", 1, 250, "batch", 7)
    assert made.initial_seed() % 2**64 == int(expected, 16)
    assert made.device.type == "cpu"


def test_neither_reads_nor_moves_the_global_state():
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        drawn.append(torch.rand(3, generator=generator("x")))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)
