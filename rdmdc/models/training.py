"""Training a classifier: the victims' loop on real images, the evaluation networks' on synthetic.

SGD with momentum on cross-entropy, batches of a fresh permutation each epoch, augmentation with
one operation a batch and separate numbers an image, as the public DM implementation evaluates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rdmdc import rates
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.models import running
from rdmdc.models.augment import OPERATIONS, augment, draw
from rdmdc.models.network import Network, Weights
from rdmdc.options import Rate, option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator
from rdmdc.records import LabelledImages


@dataclass(frozen=True)
class Schedule:
    """How networks are trained from scratch by SGD."""

    epochs: int = option("passes over the training set", at_least=0, at_most=100_000)
    batch: int = option("images per step", at_least=1)
    learning_rate: float = option("SGD's", above=0)
    momentum: float = option("SGD's", at_least=0, below=1)
    nesterov: bool = option("Nesterov's momentum instead of the plain one")
    weight_decay: float = option("SGD's", at_least=0)
    decay_after: Rate = option(
        "share of the epochs after which the learning rate falls tenfold; 1 is never"
    )
    augmentation: tuple[str, ...] = option(
        "operations of which DSA draws one a step", choices=tuple(OPERATIONS)
    )


def fit(
    network: Network,
    inputs_of: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
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
    weights = {n: value.requires_grad_() for n, value in running.to(start, device).items()}
    optimiser = torch.optim.SGD(
        weights.values(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        weight_decay=schedule.weight_decay,
    )
    momenta = running.to(state.group("momenta", device), device) if state else {}
    for name, value in momenta.items():
        optimiser.state[weights[name]]["momentum_buffer"] = value
    done = state.facts["steps"] if state else 0
    chunk = running.even_chunk(min(schedule.batch, len(labels)), 1, device.type)
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
            loss, gradients = running.loss_and_gradients(
                network, weights, batch, labels[chosen], chunk
            )
            for name, value in gradients.items():
                weights[name].grad = value
            optimiser.step()
            checkpoints.offer(_state(weights, optimiser, step + 1))
        progress(epoch + 1, schedule.epochs, float(loss))
    return {name: value.detach() for name, value in weights.items()}


def _state(weights: Weights, optimiser: torch.optim.SGD, steps: int) -> State:
    momenta = {name: optimiser.state[w].get("momentum_buffer") for name, w in weights.items()}
    momenta = {name: value for name, value in momenta.items() if value is not None}
    return State({"weights": weights, "momenta": momenta}, {"steps": steps})


def pretrain(
    train: LabelledImages,
    network: Network,
    schedule: Schedule,
    seed: int,
    device: str,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Weights:
    """A victim for gradient matching, trained on clean data for ``schedule.epochs`` (Alg. 1).

    §3.1 pretrains "multiple models for different epochs": each has its own initial weights.
    """

    def inputs_of(chosen: torch.Tensor) -> torch.Tensor:
        return train.normalisation.normalise(train.pixels[chosen].to(device))

    purpose = (seed, "pretrain", schedule.epochs)
    labels = train.labels.to(device)
    return fit(network, inputs_of, labels, schedule, purpose, progress, checkpoints)
