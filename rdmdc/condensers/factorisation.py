"""Factorised sets: every image is a basis seen through a hallucinator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rdmdc import plugins
from rdmdc.checkpoints import Checkpoints, State
from rdmdc.condensers.adam import adam
from rdmdc.condensers.matching_means import begin, calibrated_means, gradients
from rdmdc.condensers.sets import Condensed, condensed, traced
from rdmdc.condensers.starts import START
from rdmdc.condensers.task import Purpose, Task
from rdmdc.models import running
from rdmdc.models.network import Weights, uniform
from rdmdc.options import option
from rdmdc.progress import OnStep
from rdmdc.randomness import generator


@dataclass(frozen=True)
class Options:
    """What images are made of, and how it is learned."""

    bases: int = option("basis images per class", at_least=1)
    hallucinators: int = option("styles that each basis is rendered in (published: 5)", at_least=1)
    channels: int = option("channels within a hallucinator (published: 3)", at_least=1)
    batch: int = option("N, real images per class and iteration", at_least=2)
    iterations: int = option("updates of bases and hallucinators", at_least=1)
    learning_rate: float = option("Adam's, for bases", above=0)
    style_rate: float = option("Adam's, for hallucinators", above=0)
    initialisation: str = option(
        "of bases: noise: N(0, I) in normalised space; real: images of the data set (published)",
        choices=("noise", "real"),
    )
    log_every: int = option("iterations between rows of the trace", at_least=1)


def passes(options: Options, classes: int, methods: int) -> float:
    """Forward passes: real images once, rendered ones with their gradient."""
    rendered = options.bases * options.hallucinators
    return options.iterations * classes * (options.batch + 2 * methods * rendered)


@plugins.condenser(Options, matches="embeddings", passes=passes)
def factorisation(
    task: Task, options: Options, progress: OnStep, checkpoints: Checkpoints
) -> Condensed:
    """Dataset factorisation (HaBa; Liu et al. 2022) on DM's matching loss.

    A hallucinator maps a basis x to decode(scale · encode(x) + shift), with 1 × 1 convolutions as
    encoder and decoder and a scale and a shift for each pixel. Every class's bases pass through the
    same hallucinators, so that the set has bases × hallucinators images per class. Bases and
    hallucinators descend together on DM's loss of the rendered images, by Adam; estimators apply as
    in `dm`.

    Deviations: Liu et al. factorise MTT's set, with pairs drawn at random and a loss that keeps
    hallucinators apart by an adversary's features; here all pairs are rendered in each iteration
    and nothing keeps them apart. The file holds the rendered images, so it is no smaller than a set
    of as many images. Raises RecordError where a class has fewer images than ``batch``.
    """
    data, device = task.data, task.device
    classes = range(len(data.class_names))
    data.require(options.batch, "the condenser's batch")
    purpose: Purpose = (task.seed, "condense", task.run)
    bases = START[options.initialisation](data, options.bases, (*purpose, "start")).to(device)
    styles = draw_styles(options, data.shape, generator(*purpose, "hallucinators"))
    start = {"bases": bases, **{name: value.to(device) for name, value in styles.items()}}
    learned = {name: dict(start) for name in task.methods}
    moments: dict[str, Weights] = {name: {} for name in task.methods}
    traces: dict[str, list[dict[str, Any]]] = {name: [] for name in task.methods}
    loss, done = float("nan"), 0
    if (state := checkpoints.resume()) is not None:
        learned = {name: state.group(f"learned {name}", device) for name in task.methods}
        moments = {name: state.group(f"moments {name}", device) for name in task.methods}
        done, loss, traces = (state.facts[key] for key in ("iterations", "loss", "traces"))

    for number in range(done, options.iterations):
        iteration = begin(task, (*purpose, number))
        log = number % options.log_every == 0 or number == options.iterations - 1
        everything = dict.fromkeys(task.methods, classes)
        means, rows = calibrated_means(
            task, options.batch, running.embed, iteration, everything, log
        )
        for name in task.methods:
            leaves = {key: v.detach().requires_grad_() for key, v in learned[name].items()}
            images = render(leaves)
            found = gradients(
                task, running.embed, iteration, {name: images.detach()}, {name: means[name]}
            )
            by_images, terms = found[name]
            made = torch.autograd.grad(images, list(leaves.values()), by_images)
            by_leaves = dict(zip(leaves, made, strict=True))
            for group in (["bases"], list(styles)):
                rate = options.learning_rate if group == ["bases"] else options.style_rate
                own = {key: learned[name][key] for key in group}
                own, kept = adam(own, by_leaves, moments[name], number + 1, rate)
                learned[name], moments[name] = learned[name] | own, moments[name] | kept
            if log:
                traces[name] += traced(number, classes, terms.tolist(), rows[name])
                loss = float(terms.sum())
        progress(number + 1, options.iterations, loss)
        tensors = {f"learned {name}": values for name, values in learned.items()}
        tensors |= {f"moments {name}": values for name, values in moments.items()}
        checkpoints.offer(
            State(tensors, {"iterations": number + 1, "loss": loss, "traces": traces})
        )
    with torch.no_grad():
        return condensed(task, {name: render(own) for name, own in learned.items()}, traces)


def draw_styles(options: Options, shape: tuple[int, ...], draws: torch.Generator) -> Weights:
    """K hallucinators: encoders (K, channels, C) and decoders (K, C, channels) in PyTorch's default
    initialisation with their biases, scales of one and shifts of zero (K, channels, H, W)."""
    (colours, *sides), k, m = shape, options.hallucinators, options.channels
    return {
        "encode": uniform((k, m, colours), colours, draws),
        "encode_bias": uniform((k, m), colours, draws),
        "scale": torch.ones(k, m, *sides),
        "shift": torch.zeros(k, m, *sides),
        "decode": uniform((k, colours, m), m, draws),
        "decode_bias": uniform((k, colours), m, draws),
    }


def render(learned: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Every basis (C·B, C, H, W) in every style, sorted by class: (C·B·K, C, H, W)."""
    bases = learned["bases"]
    encoded = torch.einsum("kmc,bchw->bkmhw", learned["encode"], bases)
    encoded = encoded + learned["encode_bias"][:, :, None, None]
    styled = learned["scale"] * encoded + learned["shift"]
    decoded = torch.einsum("kcm,bkmhw->bkchw", learned["decode"], styled)
    return (decoded + learned["decode_bias"][:, :, None, None]).flatten(0, 1)
