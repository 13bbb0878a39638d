"""Condensation and evaluation at the cost of the public DM code: the other side of the benchmark.

VICO-UoE/DatasetCondensation (Zhao and Bilen 2021a) is what a reader would run instead of this
package. This module is written anew in the shape that decides its cost: images (N, C, H, W), a
module built anew each iteration, class by class, each operation of the augmentation call by call
with the random seed set before every draw, one backward pass, torch's SGD on the images, and a
DataLoader for evaluation networks. What it computes is what the textbook loop of the tests
computes, but for the random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHIFT, HOLE, ZOOM, DEGREES = 0.125, 0.5, 1.2, 15.0
Estimator = Callable[[Tensor], Tensor]
"""Embeddings (N, D) to their centre (D,)."""


class ConvNet(nn.Module):
    """Blocks of convolution, instance norm, ReLU and average pool, and a linear layer."""

    def __init__(self, width: int, classes: int, depth: int = 3, side: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in [3, *[width] * (depth - 1)]:
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers.append(nn.GroupNorm(width, width))
            layers += [nn.ReLU(inplace=True), nn.AvgPool2d(2)]
        self.blocks = nn.Sequential(*layers)
        self.linear = nn.Linear(width * (side >> depth) ** 2, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, D)."""
        return self.blocks(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N, classes)."""
        return self.linear(self.embed(images))


# --- augmentation ----------------------------------------------------------------------------


class Draws:
    """Random numbers, one for each image; with a seed, one for all, and again with that seed."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed

    def start(self) -> None:
        """Set the next seed, before every draw."""
        if self.seed is not None:
            torch.manual_seed(self.seed)
            self.seed += 1

    def shared(self, numbers: Tensor) -> Tensor:
        """The first image's number for all, where there is a seed."""
        if self.seed is not None:
            numbers[:] = numbers[0]
        return numbers

    def uniform(self, count: int) -> Tensor:
        """(N, 1, 1, 1) in [0, 1)."""
        self.start()
        return self.shared(torch.rand(count, 1, 1, 1))

    def integers(self, low: int, high: int, count: int) -> Tensor:
        """(N, 1, 1) from low to high - 1."""
        self.start()
        return torch.randint(low, high, (count, 1, 1))


def augment(images: Tensor, strategy: tuple[str, ...], seed: int | None) -> Tensor:
    """Images (N, C, H, W) after one operation of the strategy; with a seed all alike."""
    draws = Draws(seed)
    draws.start()
    chosen = strategy[int(torch.randint(len(strategy), (1,)))]
    for operation in OPERATIONS[chosen]:
        images = operation(images, draws)
    return images.contiguous()


def brightness(images: Tensor, draws: Draws) -> Tensor:
    """Add up to a half either way."""
    return images + (draws.uniform(len(images)) - 0.5)


def saturation(images: Tensor, draws: Draws) -> Tensor:
    """Scale the distance from grey by up to 2."""
    grey = images.mean(1, keepdim=True)
    return (images - grey) * (2 * draws.uniform(len(images))) + grey


def contrast(images: Tensor, draws: Draws) -> Tensor:
    """Scale the distance from the image's mean by 0.5 to 1.5."""
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * (draws.uniform(len(images)) + 0.5) + level


def places(images: Tensor, height: int, width: int) -> list[Tensor]:
    """Indices (N, height, width) of image, row and column."""
    sizes = (len(images), height, width)
    return list(torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij"))


def crop(images: Tensor, draws: Draws) -> Tensor:
    """Shift by an eighth of the side at most; zeros come in."""
    side = images.shape[2]
    most = int(side * SHIFT + 0.5)
    down, across = (draws.integers(-most, most + 1, len(images)) for _ in range(2))
    down, across = draws.shared(down), draws.shared(across)
    image, row, column = places(images, side, side)
    row = (row + down + 1).clamp(0, side + 1)
    column = (column + across + 1).clamp(0, side + 1)
    bordered = F.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    return bordered[image, row, column].permute(0, 3, 1, 2)


def cutout(images: Tensor, draws: Draws) -> Tensor:
    """Zero a square of half the side."""
    side = images.shape[2]
    hole = int(side * HOLE + 0.5)
    top, left = (draws.integers(0, side + 1 - hole % 2, len(images)) for _ in range(2))
    top, left = draws.shared(top), draws.shared(left)
    image, row, column = places(images, hole, hole)
    row = (row + top - hole // 2).clamp(0, side - 1)
    column = (column + left - hole // 2).clamp(0, side - 1)
    kept = torch.ones(len(images), side, side)
    kept[image, row, column] = 0
    return images * kept.unsqueeze(1)


def flip(images: Tensor, draws: Draws) -> Tensor:
    """Mirror with probability 0.5."""
    return torch.where(draws.uniform(len(images)) < 0.5, images.flip(3), images)


def warp(images: Tensor, rows: list[list[list[Tensor | float]]], draws: Draws) -> Tensor:
    """Bilinear by an affine map (2, 3) an image; the maps are lists of single numbers."""
    maps = draws.shared(torch.tensor(rows, dtype=torch.float))
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def scale(images: Tensor, draws: Draws) -> Tensor:
    """Zoom each axis by 1/1.2 to 1.2."""
    factors = []
    for _ in range(2):
        draws.start()
        factors.append(torch.rand(len(images)) * (ZOOM - 1 / ZOOM) + 1 / ZOOM)
    across, down = factors
    maps = [[[across[i], 0, 0], [0, down[i], 0]] for i in range(len(images))]
    return warp(images, maps, draws)


def rotate(images: Tensor, draws: Draws) -> Tensor:
    """Turn by 15 degrees at most."""
    draws.start()
    angles = (torch.rand(len(images)) * 2 - 1) * math.radians(DEGREES)
    maps = [[[torch.cos(a), torch.sin(-a), 0], [torch.sin(a), torch.cos(a), 0]] for a in angles]
    return warp(images, maps, draws)


OPERATIONS: dict[str, tuple[Callable[[Tensor, Draws], Tensor], ...]] = {
    "color": (brightness, saturation, contrast),
    "crop": (crop,),
    "cutout": (cutout,),
    "flip": (flip,),
    "scale": (scale,),
    "rotate": (rotate,),
}


# --- condensation and evaluation -------------------------------------------------------------


class Condensation:
    """Distribution matching of images (C · each, 3, 32, 32), sorted by class, by their centres."""

    def __init__(
        self, images: Tensor, classes: int, width: int, ipc: int, batch: int, estimator: Estimator
    ) -> None:
        self.images, self.classes, self.width = images, classes, width
        self.ipc, self.batch, self.estimator = ipc, batch, estimator
        self.members = np.arange(len(images)).reshape(classes, -1)
        self.made = torch.randn(classes * ipc, *images.shape[1:], requires_grad=True)
        self.optimiser = torch.optim.SGD([self.made], lr=1.0, momentum=0.5)

    def iterate(self, strategy: tuple[str, ...]) -> float:
        """One iteration; returns the loss."""
        network = ConvNet(self.width, self.classes).requires_grad_(False)
        loss = torch.zeros(())
        for c, members in enumerate(self.members):
            real = self.images[np.random.permutation(members)[: self.batch]]
            own = self.made[c * self.ipc : (c + 1) * self.ipc]
            seed = int(np.random.randint(100_000))
            wanted = self.estimator(network.embed(augment(real, strategy, seed)))
            found = network.embed(augment(own, strategy, seed)).mean(0)
            loss = loss + (wanted - found).square().sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


def train(
    images: Tensor, labels: Tensor, width: int, epochs: int, strategy: tuple[str, ...]
) -> float:
    """An evaluation network's training in batches of 256; returns the last batch's accuracy."""
    network = ConvNet(width, int(labels.max()) + 1)
    sgd = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    pairs = torch.utils.data.TensorDataset(images, labels)
    loader = torch.utils.data.DataLoader(pairs, batch_size=256, shuffle=True)
    criterion = nn.CrossEntropyLoss()
    losses, accuracy = 0.0, 0.0
    for _ in range(epochs):
        for inputs, targets in loader:
            scores = network(augment(inputs, strategy, None))
            loss = criterion(scores, targets)
            accuracy = float((scores.detach().argmax(1) == targets).float().mean())
            losses += loss.item() * len(targets)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return accuracy
