"""Data poisoning attacks: one crafting loop, one short objective for each (§3, §2.3).

Perturbations live in 255ths: a step of 1/255 in the direction of its sign stays on the grid of
uint8 pixels, so that rounding changes nothing and the bound |δ| ≤ eps holds exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
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
from rdmdc.records import LabelledImages, PoisonSet, RecordError, Target

CHUNK = {"cpu": 32, "cuda": 512}  # images differentiated at once
MOMENTUM = 0.9  # Adam's β1: the sign of Adam's step is the sign of its first moment

Purpose = tuple[int | str, ...]
Objective = Callable[[Tensor, Purpose], Iterator[Tensor]]
"""Yields the terms of the loss of pixel values (P, C, H, W) for the draws of a purpose.

Each term is differentiated by itself, so that only one graph is held at a time."""


@dataclass(frozen=True)
class Crafting:
    """How to craft: ``eps`` and ``step`` in 255ths, R restarts of T iterations (Algs. 1 and 2).

    ``optimiser`` is sign_adam (the paper's) or adam_of_signs (Witches' Brew's). Restarts are
    compared on ``scoring_draws`` draws common to all. ``clean_batch``: images a class to estimate
    its clean mean from, for `untargeted` alone.
    """

    eps: int
    step: float
    restarts: int
    iterations: int
    optimiser: str
    scoring_draws: int
    augmentation: tuple[str, ...]
    clean_batch: int = 0


@dataclass(frozen=True)
class Scene:
    """What an attacker has: clean training data, target, network and, if wanted, victims.

    ``poisons`` is the share of the class to poison, or a number of images.
    """

    train: LabelledImages
    target: Target
    network: ConvNet
    victims: tuple[Weights, ...]
    poisons: str | int
    seed: int
    device: str

    @property
    def purpose(self) -> Purpose:
        """What all draws of this scene start with."""
        return (self.seed, "poison", self.target.seed)


def direct(
    scene: Scene, crafting: Crafting | None, progress: OnStep, checkpoints: Checkpoints
) -> "Crafted":
    """Copies of the target under the adversarial label (§5.3, Table 5); it needs no crafting."""
    indices = choose(scene, [scene.target.adversarial_label])
    copies = scene.target.pixels.expand(len(indices), -1, -1, -1).clone()
    return PoisonSet(indices, scene.train.labels[indices], copies), pd.DataFrame()


def dm(scene: Scene, crafting: Crafting, progress: OnStep, checkpoints: Checkpoints) -> "Crafted":
    """DM poisoning, Alg. 2: no victims, a fresh random network and augmentation each step."""
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(dm_objective, scene, crafting)
    return craft(scene, indices, crafting, objective, progress, checkpoints)


def gradient_matching(
    scene: Scene, crafting: Crafting, progress: OnStep, checkpoints: Checkpoints
) -> "Crafted":
    """Gradient matching, Alg. 1 (Geiping et al. 2021), on pretrained victims."""
    indices = choose(scene, [scene.target.adversarial_label])
    objective = partial(gradient_matching_objective, scene, crafting, target_gradients(scene))
    return craft(scene, indices, crafting, objective, progress, checkpoints)


def untargeted(
    scene: Scene, crafting: Crafting, progress: OnStep, checkpoints: Checkpoints
) -> "Crafted":
    """Images of all classes moved away from their class's mean embedding (§2.3).

    The paper names no objective: this is Eq. 5's distance, from the clean mean, maximised.
    """
    classes = range(len(scene.train.class_names))
    indices = choose(scene, classes)
    labels = scene.train.labels[indices]
    objective = partial(untargeted_objective, scene, crafting, labels)
    return craft(scene, indices, crafting, objective, progress, checkpoints)


Crafted = tuple[PoisonSet, pd.DataFrame]
ATTACKS: dict[str, Callable[..., Crafted]] = {
    f.__name__: f for f in (direct, dm, gradient_matching, untargeted)
}


def choose(scene: Scene, classes: Sequence[int]) -> Tensor:
    """Indices (P,) of the images to poison, of each class its share, drawn by seed and target.

    Raises RecordError where a class has fewer images than are to be poisoned.
    """
    counts, starts = scene.train.counts(), scene.train.class_start()
    chosen = []
    for c in classes:
        total, wanted = int(counts[c]), scene.poisons
        number = wanted if isinstance(wanted, int) else rates.count(wanted, total)
        if not 0 < number <= total:
            raise RecordError(
                f"{number} poisons cannot replace images of class {scene.train.class_names[c]!r},"
                f" which has {total}; set the condition's poisons to 1..{total}"
            )
        order = torch.randperm(total, generator=generator(*scene.purpose, "indices", c))
        chosen.append(order[:number].sort().values + starts[c])
    return torch.cat(chosen)


def craft(
    scene: Scene,
    indices: Tensor,
    crafting: Crafting,
    objective: Objective,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> Crafted:
    """The loop of Algs. 1 and 2: random start, T projected steps, R restarts, the best one kept.

    The pseudocode overwrites δ* in each restart; the text keeps the best, and so does this, by the
    objective on draws common to all restarts: minima over single random networks compare noise.
    The trace has a row per restart and iteration, and one (iteration −1) for a restart's score.
    Raises RecordError where no restart's score is a number.
    """
    base = scene.train.pixels[indices].to(scene.device, torch.float32)
    low, high = (base - crafting.eps).clamp(min=0), (base + crafting.eps).clamp(max=255)
    rows: list[tuple[int, int, float]] = []
    best, best_score = base, float("inf")
    if (state := checkpoints.resume()) is not None:
        best, best_score = state.group("pixels", scene.device)["best"], state.facts["best_score"]
        rows = state.facts["rows"]
    for restart in range(state.facts["restart"] if state else 0, crafting.restarts):
        purpose = (*scene.purpose, "restart", restart)
        noise = torch.rand(base.shape, generator=generator(*purpose, "start")).to(scene.device)
        values = (base + (2 * noise - 1) * crafting.eps).round().clamp(low, high)
        moments: Moments = {}
        done = 0
        if state is not None:  # it is of the first restart here
            values = state.group("pixels", scene.device)["values"]
            moments, done = state.group("moments", scene.device), state.facts["iterations"]
            state = None
        for t in range(done, crafting.iterations):
            loss, gradient = _differentiate(objective, values, (*purpose, t))
            change, moments = OPTIMISERS[crafting.optimiser](crafting, gradient, moments, t)
            values = (values - change).clamp(low, high)
            rows.append((restart, t, loss))
            progress(
                restart * crafting.iterations + t + 1,
                crafting.restarts * crafting.iterations,
                loss,
            )
            pixels = {"values": values, "best": best}
            facts = {"restart": restart, "iterations": t + 1, "best_score": best_score}
            checkpoints.offer(
                State({"pixels": pixels, "moments": moments}, {**facts, "rows": rows})
            )
        values = values.round().clamp(low, high)
        score = score_on_common_draws(scene, crafting, objective, values)
        rows.append((restart, -1, score))
        if score < best_score:
            best, best_score = values, score
    if crafting.restarts and best_score == float("inf"):
        raise RecordError(
            f"target {scene.target.seed}: the poisons' objective is not a number in any restart;"
            " look for victims whose gradient vanishes, or a clean_batch of 0"
        )
    poisons = PoisonSet(indices, scene.train.labels[indices], best.to("cpu", torch.uint8))
    return poisons, pd.DataFrame(rows, columns=["restart", "iteration", "objective"])


def score_on_common_draws(
    scene: Scene, crafting: Crafting, objective: Objective, values: Tensor
) -> float:
    """Mean objective of pixel values over held-out draws that are the same for every restart."""
    purposes = [(*scene.purpose, "score", i) for i in range(crafting.scoring_draws)]
    return sum(_value(objective, values, p) for p in purposes) / len(purposes)


def _value(objective: Objective, values: Tensor, purpose: Purpose) -> float:
    return sum(float(term.detach()) for term in objective(values, purpose))


def _differentiate(objective: Objective, values: Tensor, purpose: Purpose) -> tuple[float, Tensor]:
    """The sum of the objective's terms and its gradient (P, C, H, W) by pixel values."""
    values = values.detach().requires_grad_()
    loss, gradient = 0.0, torch.zeros_like(values)
    for term in objective(values, purpose):
        gradient += torch.autograd.grad(term, values)[0]
        loss += float(term.detach())
    return loss, gradient


# --- optimisers ------------------------------------------------------------------------------

Moments = dict[str, Tensor]
"""What an optimiser keeps from one iteration to the next; nothing before the first."""


def sign_adam(
    crafting: Crafting, gradient: Tensor, moments: Moments, t: int
) -> tuple[Tensor, Moments]:
    """The paper's "signed Adam, equivalent to signed momentum SGD": ± step by the moment's sign.

    Optimisers give what to subtract from the pixel values, in 255ths, for a gradient at iteration
    t, and their new moments.
    """
    last = moments.get("first", torch.zeros_like(gradient))
    first = MOMENTUM * last + (1 - MOMENTUM) * gradient
    return crafting.step * first.sign(), {"first": first}


def adam_of_signs(
    crafting: Crafting, gradient: Tensor, moments: Moments, t: int
) -> tuple[Tensor, Moments]:
    """Witches' Brew's: Adam fed with the gradient's sign, its step × 0.1 at 3/8, 5/8 and 7/8."""
    sign, zeros = gradient.sign(), torch.zeros_like(gradient)
    first = 0.9 * moments.get("first", zeros) + 0.1 * sign
    second = 0.999 * moments.get("second", zeros) + 0.001 * sign.square()
    decays = sum(8 * t >= eighths * crafting.iterations for eighths in (3, 5, 7))
    unbiased = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
    step = crafting.step * 0.1**decays * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    return step, {"first": first, "second": second}


OPTIMISERS = {f.__name__: f for f in (sign_adam, adam_of_signs)}


# --- objectives ------------------------------------------------------------------------------


def dm_objective(
    scene: Scene, crafting: Crafting, values: Tensor, purpose: Purpose
) -> Iterator[Tensor]:
    """Eq. 5: ‖Φ_θ(A_w(x_t)) − mean_p Φ_θ(A_w(x_p + δ_p))‖² for one θ and one w."""
    target = scene.target.pixels.to(values)[None]
    embeddings = _embed(scene, crafting, torch.cat([target, values]), purpose)
    yield (embeddings[0] - embeddings[1:].mean(0)).square().sum()


def untargeted_objective(
    scene: Scene, crafting: Crafting, labels: Tensor, values: Tensor, purpose: Purpose
) -> Iterator[Tensor]:
    """A term a class: −‖mean of its clean images' embeddings − mean of its poisons'‖²."""
    starts, counts = scene.train.class_start(), scene.train.counts()
    for c in labels.unique().tolist():
        order = torch.randperm(int(counts[c]), generator=generator(*purpose, "clean", c))
        clean = scene.train.pixels[starts[c] + order[: crafting.clean_batch]].to(values)
        mine = values[labels.to(values.device) == c]
        embeddings = _embed(scene, crafting, torch.cat([clean, mine]), (*purpose, c))
        mean, poisoned = embeddings[: len(clean)].mean(0), embeddings[len(clean) :].mean(0)
        yield -(mean - poisoned).square().sum()


def _embed(scene: Scene, crafting: Crafting, values: Tensor, purpose: Purpose) -> Tensor:
    """Embeddings (n, D) of pixel values by a fresh network, all under one augmentation."""
    weights = networks.to(scene.network.draw(generator(*purpose, "network")), scene.device)
    drawn = draw(crafting.augmentation, 1, generator(*purpose, "augmentation"), shared=False)
    inputs = augment(scene.train.normalisation.normalise(values)[None], drawn)[0]
    return networks.embed(scene.network, weights, inputs, CHUNK[values.device.type])


def target_gradients(scene: Scene) -> list[list[Tensor]]:
    """∇_θ ℓ(x^t, y^adv, θ) for each victim: fixed, without augmentation (Eq. 4)."""
    inputs = scene.train.normalisation.normalise(scene.target.pixels.to(scene.device))[None]
    label = torch.tensor([scene.target.adversarial_label], device=scene.device)
    gradients = []
    for victim in scene.victims:
        weights = _trainable(victim, scene.device)
        loss = F.cross_entropy(scene.network.logits(weights, inputs), label)
        gradients.append(list(torch.autograd.grad(loss, list(weights.values()))))
    return gradients


def gradient_matching_objective(
    scene: Scene,
    crafting: Crafting,
    wanted: Sequence[Sequence[Tensor]],
    values: Tensor,
    purpose: Purpose,
) -> Iterator[Tensor]:
    """Eq. 4, a term a victim: (1 − cosine of wanted and the poisons' gradient) / victims.

    The cosine is of all parameters' gradients concatenated. Alg. 1 asks for differentiable
    augmentation: here DSA with one operation a step for all poisons and separate numbers for each,
    where Witches' Brew shifts by up to 8 pixels and flips in every step.
    """
    drawn = draw(
        crafting.augmentation, len(values), generator(*purpose, "augmentation"), shared=True
    )
    labels = torch.full((len(values),), scene.target.adversarial_label, device=values.device)
    for victim, target in zip(scene.victims, wanted, strict=True):
        inputs = scene.train.normalisation.normalise(values)
        inputs = augment(inputs.unsqueeze(1), drawn).squeeze(1)
        weights = _trainable(victim, scene.device)
        logits = networks.logits_for_weights(scene.network, weights, inputs)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        poisons = torch.autograd.grad(
            loss, list(weights.values()), create_graph=True, materialize_grads=True
        )  # zeros for biases that a norm takes away
        product = torch.stack([(a * b).sum() for a, b in zip(target, poisons, strict=True)]).sum()
        yield (1 - product / (_norm(target) * _norm(poisons))) / len(scene.victims)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()


def _trainable(weights: Weights, device: str) -> Weights:
    return {n: v.clone().requires_grad_() for n, v in networks.to(weights, device).items()}
