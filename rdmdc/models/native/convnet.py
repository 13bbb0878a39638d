"""The ConvNet on a CPU by ``convnet.c``, behind torch's autograd.

What it computes is `ConvNet.embed`, in another order of sums: single precision differs by 1e-6,
products of bf16 by 4e-3 with AMX, and by 2e-2 where Winograd's transforms enlarge the rounding.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rdmdc.models.native.library import LANES, check, library
from rdmdc.models.native.products import Products, products
from rdmdc.models.network import KernelError, Kernels

GROUP = 8  # images at once, as in convnet.c
DEPTH = 8  # the most blocks, as in convnet.c
NEAR = 2**24  # bytes of a pass that a cache may hold until they are read again
SLICE = 64  # images whose weights' gradients are summed in one go: fixes the order of the sum


class Sizes(Protocol):
    """What the kernels ask of a network: images (channels, side, side), blocks of ``width``."""

    @property
    def channels(self) -> int:
        """Channels of an image."""

    @property
    def side(self) -> int:
        """Side of an image."""

    @property
    def width(self) -> int:
        """Channels of each block."""

    @property
    def depth(self) -> int:
        """Number of blocks."""

    @property
    def padded(self) -> int:
        """The side that the first block sees."""

    @property
    def features(self) -> int:
        """D, the embedding's length."""


def kernels(network: Sizes, precision: str) -> Kernels:
    """The network's embedding by the kernels, in precision "float32" or "bfloat16".

    Raises KernelError where they cannot be compiled or have no such network. In bfloat16 products
    are what `products` says: single precision where bf16 would not be faster.
    """
    if network.width % LANES:
        raise KernelError(f"the ConvNet's width {network.width} is no multiple of {LANES}")
    return partial(embed, network, products(precision))


def _into_domain() -> Tensor:
    """G ⊗ G (36, 9) of Winograd's F(4, 3) at convnet.c's points, in double precision."""
    a = math.sqrt(0.5)
    points = (0.0, a, -a, 2 * a, -2 * a)
    rows = []
    for point in points:
        weight = math.prod(point - other for other in points if other != point)
        rows.append([1 / weight, point / weight, point**2 / weight])
    g = torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64)
    return torch.kron(g, g)


_INTO_DOMAIN = _into_domain().float()


# --- what C sees -----------------------------------------------------------------------------

_Blocks = ctypes.c_void_p * DEPTH


class Net(ctypes.Structure):
    """Sizes, and pointers to the weights."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("depth", "side", "pad", "channels", "width", "half")),
        ("first_back", ctypes.c_void_p),
        *((name, _Blocks) for name in ("kernels", "kernels_back", "gain", "shift")),
    ]


class Kept(ctypes.Structure):
    """Pointers to what forward keeps for backward."""

    _fields_ = [
        *((name, _Blocks) for name in ("pooled", "normalised", "scale")),
        ("far", ctypes.c_int),
    ]


class Sums(ctypes.Structure):
    """Pointers to the weights' gradients."""

    _fields_ = [
        ("first", ctypes.c_void_p),
        *((name, _Blocks) for name in ("kernels", "gain", "shift")),
    ]


def _at(tensors: Mapping[int, Tensor], part: int = 0) -> Any:
    """Pointers to a tensor for each block, from an entry on."""
    pointers = _Blocks()
    for block, tensor in tensors.items():
        pointers[block] = tensor.data_ptr() + 4 * part * tensor.stride(0)
    return pointers


@dataclass(frozen=True)
class ReadyWeights:
    """Weights as the kernels want them; holds the memory that ``net`` points to."""

    net: Net
    memory: tuple[Any, ...]


def prepare(
    network: Sizes, weights: Mapping[str, Tensor], *, back: bool, of: Products
) -> ReadyWeights:
    """Weights as the kernels want them, those of the gradient by images too if ``back``."""
    blocks = range(network.depth)
    gain = {b: weights[f"norm{b}.weight"].contiguous() for b in blocks}
    shift = {b: weights[f"norm{b}.bias"].contiguous() for b in blocks}
    arranged = _tiled if of == Products.AMX else partial(_transformed, halved=of == Products.PAIRS)
    kernels = {b: arranged(weights[f"conv{b}.weight"]) for b in blocks}
    first_back, kernels_back = torch.empty(0), {}
    if of == Products.AMX:
        kernels[0] = _tiled(_columns(weights["conv0.weight"])[:, :, None, None])
    elif back:
        first_back = _columns(weights["conv0.weight"])
    if back:
        for b in blocks[0 if of == Products.AMX else 1 :]:
            turned = weights[f"conv{b}.weight"].transpose(0, 1).flip(2, 3)
            kernels_back[b] = arranged(turned)
    net = Net(
        network.depth,
        network.padded,
        (network.padded - network.side) // 2,
        network.channels,
        network.width,
        of,
        first_back.data_ptr(),
        *(_at(of_blocks) for of_blocks in (kernels, kernels_back, gain, shift)),
    )
    return ReadyWeights(net, (first_back, kernels, kernels_back, gain, shift))


def _columns(kernel: Tensor) -> Tensor:
    """A kernel (O, C, 3, 3) as (O, 9 C), padded to a multiple of 32 columns."""
    flat = kernel.permute(0, 2, 3, 1).flatten(1)
    return torch.nn.functional.pad(flat, (0, -flat.shape[1] % (2 * LANES)))


def _tiled(kernel: Tensor) -> Tensor:
    """A kernel (O, C, h, w) in tiles of amx.c: (O / 16, h w, C / 32, 16, 16, 2) in bf16."""
    outputs, inputs = kernel.shape[:2]
    padding = (0, 0, 0, 0, 0, -inputs % 32, 0, -outputs % 16)
    even = torch.nn.functional.pad(kernel, padding).to(torch.bfloat16).flatten(2)
    parts = even.unflatten(0, (-1, 16)).unflatten(2, (-1, 16, 2))  # O / 16, 16, C / 32, 16, 2, hw
    return parts.permute(0, 5, 2, 3, 1, 4).contiguous()


def _transformed(kernel: Tensor, halved: bool) -> Tensor:
    """A kernel (O, C, 3, 3) in the transform's domain, in panels: (36, O / panel, C, panel).

    Where it is halved, neighbouring channels lie together: (36, O / panel, C / 2, panel, 2).
    """
    outputs, inputs = kernel.shape[:2]
    panel = LANES if outputs % (2 * LANES) else 2 * LANES
    flat = kernel.permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    domain = (_INTO_DOMAIN @ flat).view(36, inputs, outputs // panel, panel).transpose(1, 2)
    if not halved:
        return domain.contiguous()
    even = torch.nn.functional.pad(domain, (0, 0, 0, inputs % 2)).unflatten(2, (-1, 2))
    return even.transpose(3, 4).to(torch.bfloat16).contiguous()


def names_of(network: Sizes) -> list[str]:
    """The weights that the kernels use, in the order of their gradients."""
    names = [n for b in range(network.depth) for n in (f"conv{b}.weight", f"norm{b}.weight")]
    return names + [f"norm{b}.bias" for b in range(network.depth)]


class WeightSums:
    """Sums of the weights' gradients over each slice of images, and the gradients made of them."""

    def __init__(self, network: Sizes, slices: int) -> None:
        self.network, self.slices, width = network, slices, network.width
        blocks = range(network.depth)
        self.first = torch.zeros(slices, 9 * network.channels, width)
        self.kernels = {b: torch.zeros(slices, 36, width, width) for b in blocks if b}
        self.gain = {b: torch.zeros(slices, width) for b in blocks}
        self.shift = {b: torch.zeros(slices, width) for b in blocks}

    def pointers(self) -> Any:
        """An array of `Sums`, one a slice; one of null where there are no slices."""
        sums = (Sums * max(self.slices, 1))()
        for part in range(self.slices):
            sums[part].first = self.first[part].data_ptr()
            sums[part].kernels = _at(self.kernels, part)
            sums[part].gain, sums[part].shift = _at(self.gain, part), _at(self.shift, part)
        return sums

    def gradients(self) -> dict[str, Tensor]:
        """The gradients by name, in the order of `names_of`."""
        width, blocks = self.network.width, range(self.network.depth)
        shape = (3, 3, self.network.channels, width)
        made = {"conv0.weight": self.first.sum(0).view(shape).permute(3, 2, 0, 1)}
        for b, parts in self.kernels.items():
            flat = _INTO_DOMAIN.T @ parts.sum(0).view(36, width * width)
            made[f"conv{b}.weight"] = flat.view(3, 3, width, width).permute(3, 2, 0, 1)
        for b in blocks:
            made[f"norm{b}.weight"] = self.gain[b].sum(0)
            made[f"norm{b}.bias"] = self.shift[b].sum(0)
        return {name: made[name] for name in names_of(self.network)}


# --- autograd --------------------------------------------------------------------------------


def embed(network: Sizes, of: Products, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Embeddings (N, D) of inputs (N, C, H, W), differentiable by inputs and weights.

    Gradients by weights are differentiable once more, by inputs and by what the embeddings feed:
    what gradient matching asks for. By weights twice they count as constants.
    """
    names = names_of(network)
    result: Tensor = _Embed.apply(images, network, of, names, *(weights[n] for n in names))
    return result


@dataclass(frozen=True)
class _Pass:
    """A forward pass: what its backward passes start from, and whether weights train."""

    network: Sizes
    weights: Mapping[str, Tensor]
    ready: ReadyWeights
    kept: _Room | None
    trains: bool


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        network: Sizes,
        of: Products,
        names: list[str],
        *weights: Tensor,
    ) -> Tensor:
        images = images.contiguous()
        back, trains = any(ctx.needs_input_grad), any(ctx.needs_input_grad[1:])
        named = dict(zip(names, weights, strict=True))
        of = Products.SINGLE if trains else of
        ready = prepare(network, named, back=back, of=of)
        kept = _Room(network, len(images)) if back else None
        embeddings = torch.empty(len(images), network.features)
        status = library().forward(
            ctypes.byref(ready.net),
            images.data_ptr(),
            len(images),
            embeddings.data_ptr(),
            ctypes.byref(kept.pointers() if kept else Kept()),
            torch.get_num_threads(),
        )
        check(status)
        ctx.save_for_backward(images)
        ctx.done = _Pass(network, named, ready, kept, trains)
        return embeddings

    @staticmethod
    def backward(ctx: Any, by_embeddings: Tensor) -> tuple[Tensor | None, ...]:
        (images,) = ctx.saved_tensors
        made = _Gradients.apply(by_embeddings, images, ctx.done, ctx.needs_input_grad[0])
        by_images, *by_weights = made
        by_weights = by_weights or [None] * len(ctx.done.weights)
        return (by_images, None, None, None, *by_weights)


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, by_embeddings: Tensor, images: Tensor, done: _Pass, wanted: bool
    ) -> tuple[Tensor | None, ...]:
        network, trains = done.network, done.trains
        by_images = torch.empty_like(images) if wanted else None
        by_embeddings = by_embeddings.contiguous()
        summed = WeightSums(network, -(-len(images) // SLICE) if trains else 0)
        assert done.kept is not None  # forward keeps where anything needs a gradient
        status = library().backward(
            ctypes.byref(done.ready.net),
            images.data_ptr(),
            len(images),
            by_embeddings.data_ptr(),
            ctypes.byref(done.kept.pointers()),
            None if by_images is None else by_images.data_ptr(),
            summed.pointers(),
            SLICE if trains else GROUP,
            torch.get_num_threads(),
        )
        check(status)
        ctx.save_for_backward(by_embeddings, images)
        ctx.done = done
        ctx.set_materialize_grads(False)
        if not trains:
            return (by_images,)
        return (by_images, *summed.gradients().values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_by_images: Tensor | None, *by_by_weights: Tensor | None) -> Any:
        """Σ ⟨v, gradient by weights⟩ is the derivative along v of Σ ⟨by_embeddings, embeddings⟩:
        its own gradients are the tangents of the embeddings and of the gradient by images."""
        if by_by_images is not None:
            raise KernelError(
                "gradients by images are not differentiable once more here; set compile: false"
            )
        by_embeddings, images = ctx.saved_tensors
        done: _Pass = ctx.done
        along = {
            name: torch.zeros_like(weight) if value is None else value
            for (name, weight), value in zip(done.weights.items(), by_by_weights, strict=True)
        }
        direction = prepare(done.network, along, back=True, of=Products.SINGLE)
        embeddings, by_images = torch.empty_like(by_embeddings), torch.empty_like(images)
        assert done.kept is not None
        status = library().tangents(
            ctypes.byref(done.ready.net),
            ctypes.byref(direction.net),
            images.data_ptr(),
            len(images),
            by_embeddings.data_ptr(),
            ctypes.byref(done.kept.pointers()),
            embeddings.data_ptr(),
            by_images.data_ptr(),
            torch.get_num_threads(),
        )
        check(status)
        return embeddings, by_images, None, None


class _Room:
    """Memory for what forward keeps, used again when nothing refers to it any more: fresh pages
    would cost as much as the work."""

    _free: ClassVar[dict[tuple[Sizes, int], list[dict[str, dict[int, Tensor]]]]] = {}

    def __init__(self, network: Sizes, count: int) -> None:
        self.free = self._free.setdefault((network, count), [])
        self.kept = self.free.pop() if self.free else self._fresh(network, count)

    def __del__(self) -> None:
        self.free.append(self.kept)

    @staticmethod
    def _fresh(network: Sizes, count: int) -> dict[str, dict[int, Tensor]]:
        kept: dict[str, dict[int, Tensor]] = {"pooled": {}, "normalised": {}, "scale": {}}
        for b in range(network.depth):
            side = network.padded >> b
            for what, h in (("pooled", side // 2), ("normalised", side), ("scale", 1)):
                kept[what][b] = torch.empty(count, h, h, network.width)
        return kept

    def pointers(self) -> Kept:
        far = sum(4 * tensor.numel() for tensor in self.kept["normalised"].values()) > NEAR
        return Kept(*(_at(self.kept[name]) for name in ("pooled", "normalised", "scale")), far)
