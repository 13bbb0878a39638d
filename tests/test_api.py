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
from rdmdc.estimators.spectral_mean import Options as Spectral
from rdmdc.models import running
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


def test_whole_numbers_of_numpy_are_whole_numbers(data):
    train, _ = data
    by_numpy = rdmdc.condense(train, ipc=np.int64(2), seed=np.int32(1), **TINY)
    assert torch.equal(by_numpy.inputs, rdmdc.condense(train, ipc=2, seed=1, **TINY).inputs)


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
        ({"batch": 21}, "batch is 21; .*at most 20, the images of the smallest class"),
        ({"ipc": 21}, "ipc is 21; .*at most 20, the images of the smallest class"),
        ({"ipc": 2.5}, "ipc is 2.5; give a whole number"),
        ({"batch": 1}, "batch is 1; .*at least 2"),
        ({"iterations": 0}, "iterations is 0; .*at least 1"),
        ({"seed": -1}, "seed is -1; .*at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan must be a number, above 0"),
        ({"device": "gpu"}, "device is 'gpu'; choose cpu or cuda"),
        ({"augmentation": ["blur"]}, "there is no 'blur' .*flip"),
        ({"augmentation": ["flop"]}, "there is no 'flop'; did you mean flip"),
        ({"augmentation": [["flip"]]}, "there is no"),
        ({"augmentation": "flip"}, "augmentation is 'flip'; give a list"),
        ({"method": "rdm-dc"}, "did you mean rdm_dc"),
        ({"method": 3}, "method is 3; give a name"),
        ({"method": {"estimator": 3}}, "method.estimator is 3; give a plug-in's name"),
        (
            {"method": {"estimator": {"use": "spectral_mean", "dorp": "1/10"}}},
            "unknown option 'dorp'; did you mean drop",
        ),
        ({"poison_rate": 0.1}, 'write an exact fraction such as "1/10"'),
        ({"poison_rate": "1/2"}, "poison_rate is '1/2'; give less than 1/3"),
        ({"poison_rate": "many"}, "poison_rate: 'many' is not a rate"),
    ],
)
def test_bad_arguments_say_what_would_be_right(data, arguments, message):
    train, _ = data
    with pytest.raises(ApiError, match=message) as caught:
        rdmdc.condense(train, **{**TINY, **arguments})
    assert "\n" not in str(caught.value)


def test_bad_arguments_of_the_other_calls_say_what_would_be_right(data):
    train, test = data
    target, small = rdmdc.target(test), rdmdc.condense(train, ipc=1, **TINY)
    wide, narrow = rdmdc.load_dataset("emoji", per_class=(4, 4), size=16)
    for call, arguments, message in (
        (rdmdc.evaluate, (small, test, [], {"networks": 0}), "networks is 0; .*at least 1"),
        (rdmdc.evaluate, (small, test, [], {"epochs": -1}), "epochs: -1 must be .*at least 0"),
        (rdmdc.evaluate, (small, test, [], {"device": "gpu"}), "device is 'gpu'; choose cpu"),
        (rdmdc.evaluate, (small, narrow, [], {}), "condensed set and the images differ"),
        (rdmdc.evaluate, (small, test, [], {"network": rdmdc.network(wide)}), "make one by"),
        (rdmdc.screen, (train, {"networks": 0}), "networks: 0 must be .*at least 1"),
        (rdmdc.screen, (train, {"by": "contrastive", "drop": 0.1}), "drop: 0.1 is no fraction"),
        (rdmdc.screen, (train, {"by": "contrastiv"}), "did you mean contrastive"),
        (rdmdc.attack, (wide, target, {}), "target 0 has shape"),
        (rdmdc.evaluate, (small, test, [rdmdc.target(narrow)], {}), "target 0 has shape"),
        (rdmdc.attack, (train, target, {"eps": 256}), "eps: 256 must be .*at most 255"),
        (rdmdc.attack, (train, target, {"poisons": 0}), "poisons is 0; .*at most 20"),
        (rdmdc.attack, (train, target, {"poisons": 21}), "poisons is 21; .*at most 20"),
        (rdmdc.attack, (train, target, {"poisons": "0"}), "0 poisons cannot replace"),
        (rdmdc.attack, (train, target, {"by": "dm_poisn"}), "did you mean dm_poison"),
        (rdmdc.network, (train, {"width": 0}), "width: 0 must be .*at least 1"),
        (rdmdc.network, (train, {"depth": 0}), "depth: 0 must be .*at least 1"),
        (rdmdc.network, (train, {"depth": 7}), "side"),
        (rdmdc.network, (train, "conv_net", {}), "did you mean convnet"),
        (rdmdc.target, (test, {"seed": -1}), "seed is -1; .*at least 0"),
        (rdmdc.target, (test, {"seed": 10**6}), "enough for seeds 0"),
        (rdmdc.load_dataset, ("emoji", {"image_colum": "img"}), "unknown option 'image_colum'"),
        (rdmdc.load_dataset, ("emoji", {"size": 0}), "size is 0; .*at least 1"),
        (rdmdc.load_dataset, ("emoji", {"per_class": 20}), "per_class is 20; .*each split"),
        (rdmdc.load_dataset, ("emoji", {"per_class": (0, 5)}), "per_class is 0; .*at least 1"),
        (rdmdc.load_dataset, ("emoji", {"color": "red"}), "color is 'red'; choose rgb or grey"),
    ):
        *given, named = arguments
        quiet = {} if call in (rdmdc.network, rdmdc.target, rdmdc.load_dataset) else {"progress": 0}
        with pytest.raises(ApiError, match=message) as caught:
            call(*given, **{**quiet, **named})
        assert "\n" not in str(caught.value)


def test_a_test_split_of_arrays_shares_the_training_split_s_normalisation(data):
    train, test = data
    arrays = rdmdc.labelled(train.pixels.numpy(), train.labels.numpy())
    held_out = rdmdc.labelled(test.pixels.numpy(), test.labels.numpy(), like=arrays)
    small = rdmdc.condense(arrays, ipc=1, **TINY)
    scores = rdmdc.evaluate(small, held_out, networks=1, epochs=1, progress=False)
    assert held_out.normalisation == arrays.normalisation
    assert len(scores) == 1


def spoilt(pixels, value):
    """Float images, one of which holds the value."""
    images = pixels / 255
    images[5, 0, 3, 3] = value
    return images


def test_bad_arrays_say_what_would_be_right(data):
    train, _ = data
    pixels = train.pixels.numpy()
    for images, labels, message in (
        (pixels, None, "labels are missing"),
        (pixels / 1.0, train.labels, r"float images are in .* scale them"),
        (pixels, train.labels[1:], "labels of shape"),
        (pixels[0, 0], train.labels[:8], "not \\(N, C, H, W\\)"),
        (pixels[:0], train.labels[:0], "hold nothing"),
        (spoilt(pixels, np.nan), train.labels, "1 of 140 images hold NaN or infinity; mend"),
        (spoilt(pixels, np.inf), train.labels, "1 of 140 images hold NaN or infinity; mend"),
        (pixels.astype(np.int64), train.labels, "images are torch.int64; give uint8"),
        (pixels[:1].tolist()[0][0][0][0], train.labels, "not \\(N, C, H, W\\)"),
        ([["a"]], train.labels, "images are no array of numbers"),
        (pixels, train.labels.double(), "labels are torch.float64; give whole numbers from 0"),
        (pixels, train.labels - 1, "a label is -1; give whole numbers from 0"),
        (pixels, ["cat"] * len(pixels), "labels are no array of numbers"),
        (pixels, train.labels[:, None], "labels of shape \\(140, 1\\); give one label an image"),
        (pixels[:2], [0, 2], "no images of class 1; add images of it"),
    ):
        with pytest.raises(ApiError, match=message) as caught:
            rdmdc.labelled(images, labels)
        assert "\n" not in str(caught.value)
    with pytest.raises(ApiError, match="labels go up to 6, but there are 2 classes"):
        rdmdc.labelled(pixels, train.labels, ["a", "b"])
    with pytest.raises(ApiError, match="those of `like`"):
        rdmdc.labelled(pixels[:, :1], train.labels, like=train)
    with pytest.raises(ApiError, match="name the test split"):
        rdmdc.load_dataset(__file__)
    with pytest.raises(ApiError, match="exact fraction"):
        rdmdc.attack(train, rdmdc.target(train, 0), poisons=0.1)
    with pytest.raises(ApiError, match="pretrained victims"):
        rdmdc.attack(train, rdmdc.target(train, 0), by="gradient_matching")
