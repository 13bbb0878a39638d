"""DataDAM: DM that matches what each layer attends to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints
from rdmdc.condensers import matching_means
from rdmdc.condensers.matching_means import match_means, passes
from rdmdc.condensers.sets import Condensed
from rdmdc.condensers.task import Task
from rdmdc.models.network import Network, Weights
from rdmdc.options import option
from rdmdc.progress import OnStep

SCALE = 100  # of the whole loss, as in the public implementation; learning rates depend on it


@dataclass(frozen=True)
class Options(matching_means.Options):
    """As DM's, and the weight of the last layer."""

    balance: float = option("λ, weight of the embeddings' distance (published: 0.01)", at_least=0)


@plugins.condenser(Options, matches="embeddings", class_by_class=True, passes=passes)
def datadam(task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints) -> Condensed:
    """DataDAM (Sajedi et al. 2023): match class means of attention maps and of the embedding.

    A layer's attention map is the sum of its ReLU outputs over channels, at length one. The loss,
    100 · (Σ_layers ‖mean maps' difference‖² + λ ‖mean embeddings' difference‖²), is DM's loss for
    one vector an image, 10 · (maps of all ReLU layers but the last, √λ · embedding); an estimator
    is given these vectors. Published: N = 64 and a learning rate of 1 on CIFAR-10, 20 000
    iterations, a real start. Networks run uncompiled, since layers within are needed. Deviations:
    minibatches are fresh draws of ``batch`` images, as DM's are, and the set is the last one, where
    the public implementation keeps the one that tests best.
    Raises RecordError where a class has fewer images than ``batch``.
    """
    embedding = partial(attention, balance=options.balance)
    return match_means(task, options, embedding, progress, checkpoints)


def attention(
    network: Network, weights: Weights, inputs: torch.Tensor, chunk: int, *, balance: float
) -> torch.Tensor:
    """DataDAM's vectors (N, D) of inputs (N, C, H, W), ``chunk`` inputs at a time."""
    return torch.cat([_vectors(network, weights, part, balance) for part in inputs.split(chunk)])


def _vectors(
    network: Network, weights: Weights, inputs: torch.Tensor, balance: float
) -> torch.Tensor:
    with recording() as outputs:
        embeddings = network.embed(weights, inputs)
    maps = [
        torch.nn.functional.normalize(output.abs().sum(1).flatten(1), dim=1)
        for output in outputs[:-1]
        if output.ndim == 4
    ]
    return sqrt(SCALE) * torch.cat([*maps, sqrt(balance) * embeddings], 1)


def recording() -> Any:
    """While it is entered, every output of torch.nn.functional.relu is appended to its list.

    A network is a function without modules, so that there is nothing to hook but the function.
    """
    from torch.overrides import TorchFunctionMode  # planning need not load it

    class Recording(TorchFunctionMode):
        def __enter__(self) -> list[torch.Tensor]:
            self.outputs: list[torch.Tensor] = []
            super().__enter__()
            return self.outputs

        def __torch_function__(
            self,
            function: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            output = function(*args, **(kwargs or {}))
            if function is torch.nn.functional.relu:
                self.outputs.append(output)
            return output

    return Recording()
