"""The dataset card of a condensed set: what it is, what from, how good, how to train on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from rdmdc import __version__
from rdmdc.owndata import verdicts
from rdmdc.owndata.audit import Audit
from rdmdc.owndata.choices import METHODS
from rdmdc.records import SyntheticSet

TRAINING = """\
```python
import json, torch
from safetensors import safe_open

with safe_open("set.safetensors", "pt") as file:
    inputs, labels = file.get_tensor("inputs"), file.get_tensor("labels")
    said = json.loads(file.metadata()["set"])
# inputs are normalised: normalise the images that you test on in the same way
mean, std = (torch.tensor(said[key]).view(-1, 1, 1) for key in ("mean", "std"))

def normalise(images):  # (N, C, H, W) floats in 0..1
    return (images - mean) / std

for images, answers in torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(inputs, labels), batch_size=256, shuffle=True
):
    ...  # a step of your own training
```
"""


@dataclass(frozen=True)
class Facts:
    """What the card tells beside the set itself; measured: accuracies by form of the images."""

    name: str
    licence: str
    method: str
    preset: Mapping[str, Any]
    audited: Audit
    measured: Mapping[str, Sequence[float]]


def text(facts: Facts, made: SyntheticSet) -> str:
    """The card in Markdown, with the header that the Hugging Face hub reads."""
    audited, classes = facts.audited, len(made.class_names)
    survey = audited.survey
    channels, side = made.inputs.shape[1], made.inputs.shape[-1]
    options = facts.preset["condensers"]["dm"]
    label, screen, estimator = METHODS[facts.method]
    accuracies = [
        f"| {name} | {mean(values):.1%} | {pstdev(values):.1%} | {len(values)} |"
        for name, values in facts.measured.items()
    ]
    difference = mean(facts.measured["8-bit"]) - mean(facts.measured["exact"])
    return f"""\
---
license: {json.dumps(facts.licence)}
task_categories: [image-classification]
tags: [dataset-condensation, synthetic]
pretty_name: {json.dumps(facts.name, ensure_ascii=False)}
size_categories: ["{_size(len(made.labels))}"]
configs:
  - config_name: default
    data_files:
      - split: train
        path: data/train.parquet
---

# {facts.name}

{made.ipc} synthetic images of each of {classes} classes, {side} × {side} pixels,
{"grey" if channels == 1 else "RGB"}: a small set that networks are trained on instead of the
{sum(survey.train)} images that it was condensed from. The images are not pictures of anything; they
are made so that networks learn from them.

![The images, a class a row](preview.png)

## Accuracy

ConvNets of width {facts.preset["networks"]["convnet"]["width"]} and depth
{facts.preset["networks"]["convnet"]["depth"]}, trained from scratch on this set and tested on
{sum(survey.test)} real images. The test split: {survey.test_from}.

| trained on | accuracy | standard deviation | networks |
| --- | --- | --- | --- |
{chr(10).join(accuracies)}

Exact values are in `set.safetensors`; PNG and Parquet hold 8-bit images, whose values outside 0..1
are cut off. The difference is {100 * difference:+.1f} points.
{_caveat(survey.test_from)}
## What it was made from

`{Path(audited.data).absolute().name}`: {sum(survey.train)} training images
({survey.sizes}), form {survey.form}.{_left_out(len(survey.faults))}

`provenance.json` has the sha256 of each file.

## How

{label} (`{facts.method}`: screen `{screen}`, estimator `{estimator}`), {options["iterations"]}
iterations, batch {options["batch"]} a class, learning rate {options["learning_rate"]:g}, seed
{facts.preset["seed"]}; rdmdc {__version__}. `preset.yaml` is the complete preset.

## Was the data poisoned?

{_audit(audited, screen)}

{chr(10).join(f"- {line}" for line in verdicts.MEASURED)}

## How to train on it

`datasets.load_dataset("this folder")` opens the 8-bit images. The exact values:

{TRAINING}
## Licence

{facts.licence}
"""


def _audit(audited: Audit, screen: str) -> str:
    suspicious = audited.classes[audited.classes["verdict"] == verdicts.FOUND]
    unknown = int((audited.classes["verdict"] == verdicts.UNKNOWN).sum())
    lines = ["The audit found nothing." if suspicious.empty else "The audit found:"]
    lines += [
        f"- class {row.name_!r}: {row.flagged} of {row.images} images stand apart"
        for row in suspicious.rename(columns={"class": "name_"}).itertuples()
    ]
    if unknown:
        lines.append(
            f"- {unknown} of {len(audited.classes)} classes are too small to be judged (fewer than"
            f" {verdicts.SCREEN['fewest']} images)"
        )
    if not suspicious.empty:
        dropped = screen == "contrastive_minorities"
        lines += [
            "",
            "These images were left out before condensing. A group need not be poison: many nearly"
            " equal images stand apart as well."
            if dropped
            else "They were **not** left out: this method does not use the audit's verdict.",
        ]
    return "\n".join(lines)


def _caveat(test_from: str) -> str:
    if "held out" not in test_from:
        return ""
    return (
        "\nThe held-out images are from the same source, not screened: if it is poisoned, so are"
        " some of them.\n"
    )


def _left_out(number: int) -> str:
    return f" {number} files or classes that could not be read were left out." if number else ""


def _size(images: int) -> str:
    return "n<1K" if images < 1000 else "1K<n<10K" if images < 10000 else "10K<n<100K"
