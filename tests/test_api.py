"""The Python API: functions of arrays with the results of the functions that the workflow calls."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import rdmdc
from rdmdc import plugins
from rdmdc.api import ApiError
from rdmdc.condensers.task import Calibration, Task
from rdmdc.errors import InputError
from rdmdc.estimators.spectral_mean import Options as Spectral
from rdmdc.models import running
from rdmdc.records import RecordError
from rdmdc.training_data import TrainingData

TINY = {"iterations": 2, "batch": 8, "progress": False}


@pytest.fixture(autouse=True)
def uncompiled_afterwards():
    yield
    running.compiling(False, "cpu", None)


@pytest.fixture(scope="module")
def data():
    return rdmdc.load_dataset("emoji", per_class=(20, 6), size=8)


def test_importing_the_package_loads_no_torch():
    code = "import rdmdc, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_attribute_errors_that_list_the_known():
    with pytest.raises(AttributeError, match="load_dataset"):
        rdmdc.condens  # noqa: B018


def test_condense_is_the_condenser_with_the_options_that_the_signature_says(data):
    train, _ = data
    made = rdmdc.condense(train, ipc=2, method="rdm_dc", **TINY)
    dm, spectral = (
        plugins.get("condenser", "dm", ""),
        plugins.get("estimator", "spectral_mean", ""),
    )
    network = rdmdc.network(train)
    assert (network.width, network.depth) == (32, 1)
    running.compiling(True, "cpu", network)
    options = dm.options(
        ipc=2,
        batch=8,
        iterations=2,
        learning_rate=4.0,
        momentum=0.5,
        initialisation="noise",
        log_every=1,
    )
    methods = {"only": Calibration(spectral, Spectral(drop="3/10", power_iterations=10))}
    augmentation = ("color", "crop", "cutout", "flip", "scale", "rotate")
    task = Task(TrainingData(train), network, augmentation, methods, 0, 0, "cpu")
    from rdmdc.checkpoints import NoCheckpoints

    wanted = dm(task, options, lambda *_: None, NoCheckpoints())["only"][0]
    assert torch.equal(made.inputs, wanted.inputs)


def test_layouts_and_types_of_images_are_one(data):
    train, _ = data
    shuffled = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
    pixels, labels = train.pixels[shuffled].numpy(), train.labels[shuffled].numpy()
    by_channel_first = rdmdc.labelled(pixels, labels)
    by_channel_last = rdmdc.labelled(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels)
    by_floats = rdmdc.labelled(pixels / 255, labels)
    for other in (by_channel_last, by_floats):
        assert torch.equal(other.pixels, by_channel_first.pixels)
        assert torch.equal(other.labels, train.labels)
    values = by_channel_first.pixels.double() / 255
    assert np.allclose(by_channel_first.normalisation.mean, values.mean((0, 2, 3)))
    assert np.allclose(by_channel_first.normalisation.std, values.std((0, 2, 3), correction=0))


def test_a_draw_is_the_seed_s(data):
    train, _ = data
    first, again, other = (rdmdc.condense(train, ipc=1, seed=s, **TINY) for s in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)


def test_poisons_keep_the_radius_and_replace_the_class(data):
    train, test = data
    target = rdmdc.target(test, seed=3)
    poisons = rdmdc.attack(train, target, eps=16, poisons=4, iterations=3, progress=False)
    assert (train.labels[poisons.indices] == target.adversarial_label).all()
    change = poisons.pixels.int() - train.pixels[poisons.indices].int()
    assert 0 < int(change.abs().max()) <= 16


def test_a_screen_finds_copies_of_the_target_and_condensing_leaves_them_out():
    train, test = rdmdc.load_dataset("emoji", per_class=(60, 6), size=16)
    poisons = rdmdc.attack(train, rdmdc.target(test, seed=5), by="direct", poisons=6)
    poisoned = poisons.apply(train)
    screening = rdmdc.screen(poisoned, by="contrastive", drop="1/10", networks=4, progress=False)
    assert not screening.kept[poisons.indices].any()
    assert (~screening.kept).sum() == 7 * 6
    chosen = {"screen": "contrastive", "estimator": "mean"}
    small = rdmdc.condense(poisoned, ipc=1, method=chosen, **TINY)
    plain = rdmdc.condense(poisoned, ipc=1, method="dm", **TINY)
    assert not torch.equal(small.inputs, plain.inputs)


def test_evaluation_has_a_row_for_each_network_and_target(data):
    train, test = data
    small = rdmdc.condense(train, ipc=1, **TINY)
    targets = [rdmdc.target(test, seed) for seed in (0, 1)]
    scores = rdmdc.evaluate(small, test, targets, networks=2, epochs=2, progress=False)
    assert scores[["network", "target"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert scores["accuracy"].between(0, 1).all()
    alone = rdmdc.evaluate(small, test, networks=2, epochs=2, progress=False)
    assert alone["accuracy"].tolist() == scores["accuracy"].iloc[::2].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rdmdc"}, "rdm_dc"),
        ({"method": {"screen": "contrastiv"}}, "did you mean contrastive"),
        ({"method": {"estimators": "mean"}}, "unknown key 'estimators'"),
        ({"method": {"estimator": {"drop": "3/10"}}}, "the key use is missing"),
        ({"start": "zeros"}, "noise, real"),
        ({"ipc": 0}, "whole number, at least 1"),
        ({"batch": 21}, "batch is 21, but class .* has 20 images"),
        ({"poison_rate": 0.1}, 'write an exact fraction such as "1/10"'),
    ],
)
def test_bad_arguments_say_what_would_be_right(data, arguments, message):
    train, _ = data
    with pytest.raises(InputError, match=message):
        rdmdc.condense(train, **{**TINY, **arguments})


def test_a_test_split_of_arrays_shares_the_training_split_s_normalisation(data):
    train, test = data
    arrays = rdmdc.labelled(train.pixels.numpy(), train.labels.numpy())
    held_out = rdmdc.labelled(test.pixels.numpy(), test.labels.numpy(), like=arrays)
    small = rdmdc.condense(arrays, ipc=1, **TINY)
    scores = rdmdc.evaluate(small, held_out, networks=1, epochs=1, progress=False)
    assert held_out.normalisation == arrays.normalisation
    assert len(scores) == 1


def test_bad_arrays_say_what_would_be_right(data):
    train, _ = data
    pixels = train.pixels.numpy()
    for images, labels, message in (
        (pixels, None, "labels are missing"),
        (pixels / 1.0, train.labels, r"float images are in .* scale them"),
        (pixels, train.labels[1:], "labels of shape"),
        (pixels[0, 0], train.labels[:8], "not \\(N, C, H, W\\)"),
    ):
        with pytest.raises(ApiError, match=message):
            rdmdc.labelled(images, labels)
    with pytest.raises(RecordError, match="no images of class 1"):
        rdmdc.labelled(pixels[:2], [0, 2])
    with pytest.raises(ApiError, match="name the test split"):
        rdmdc.load_dataset(__file__)
    with pytest.raises(ApiError, match="exact fraction"):
        rdmdc.attack(train, rdmdc.target(train, 0), poisons=0.1)
    with pytest.raises(ApiError, match="pretrained victims"):
        rdmdc.attack(train, rdmdc.target(train, 0), by="gradient_matching")
