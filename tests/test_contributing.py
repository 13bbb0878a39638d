"""CONTRIBUTING.md's examples of plug-ins are complete files that run."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rdmdc import options, plugins
from rdmdc.attacks.crafting import Scene
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.condensers.task import Task
from rdmdc.records import LabelledImages, Normalisation, Target
from rdmdc.screens.screening import Suspects
from rdmdc.training_data import TrainingData

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
PIXELS = torch.randint(
    256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
IMAGES = LabelledImages(
    PIXELS,
    torch.arange(2).repeat_interleave(4),
    ("cat", "dog"),
    Normalisation((0.5,) * 3, (0.2,) * 3),
)


def progress(done, total, loss):
    """Nothing is shown."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The plug-in of each example, by kind."""
    found = {}
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)):
        name = f"contributing_{number}"
        path = tmp_path_factory.mktemp(name) / f"{name}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (plugin,) = (value for value in vars(module).values() if isinstance(value, plugins.Plugin))
        found[plugin.kind] = plugin
    return found


@pytest.fixture
def network(examples):
    plugin = examples["network"]
    return plugin(3, 8, 2, options.build(plugin.options, {"units": 5}, "network"))


def test_one_of_each_kind(examples):
    assert examples.keys() == plugins.KINDS.keys()
    assert all(plugin.summary for plugin in examples.values())


def test_estimator(examples):
    plugin = examples["estimator"]
    points = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]]])
    estimate = plugin(points, [], options.build(plugin.options, {"steps": 50}, "estimator"))
    assert torch.allclose(estimate.value, torch.zeros(1, 2), atol=1e-3)


def test_screen(examples, network):
    plugin = examples["screen"]
    strange = PIXELS.clone()
    strange[:4], strange[2] = 0, 255
    images = LabelledImages(strange, IMAGES.labels, IMAGES.class_names, IMAGES.normalisation)
    suspects = Suspects(
        TrainingData(images), torch.zeros(8, dtype=torch.bool), network, (), 0, "cpu"
    )
    chosen = options.build(plugin.options, {"drop": "1/4"}, "screen")
    screening = plugin(suspects, chosen, progress, NoCheckpoints())
    assert not screening.kept[2]
    assert screening.kept.sum() == 6


def test_attack(examples, network):
    plugin = examples["attack"]
    target = Target(0, 0, PIXELS[0], true_label=0, adversarial_label=1)
    scene = Scene(IMAGES, target, network, (), "1/2", 0, "cpu")
    chosen = options.build(plugin.options, {"opacity": 1}, "attack")
    poisons, _ = plugin(scene, chosen, progress, NoCheckpoints())
    assert torch.equal(poisons.pixels, PIXELS[:1].expand(2, -1, -1, -1))
    poisons.check(IMAGES)


def test_condenser(examples, network):
    plugin = examples["condenser"]
    task = Task(TrainingData(IMAGES), network, (), {"plain": None}, 0, 0, "cpu")
    chosen = options.build(plugin.options, {"ipc": 4}, "condenser")
    synthetic, _ = plugin(task, chosen, progress, NoCheckpoints())["plain"]
    assert synthetic.ipc == 4
    real = IMAGES.normalisation.normalise(PIXELS)
    assert torch.allclose(synthetic.inputs[:4].sum(0), real[:4].sum(0), atol=1e-5)


def test_network(network):
    weights = network.draw(torch.Generator().manual_seed(0))
    network.check(weights)
    inputs = IMAGES.normalisation.normalise(PIXELS)
    assert network.embed(weights, inputs).shape == (8, network.features)
    assert network.logits(weights, inputs).shape == (8, 2)


def test_source(examples, tmp_path):
    plugin = examples["source"]
    files = {part: str(tmp_path / f"{part}.npz") for part in ("train", "test")}
    pixels = PIXELS.permute(0, 2, 3, 1).numpy()
    for file in files.values():
        np.savez(file, pixels=pixels, labels=IMAGES.labels.numpy(), class_names=["cat", "dog"])
    chosen = options.build(plugin.options, files, "source")
    assert plugin.facts["files"](chosen) == list(files.values())
    train, _ = plugin(chosen)
    assert train.class_names == ("cat", "dog")
    ((row, _, image),) = train.images(np.arange(8) == 3)
    assert row == 3
    assert np.array_equal(image, pixels[3])
