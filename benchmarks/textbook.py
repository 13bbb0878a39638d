"""Distribution matching and its neighbours as a textbook writes them: plain torch, nothing shared.

The other side of the benchmark, and the oracle of the tests: class by class, images (N, C, H, W),
one forward of the real batch without gradients and one of the synthetic images, SGD by hand.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Augment = Callable[[Tensor, int], Tensor]
"""Inputs (n, C, H, W) of a class under the class's draw of the iteration."""


class ConvNet(nn.Module):
    """The network as a module; weights are named as the package names them."""

    def __init__(self, weights: Mapping[str, Tensor], *, frozen: bool) -> None:
        super().__init__()
        depth = sum(name.startswith("conv") for name in weights) // 2
        blocks = []
        for b in range(depth):
            out, into = weights[f"conv{b}.weight"].shape[:2]
            blocks += [
                nn.Conv2d(into, out, 3, padding=1),
                nn.GroupNorm(out, out),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(*reversed(weights["linear.weight"].shape))
        parts = [part for b in range(depth) for part in (f"conv{b}", f"norm{b}")] + ["linear"]
        modules = [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.GroupNorm | nn.Linear)]
        for name, module in zip(parts, modules, strict=True):
            module.weight.data = weights[f"{name}.weight"].detach().clone().contiguous()
            module.bias.data = weights[f"{name}.bias"].detach().clone()
        self.requires_grad_(not frozen)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, D)."""
        return self.features(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N, classes)."""
        return self.classifier(self.embed(images))


# --- estimates of a class's mean, (N, D) to (D,) ---------------------------------------------


def mean(embeddings: Tensor, k: int, start: Tensor) -> Tensor:
    """The plain mean."""
    return embeddings.mean(0)


def median(embeddings: Tensor, k: int, start: Tensor) -> Tensor:
    """Middle value of each feature; of an even number the mean of two."""
    return embeddings.sort(0).values[(len(embeddings) - 1) // 2 : len(embeddings) // 2 + 1].mean(0)


def trimmed(embeddings: Tensor, k: int, start: Tensor) -> Tensor:
    """Without the k/2 smallest and the k/2 largest of each feature."""
    return embeddings.sort(0).values[k // 2 : len(embeddings) - k // 2].mean(0)


def truncated(embeddings: Tensor, k: int, start: Tensor) -> Tensor:
    """Without the k farthest from the mean."""
    distances = (embeddings - embeddings.mean(0)).norm(dim=1)
    return embeddings[distances.argsort()[: len(embeddings) - k]].mean(0)


def spectral(embeddings: Tensor, k: int, start: Tensor) -> Tensor:
    """Without the k largest along the top direction, by ten steps of the power method."""
    centred = embeddings - embeddings.mean(0)
    v = start
    for _ in range(10):
        v = centred.T @ (centred @ v)
        v = v / v.norm()
    return embeddings[(centred @ v).abs().argsort()[: len(embeddings) - k]].mean(0)


Estimator = Callable[[Tensor, int, Tensor], Tensor]


# --- one step of each work -------------------------------------------------------------------


def matching_gradient(
    network: ConvNet,
    real: Sequence[Tensor],
    synthetic: Tensor,
    augment: Augment,
    estimator: Estimator,
    k: int,
    starts: Sequence[Tensor],
) -> Tensor:
    """Gradient by synthetic (C·M, C, H, W) of the sum over classes of the squared distance."""
    synthetic = synthetic.detach().clone().requires_grad_()
    loss = torch.zeros(())
    for c, (images, own) in enumerate(zip(real, synthetic.chunk(len(real)), strict=True)):
        with torch.no_grad():
            embeddings = network.embed(augment(images, c))
            wanted = estimator(embeddings, k, starts[c])
        loss = loss + (wanted - network.embed(augment(own, c)).mean(0)).square().sum()
    return torch.autograd.grad(loss, synthetic)[0]


def dm_poison_gradient(network: ConvNet, target: Tensor, poisons: Tensor) -> Tensor:
    """Gradient by poisons (P, C, H, W) of the distance of their mean embedding to the target's."""
    poisons = poisons.detach().clone().requires_grad_()
    loss = (network.embed(target[None])[0] - network.embed(poisons).mean(0)).square().sum()
    return torch.autograd.grad(loss, poisons)[0]


def gradient_matching_gradient(
    victims: Sequence[ConvNet], wanted: Sequence[Sequence[Tensor]], poisons: Tensor, label: int
) -> Tensor:
    """Gradient by poisons of the mean over victims of one minus the cosine, victim after victim."""
    total = torch.zeros_like(poisons)
    labels = torch.full((len(poisons),), label)
    for victim, target in zip(victims, wanted, strict=True):
        leaf = poisons.detach().clone().requires_grad_()
        loss = F.cross_entropy(victim(leaf), labels, reduction="sum")
        ours = torch.autograd.grad(loss, list(victim.parameters()), create_graph=True)
        product = sum((a * b).sum() for a, b in zip(target, ours, strict=True))
        norms = [sum(t.square().sum() for t in side) ** 0.5 for side in (target, ours)]
        total += torch.autograd.grad((1 - product / (norms[0] * norms[1])) / len(victims), leaf)[0]
    return total


def train_epoch(
    network: ConvNet,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    batch: int,
    augment: Callable[[Tensor], Tensor],
) -> None:
    """One epoch of SGD on cross-entropy."""
    for chosen in torch.randperm(len(labels)).split(batch):
        optimiser.zero_grad()
        F.cross_entropy(network(augment(images[chosen])), labels[chosen]).backward()
        optimiser.step()
