"""A package of somebody else, with one plug-in of each kind: files for a folder on PYTHONPATH.

No installer is needed: Python finds entry points in a folder ``*.dist-info`` beside the package.
"""

from __future__ import annotations

from pathlib import Path

FILES = {
    "halfway/__init__.py": '"""Plug-ins of another package."""\n',
    "halfway/stripes.py": '''
"""Images with stripes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdmdc import plugins
from rdmdc.datasets.split import Split
from rdmdc.options import option


@dataclass(frozen=True)
class Options:
    """How many, and how large."""

    each: int = option("images of each class", at_least=1)
    side: int = option("side of an image", at_least=1, unit="pixels")


@plugins.source(Options)
def stripes(options: Options) -> tuple[Split, Split]:
    """Noisy stripes: rows, columns and none."""
    return _split(options, 0), _split(options, 1)


def _split(options: Options, seed: int) -> Split:
    shape = (3 * options.each, options.side, options.side, 3)
    pixels = np.random.default_rng(seed).integers(0, 128, shape, np.uint8)
    labels = np.arange(3).repeat(options.each)
    pixels[labels == 0, ::2] += 100
    pixels[labels == 1, :, ::2] += 100

    def images(wanted):
        for row in np.flatnonzero(wanted).tolist():
            yield row, f"stripe {row}", pixels[row]

    return Split("stripes", labels, ("rows", "columns", "none"), images)
''',
    "halfway/nets/__init__.py": "",
    "halfway/nets/pooled.py": '''
"""A network of one layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from halfway.nets.layer import apply
from rdmdc import plugins
from rdmdc.models.network import Network, uniform
from rdmdc.options import option


@dataclass(frozen=True)
class Options:
    """Size of the layer."""

    width: int = option("units", at_least=1)


@plugins.network(Options)
def pooled(channels: int, side: int, classes: int, options: Options) -> Pooled:
    """One layer with ReLU."""
    return Pooled(channels, side, classes, options.width)


@dataclass(frozen=True)
class Pooled(Network):
    width: int

    @property
    def features(self) -> int:
        return self.width

    @property
    def operations(self) -> int:
        return 2 * self.width * self.channels * self.side**2

    @property
    def activations(self) -> int:
        return self.width

    def draw(self, generator):
        inputs = self.channels * self.side**2
        return {
            "first.weight": uniform((self.width, inputs), inputs, generator),
            "linear.weight": uniform((self.classes, self.width), self.width, generator),
            "linear.bias": uniform((self.classes,), self.width, generator),
        }

    def embed(self, weights, inputs):
        return apply(weights["first.weight"], inputs)
''',
    "halfway/nets/layer.py": '''
"""The layer."""

import torch


def apply(weight, inputs):
    return torch.relu(inputs.flatten(1) @ weight.T)
''',
    "halfway/brighten.py": '''
"""An attack without a target."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rdmdc import plugins
from rdmdc.attacks.crafting import choose
from rdmdc.options import option
from rdmdc.records import PoisonSet


@dataclass(frozen=True)
class Options:
    """How much."""

    by: int = option("added to each pixel", at_least=1, at_most=255, unit="255ths")


@plugins.attack(Options)
def brighten(scene, options: Options, progress, checkpoints):
    """Brighter images of the adversarial class."""
    indices = choose(scene, [scene.target.adversarial_label])
    pixels = (scene.train.pixels[indices].int() + options.by).clamp(max=255)
    poisons = PoisonSet(indices, scene.train.labels[indices], pixels.byte())
    return poisons, pd.DataFrame({"iteration": [0], "objective": [0.0]})
''',
    "halfway/darkest.py": '''
"""A screen by brightness."""

from __future__ import annotations

import torch

from rdmdc import plugins
from rdmdc.records import Screening
from rdmdc.screens.screening import Drop, keep_without_top


@plugins.screen(Drop, passes=lambda options: 1)
def darkest(suspects, options: Drop, progress, checkpoints):
    """Keep the darkest images."""
    images = suspects.images
    scores = images.pixels(torch.arange(len(images.labels))).double().mean((1, 2, 3))
    kept = keep_without_top(scores, images.labels, len(images.class_names), options.drop)
    return Screening(scores, kept)
''',
    "halfway/middle.py": '''
"""An estimator without options."""

from __future__ import annotations

from rdmdc import plugins
from rdmdc.estimators.estimate import Estimate


@plugins.estimator()
def middle(vectors, generators, options: None) -> Estimate:
    """Halfway between the lowest and the highest."""
    return Estimate((vectors.amin(1) + vectors.amax(1)) / 2, None)
''',
    "halfway/prototypes.py": '''
"""A condenser without a number of images per class among its options."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from rdmdc import plugins
from rdmdc.options import option
from rdmdc.randomness import generator
from rdmdc.records import SyntheticSet


@dataclass(frozen=True)
class Options:
    """From how many images."""

    among: int = option("images of each class", at_least=1)


@plugins.condenser(Options, matches="embeddings")
def prototypes(task, options: Options, progress, checkpoints):
    """One image a class: the estimate of the class's mean pixels."""
    data, made = task.data, {}
    for name, calibration in task.methods.items():
        means = []
        for c in range(len(data.class_names)):
            drawn, _ = data.draw(c, options.among, generator(task.seed, "prototypes", task.run, c))
            inputs = data.normalisation.normalise(drawn)
            found = calibration(inputs.flatten(1)[None], [c], (task.seed, "prototypes"))
            means.append(found.value[0].view(data.shape))
        labels = torch.arange(len(means))
        sets = SyntheticSet(torch.stack(means), labels, data.class_names, data.normalisation)
        made[name] = sets, pd.DataFrame({"iteration": [0], "loss": [0.0]})
    return made
''',
    "halfway-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: halfway\nVersion: 1.0\n",
    "halfway-1.0.dist-info/entry_points.txt": (
        "[rdmdc.sources]\nstripes = halfway.stripes:stripes\n"
        "[rdmdc.networks]\npooled = halfway.nets.pooled:pooled\n"
        "[rdmdc.attacks]\nbrighten = halfway.brighten:brighten\n"
        "[rdmdc.screens]\ndarkest = halfway.darkest:darkest\n"
        "[rdmdc.estimators]\nmiddle = halfway.middle:middle\n"
        "[rdmdc.condensers]\nprototypes = halfway.prototypes:prototypes\n"
    ),
}
"""The whole package, by file name."""

PRESET = """
preset: outside
description: "Nothing but plug-ins of another package."
seed: 0
runs: 1
device: cpu
threads: 1
compile: false
precision: float32
checkpoint_minutes: 5
cluster: {train: 36, test: 36, classes: 3, side: 8, memory_mb: 1000, gflops: 1}
dataset: {source: stripes, each: 12, side: 8, classes: null, per_class: null, size: null,
  color: rgb, normalisation: training_split}
networks: {small: {use: pooled, width: 8}}
network: small
augmentation: []
targets: [0]
attacks: {brighten: {by: 60}}
screens: {darkest: {drop: 1/4}}
condensers: {prototypes: {among: 6}}
methods:
  plain: {label: Plain, screen: none, condenser: prototypes, estimator: mean}
  middle: {label: Middle, screen: darkest, condenser: prototypes, estimator: middle}
panels: {plain: [plain], middle: [middle]}
conditions:
  clean: {label: None, attack: none, panels: [plain, middle]}
  bright: {label: Brighten, attack: brighten, poisons: 1/4, clean: clean, panels: [plain, middle]}
evaluate: {networks: {small: 2}, epochs: 2, batch: 8, learning_rate: 0.01, momentum: 0.9,
  nesterov: false, weight_decay: 0, decay_after: "1", augmentation: []}
tables:
  table1: {title: All, reference: plain, rows: [{condition: bright, methods: [plain, middle]}]}
figures: {condition: bright, target: 0, run: 0, table: table1}
"""
"""A preset that uses them all."""


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder; its path for PYTHONPATH."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.lstrip("\n"))
    return folder
