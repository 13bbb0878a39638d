"""Training steps of the ConvNet by ``learning.c``: the loss and its gradients in one go.

What it computes is the mean cross-entropy of `Network.logits` and its gradients, in another order
of sums. The gradients by the blocks' weights are those of `rdmdc.models.native.convnet`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from torch import Tensor

from rdmdc.models.native.convnet import SLICE, Sizes, Sums, WeightSums, prepare
from rdmdc.models.native.library import check, library
from rdmdc.models.native.products import Products


class _Head(ctypes.Structure):
    """Sizes of the last layer, and pointers to its weights."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("classes", "features")),
        *((name, ctypes.c_void_p) for name in ("matrix", "bias")),
    ]


class _Learned(ctypes.Structure):
    """Pointers to a slice's sums."""

    _fields_ = [
        ("blocks", Sums),
        *((name, ctypes.c_void_p) for name in ("matrix", "bias", "loss")),
    ]


def learn(
    network: Sizes, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy () of images (N, C, H, W) with labels (N,) int64, and its gradients by
    the weights that have one: convolutions' biases have none. Raises KernelError without memory."""
    images, labels = images.detach().contiguous(), labels.contiguous()
    own = {name: value.detach() for name, value in weights.items()}
    ready = prepare(network, own, back=True, of=Products.SINGLE)
    matrix, bias = own["linear.weight"].contiguous(), own["linear.bias"].contiguous()
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(bias):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} of {len(bias)} classes")
    slices = -(-len(images) // SLICE)
    summed = WeightSums(network, slices)
    matrices = torch.zeros(slices, *matrix.shape)
    biases, losses = torch.zeros(slices, len(bias)), torch.zeros(slices)
    blocks = summed.pointers()
    learned = (_Learned * slices)()
    for part in range(slices):
        learned[part].blocks = blocks[part]
        learned[part].matrix = matrices[part].data_ptr()
        learned[part].bias = biases[part].data_ptr()
        learned[part].loss = losses[part].data_ptr()
    head = _Head(*matrix.shape, matrix.data_ptr(), bias.data_ptr())
    status = library().learn(
        ctypes.byref(ready.net),
        ctypes.byref(head),
        images.data_ptr(),
        labels.data_ptr(),
        len(images),
        learned,
        SLICE,
        torch.get_num_threads(),
    )
    check(status)
    last = {"linear.weight": matrices.sum(0), "linear.bias": biases.sum(0)}
    return losses.sum(), {**summed.gradients(), **last}
