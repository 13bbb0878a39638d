"""The gradient of a class's mean loss, with an estimator in the place of the mean (§4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rdmdc.condensers.deviation import trace_rows
from rdmdc.condensers.task import Calibration, Purpose, Task, sample_others
from rdmdc.estimators.estimate import Estimate
from rdmdc.models import running
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.models.network import Network, Weights, classify
from rdmdc.randomness import generator

LAST = "linear.weight"


@dataclass(frozen=True)
class Real:
    """A minibatch of each class (C, N, …): inputs, which are poisons, and the classes' draws."""

    inputs: torch.Tensor
    poisoned: torch.Tensor
    draws: Draw


def minibatch(task: Task, batch: int, augmentation: Sequence[str], purpose: Purpose) -> Real:
    """A fresh minibatch of each class, augmented by the class's draw."""
    classes = range(len(task.data.class_names))
    drawn = [task.data.draw(c, batch, generator(*purpose, "batch", c)) for c in classes]
    draws = draw(augmentation, len(classes), generator(*purpose, "augmentation"), shared=False)
    pixels = torch.stack([pixels for pixels, _ in drawn]).to(task.device)
    inputs = augment(task.data.normalisation.normalise(pixels), draws)
    return Real(inputs, torch.stack([poisoned for _, poisoned in drawn]), draws)


def real_gradients(
    network: Network,
    weights: Weights,
    real: Real,
    calibration: Calibration,
    purpose: Purpose,
    log: bool,
) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, Any]]]:
    """Each class's gradient by the weight matrices, as the estimator sees it, and rows of a trace.

    The estimator is given each image's gradient of the last layer's matrix, (softmax − one-hot) ⊗
    embedding, a vector of classes · D. Where it keeps whole images, the gradient of *every* layer
    is the mean over those it keeps: an image that is taken for a poison has no part in any layer,
    and the last layer's gradient is then the estimate itself. Where it does not (medians), its
    value stands for the last layer, and the other layers have the plain mean: medians of all layers
    would need each image's gradient of each. The vectors cost no pass over the network, except for
    estimators that compare classes, which need one forward pass more. The rows' distances are those
    of last-layer gradients.
    """
    others = None
    classes = range(len(real.inputs))
    if calibration.estimator.facts["across_classes"]:
        everything = [
            last_layer_gradients(weights, running.embed_all(network, weights, real.inputs[c]), c)
            for c in classes
        ]
        sampled = generator(*purpose, "others")
        others = sample_others(torch.stack(everything), calibration.options.others, sampled)

    def estimated(classes: Sequence[int], vectors: torch.Tensor) -> Estimate:
        return calibration(vectors, classes, purpose, others)

    found, rows = [], []
    chunk = running.even_chunk(real.inputs.shape[1], 1, real.inputs.device.type)
    for c in classes:
        embeddings = running.embed(network, weights, real.inputs[c], chunk)
        vectors = last_layer_gradients(weights, embeddings.detach(), c)[None]
        estimate = estimated([c], vectors)
        each = losses(classify(weights, embeddings), c)
        kept = torch.ones_like(each) if estimate.kept is None else estimate.kept[0].to(each)
        gradients = by_matrices(weights, (each * kept / kept.sum()).sum())
        if estimate.kept is None:
            gradients[LAST] = estimate.value[0].view_as(gradients[LAST])
        found.append(gradients)
        poisoned = real.poisoned[c : c + 1].to(vectors.device)
        rows += trace_rows(vectors, poisoned, estimate, [c], estimated) if log else [{}]
    return found, rows


def last_layer_gradients(
    weights: Mapping[str, torch.Tensor], embeddings: torch.Tensor, label: int
) -> torch.Tensor:
    """The gradient of each image's cross-entropy by the last layer's matrix: (N, classes · D)."""
    with torch.no_grad():
        errors = classify(weights, embeddings).softmax(1)
        errors[:, label] -= 1
        return (errors[:, :, None] * embeddings[:, None]).flatten(1)


def losses(logits: torch.Tensor, label: int) -> torch.Tensor:
    """The cross-entropy of each image (N,), all of one class."""
    labels = torch.full((len(logits),), label, device=logits.device)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def by_matrices(
    weights: Weights, loss: torch.Tensor, *, create_graph: bool = False
) -> dict[str, torch.Tensor]:
    """A loss's gradient by every weight with rows; the distance leaves out biases and norms."""
    matrices = {name: w for name, w in weights.items() if w.ndim > 1}
    gradients = torch.autograd.grad(loss, list(matrices.values()), create_graph=create_graph)
    return dict(zip(matrices, gradients, strict=True))
