"""Train networks from scratch on a condensed set; score accuracy and what they make of targets."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from rdmdc.models import running as networks
from rdmdc.checkpoints import Checkpoints, Part
from rdmdc.models.running import ConvNet, Weights
from rdmdc.progress import OnStep
from rdmdc.records import LabelledImages, SyntheticSet, Target
from rdmdc.models.training import Schedule, fit

BLOCK = 1024  # test images normalised at once


def evaluate(
    synthetic: SyntheticSet,
    test: LabelledImages,
    targets: Sequence[Target],
    network: ConvNet,
    schedule: Schedule,
    trained: int,
    seed: int,
    run: int,
    device: str,
    progress: OnStep,
    checkpoints: Checkpoints,
) -> pd.DataFrame:
    """Scores of ``trained`` networks: a row per network and target (§5.1).

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
        accuracy = _accuracy(network, weights, test, device)
        for target in targets:
            pixels = target.pixels[None].to(device)
            logits = networks.logits_all(network, weights, test.normalisation.normalise(pixels))
            rows.append({"network": number, "accuracy": accuracy, **_score(logits[0], target)})
    return pd.DataFrame(rows)


def _accuracy(network: ConvNet, weights: Weights, test: LabelledImages, device: str) -> float:
    """Share of the test split that the network gets right."""
    right = 0
    blocks = zip(test.pixels.split(BLOCK), test.labels.split(BLOCK), strict=True)
    for pixels, labels in blocks:
        inputs = test.normalisation.normalise(pixels.to(device))
        predicted = networks.logits_all(network, weights, inputs).argmax(1).cpu()
        right += int((predicted == labels).sum())
    return right / len(test.labels)


def _score(logits: Tensor, target: Target) -> dict[str, float | int]:
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
