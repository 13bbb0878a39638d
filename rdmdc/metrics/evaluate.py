"""Train networks from scratch on a condensed set; score accuracy and what they make of targets."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from rdmdc.checkpoints import Checkpoints, Part
from rdmdc.models import running
from rdmdc.models.network import Network, Weights
from rdmdc.models.training import Schedule, fit
from rdmdc.progress import OnStep
from rdmdc.records import LabelledImages, SyntheticSet, Target

BLOCK = 1024  # test images normalised at once
NO_TARGET = {
    **dict.fromkeys(("target", "true_label", "adversarial_label", "predicted_label"), -1),
    **dict.fromkeys(("adversarial_probability", "true_probability", "margin"), float("nan")),
}
"""A row's values where a preset has no targets: accuracy alone is measured."""


def evaluate(
    synthetic: SyntheticSet,
    test: LabelledImages,
    targets: Sequence[Target],
    network: Network,
    schedule: Schedule,
    trained: int,
    seed: int,
    run: int,
    device: str,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> pd.DataFrame:
    """Scores of ``trained`` networks: a row per network and target (§5.1), one without targets.

    accuracy: share of the whole test split. adversarial_probability, true_probability: softmax on
    the target. margin: the adversarial probability minus the largest other, positive iff fooled.
    Networks draw the same numbers for every set of a run, so that methods are compared in pairs.
    Raises RecordError where the set and the test split have other classes, normalisation or shape.
    """
    synthetic.check(test)
    inputs, labels = synthetic.inputs.to(device), synthetic.labels.to(device)
    state = checkpoints.resume()
    done, rows = (state.facts["networks"], state.facts["rows"]) if state else (0, [])
    for number in range(done, trained):
        purpose = (seed, "evaluate", run, number)
        mine = Part(checkpoints, state, {"networks": number, "rows": rows})
        state = None  # it is the first network's
        weights = fit(
            network, lambda chosen: inputs[chosen], labels, schedule, purpose, progress, mine
        )
        right = predicted(network, weights, test, device) == test.labels
        accuracy = int(right.sum()) / len(right)
        for target in targets:
            pixels = target.pixels[None].to(device)
            logits = running.logits_all(network, weights, test.normalisation.normalise(pixels))
            rows.append({"network": number, "accuracy": accuracy, **_score(logits[0], target)})
        if not targets:
            rows.append({"network": number, "accuracy": accuracy, **NO_TARGET})
    return pd.DataFrame(rows)


def predicted(
    network: Network, weights: Weights, images: LabelledImages, device: str
) -> torch.Tensor:
    """The labels (N,) int64 that the network gives to the images of a split."""
    blocks = [
        running.logits_all(network, weights, images.normalisation.normalise(pixels.to(device)))
        for pixels in images.pixels.split(BLOCK)
    ]
    return torch.cat([logits.argmax(1).cpu() for logits in blocks])


def _score(logits: torch.Tensor, target: Target) -> dict[str, float | int]:
    """What logits (classes,) say of a target."""
    probabilities = logits.double().softmax(0)
    others = probabilities.clone()
    others[target.adversarial_label] = -1
    adversarial = float(probabilities[target.adversarial_label])
    return {
        "target": target.seed,
        "true_label": target.true_label,
        "adversarial_label": target.adversarial_label,
        "predicted_label": int(logits.argmax()),
        "adversarial_probability": adversarial,
        "true_probability": float(probabilities[target.true_label]),
        "margin": adversarial - float(others.max()),
    }
