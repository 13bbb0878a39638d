"""Training a classifier: the victims' loop on real images, the evaluation networks' on synthetic.

SGD with momentum on cross-entropy, batches of a fresh permutation each epoch, augmentation with
one operation a batch and separate numbers an image, as the public DM implementation evaluates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rdmdc import rates
from rdmdc.models import running as networks
from rdmdc.models.augment import augment, draw
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.models.running import ConvNet, Weights
from rdmdc.progress import OnStep
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages


@dataclass(frozen=True)
class Schedule:
    """How to train; ``decay_after`` is the share of epochs after which the rate falls tenfold."""

    epochs: int
    batch: int
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_after: str
    augmentation: tuple[str, ...]

    @classmethod
    def of(cls, options: dict[str, Any]) -> "Schedule":
        """The schedule in a section of the config."""
        chosen = {name: options[name] for name in cls.__dataclass_fields__}
        return cls(**{**chosen, "augmentation": tuple(options["augmentation"])})


def fit(
    network: ConvNet,
    inputs_of: Callable[[Tensor], Tensor],
    labels: Tensor,
    schedule: Schedule,
    purpose: tuple[int | str, ...],
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Weights:
    """Weights trained from scratch; ``inputs_of`` gives the normalised inputs of some indices.

    Every draw (initial weights, order, augmentation) is made for ``purpose``; the device is the
    labels'. With ``epochs`` 0 the weights are the initial ones.
    """
    device, state = labels.device, checkpoints.resume()
    start = (
        state.group("weights", device) if state else network.draw(generator(*purpose, "weights"))
    )
    weights = {n: value.requires_grad_() for n, value in networks.to(start, device).items()}
    optimiser = torch.optim.SGD(
        weights.values(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        weight_decay=schedule.weight_decay,
    )
    momenta = networks.to(state.group("momenta", device), device) if state else {}
    for name, value in momenta.items():
        optimiser.state[weights[name]]["momentum_buffer"] = value
    done = state.facts["steps"] if state else 0
    chunk = networks.even_chunk(min(schedule.batch, len(labels)), 1, device.type)
    decay_at = rates.count(schedule.decay_after, schedule.epochs)
    per_epoch = -(-len(labels) // schedule.batch)
    for epoch in range(done // per_epoch, schedule.epochs):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * (0.1 if epoch >= decay_at else 1)
        draws = generator(*purpose, "epoch", epoch)
        loss = torch.zeros(())
        order = torch.randperm(len(labels), generator=draws)
        for step, chosen in enumerate(order.split(schedule.batch), epoch * per_epoch):
            drawn = draw(schedule.augmentation, len(chosen), draws, shared=True)
            if step < done:  # before the checkpoint: of this step only the draws are made again
                continue
            batch = augment(inputs_of(chosen).unsqueeze(1), drawn).squeeze(1)
            loss = F.cross_entropy(networks.logits(network, weights, batch, chunk), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            checkpoints.offer(_state(weights, optimiser, step + 1))
        progress(epoch + 1, schedule.epochs, float(loss.detach()))
    return {name: value.detach() for name, value in weights.items()}


def _state(weights: Weights, optimiser: torch.optim.SGD, steps: int) -> State:
    momenta = {name: optimiser.state[w].get("momentum_buffer") for name, w in weights.items()}
    momenta = {name: value for name, value in momenta.items() if value is not None}
    return State({"weights": weights, "momenta": momenta}, {"steps": steps})


def pretrain(
    train: LabelledImages,
    network: ConvNet,
    schedule: Schedule,
    seed: int,
    device: str,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Weights:
    """A victim for gradient matching, trained on clean data for ``schedule.epochs`` (Alg. 1).

    §3.1 pretrains "multiple models for different epochs": each has its own initial weights.
    """

    def inputs_of(chosen: Tensor) -> Tensor:
        return train.normalisation.normalise(train.pixels[chosen].to(device))

    purpose = (seed, "pretrain", schedule.epochs)
    labels = train.labels.to(device)
    return fit(network, inputs_of, labels, schedule, purpose, progress, checkpoints)
