"""The Python API: data, attacks, screens, condensation and evaluation as functions of arrays.

Everything here calls what the workflow calls, without files. The defaults are written in the
signatures; a preset states each of them itself.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rdmdc import plugins
from rdmdc.attacks.crafting import Scene
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.condensers.task import Calibration, Task
from rdmdc.datasets import targets as drawing
from rdmdc.datasets.preparing import prepare
from rdmdc.errors import InputError
from rdmdc.metrics.evaluate import evaluate as scores_of
from rdmdc.models import running
from rdmdc.models.network import Network
from rdmdc.models.training import Schedule
from rdmdc.options import Rate, build, fields
from rdmdc.progress import Progress
from rdmdc.records import (
    LabelledImages,
    Normalisation,
    PoisonSet,
    Screening,
    SyntheticSet,
    Target,
)
from rdmdc.screens.screening import Suspects
from rdmdc.storage.images import load_images
from rdmdc.storage.provenance import Provenance
from rdmdc.training_data import TrainingData

Images = LabelledImages | np.ndarray | torch.Tensor
Choice = str | Mapping[str, Any]
"""A plug-in: its name, or a mapping of ``use`` and options as an entry of a preset has them."""

AUGMENTATION = ("color", "crop", "cutout", "flip", "scale", "rotate")
METHODS: dict[str, tuple[str, str]] = {
    "dm": ("none", "mean"),
    "rdm_dc": ("none", "spectral_mean"),
    "contrastive_dm": ("none", "contrastive_mean"),
    "screened_dm": ("contrastive", "mean"),
}
"""Screen and estimator of the methods that have a name here; all condense by ``dm``."""


class ApiError(InputError):
    """Arguments that do not fit; the message names the value and what would be right."""


def load_dataset(
    source: str | Path = "emoji",
    test: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    per_class: tuple[int | None, int | None] | None = None,
    size: int | None = None,
    color: str = "rgb",
    **options: Any,
) -> tuple[LabelledImages, LabelledImages]:
    """The training and the test split of a data set, decoded and sorted by class.

    source: the name of an embedded data set ("emoji"), a Parquet file in the Hugging Face hub's
    image schema, or a folder of class folders; the latter two need ``test`` as well. per_class:
    how many images of a class to keep, of both splits. size: side in pixels to scale to. options:
    those of the source, for instance ``image_column="img"``. Raises DatasetError.
    """
    place = Path(source)
    if test is None and not place.exists():
        own: dict[str, Any] = {"source": "embedded", "name": str(source)}
    elif test is None:
        raise ApiError(f"{source}: name the test split as well: load_dataset(train, test)")
    elif place.is_dir():
        own = {"source": "folder", "train": str(source), "test": str(test)}
        own["layout"] = "class_folders"
    else:
        columns = {"image_column": "image", "label_column": "label", "class_names": None}
        own = {"source": "parquet", "train": str(source), "test": str(test), **columns}
    limits = per_class and {"train": per_class[0], "test": per_class[1]}
    decoding = {
        "classes": list(classes) if classes is not None else None,
        "per_class": limits,
        "size": size,
        "color": color,
        "normalisation": "training_split",
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "train.safetensors"), Path(folder, "test.safetensors")
        prepare({**own, **options, **decoding}, *paths, Provenance.begin("data", {}, "", []))
        train, held_out = (_in_memory(load_images(path)) for path in paths)
    return train, held_out


def labelled(images: Images, labels: Any = None, class_names: Sequence[str] = ()) -> LabelledImages:
    """Images with their labels, sorted by class, with their own mean and standard deviation.

    images: (N, C, H, W), (N, H, W, C) or (N, H, W), uint8 or floats in [0, 1]; labels: (N,) whole
    numbers from 0. Of equal labels the order is kept. Raises ApiError or RecordError.
    """
    if isinstance(images, LabelledImages):
        return images
    if labels is None:
        raise ApiError("labels are missing: one whole number from 0 for each image")
    pixels = torch.as_tensor(images)
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.ndim != 4:
        raise ApiError(f"images have shape {tuple(pixels.shape)}, not (N, C, H, W)")
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise ApiError(f"float images are in {low:.3g}..{high:.3g}, not in 0..1; scale them")
        pixels = (pixels * 255).round().to(torch.uint8)
    numbers = torch.as_tensor(labels).to(torch.int64)
    if numbers.shape != pixels.shape[:1]:
        raise ApiError(f"{len(pixels)} images, but labels of shape {tuple(numbers.shape)}")
    order = numbers.argsort(stable=True)
    names = tuple(class_names) or tuple(str(c) for c in range(int(numbers.max()) + 1))
    sorted_pixels = pixels[order].contiguous()
    values = sorted_pixels.double().transpose(0, 1).flatten(1) / 255
    spread = values.std(1, correction=0).clamp(min=1 / 255)
    normalisation = Normalisation(tuple(values.mean(1).tolist()), tuple(spread.tolist()))
    return LabelledImages(sorted_pixels, numbers[order], names, normalisation)


def target(test: LabelledImages, seed: int = 0) -> Target:
    """The target of a seed: an image of the test split and the label that an attacker wants."""
    return drawing.draw(test, seed)


def network(
    images: LabelledImages, family: Choice = "convnet", *, width: int = 32, depth: int | None = None
) -> Network:
    """A network at the size of some images.

    width and depth are given to families that have them; by default the depth halves the images'
    side down to 4 pixels.
    """
    _, channels, height, side = images.pixels.shape
    if height != side:
        raise ApiError(f"images are {height} × {side}, not square; crop or scale them")
    plugin = plugins.get("network", _name(family), "network")
    usual = {"width": width, "depth": depth or max(1, round(math.log2(side / 4)))}
    made: Network = plugin(channels, side, len(images.class_names), _options(plugin, family, usual))
    return made


def attack(
    train: LabelledImages,
    target: Target,
    by: Choice = "dm_poison",
    *,
    eps: int = 64,
    poisons: str | int = "1/10",
    iterations: int = 300,
    restarts: int = 1,
    step: float = 1.0,
    network: Network | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> PoisonSet:
    """Craft poisons of the target's adversarial class; ``poisons.apply(train)`` puts them in place.

    eps and step are in 255ths. poisons: a share of the class, or a number. Attacks that need
    pretrained victims run in the workflow only. Raises PluginError, OptionError or ApiError.
    """
    plugin = plugins.get("attack", _name(by), "by")
    if plugin.facts["victims"]:
        raise ApiError(f"{plugin.name} needs pretrained victims; run it by a preset instead")
    usual = {
        "eps": eps,
        "step": step,
        "restarts": restarts,
        "iterations": iterations,
        "optimiser": "sign_adam",
        "scoring_draws": 4,
        "augmentation": AUGMENTATION,
    }
    own = _options(plugin, by, usual)
    scene = Scene(train, target, _running(network, train, device), (), poisons, seed, device)
    crafted, _ = plugin(scene, own, _progress(progress, plugin.name), NoCheckpoints())
    found: PoisonSet = crafted
    return found


def screen(
    images: Images,
    labels: Any = None,
    *,
    by: Choice = "contrastive",
    drop: str = "3/20",
    networks: int = 16,
    network: Network | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Screening:
    """Score how suspicious each image looks, and say which to keep.

    Scores and ``kept`` are in the order of the images sorted by class (`labelled`). drop: the share
    of each class that a screen leaves out which does not decide that itself.
    """
    data = labelled(images, labels)
    plugin = plugins.get("screen", _name(by), "by")
    usual = {"drop": drop, "networks": networks, **CONTRAST}
    suspects = Suspects(
        TrainingData(data),
        torch.zeros(len(data.labels), dtype=torch.bool),
        _running(network, data, device),
        AUGMENTATION,
        seed,
        device,
    )
    own = _options(plugin, by, usual)
    found: Screening = plugin(suspects, own, _progress(progress, plugin.name), NoCheckpoints())
    return found


CONTRAST = {"others": 384, "ridge": 0.1, "power_iterations": 10, "sample": 4096}
"""How directions of contrast are found, where a call says nothing else."""


def condense(
    images: Images,
    labels: Any = None,
    *,
    ipc: int = 10,
    method: str | Mapping[str, Choice] = "rdm_dc",
    poison_rate: str = "1/10",
    iterations: int = 200,
    batch: int | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.5,
    start: str = "noise",
    network: Network | None = None,
    augmentation: Sequence[str] = AUGMENTATION,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> SyntheticSet:
    """Condense images to ``ipc`` synthetic ones of each class.

    method: a name of METHODS, or a mapping of screen, condenser and estimator as a preset has them.
    poison_rate: the share of a class that may be poisoned, ε; RDM-DC drops 3ε of each minibatch
    (§4.3), a screen 1.5ε of each class. batch: real images of a class in each iteration, by default
    128 or what the smallest class has. learning_rate: by default 64 · ipc / width. The networks are
    random ConvNets of width 32 unless ``network`` is another.

    Raises PluginError for an unknown method, RecordError where a class is too small.
    """
    data = labelled(images, labels)
    chosen = _method(method)
    net = _running(network, data, device)
    screening = None
    rate = Fraction(poison_rate)
    if _name(chosen["screen"]) != "none":
        screening = screen(
            data,
            by=chosen["screen"],
            drop=str(rate * 3 / 2),
            network=net,
            seed=seed,
            device=device,
            progress=progress,
        )
    delivered = TrainingData(data, None, screening)
    smallest = min(delivered.counts())
    condenser = plugins.get("condenser", _name(chosen["condenser"]), "method.condenser")
    width = getattr(net, "width", 128)
    usual = {
        "ipc": ipc,
        "batch": min(128, smallest) if batch is None else batch,
        "iterations": iterations,
        "learning_rate": 64 * ipc / width if learning_rate is None else learning_rate,
        "momentum": momentum,
        "initialisation": start,
        "log_every": max(1, iterations // 10),
    }
    calibration = None
    if condenser.facts["matches"] is not None:
        estimator = plugins.get("estimator", _name(chosen["estimator"]), "method.estimator")
        dropping = {"drop": str(rate * 3), **CONTRAST}
        calibration = Calibration(estimator, _options(estimator, chosen["estimator"], dropping))
    task = Task(delivered, net, tuple(augmentation), {"only": calibration}, seed, 0, device)
    own = _options(condenser, chosen["condenser"], usual)
    made = condenser(task, own, _progress(progress, "condense"), NoCheckpoints())
    synthetic: SyntheticSet = made["only"][0]
    return synthetic


def evaluate(
    synthetic: SyntheticSet,
    test: LabelledImages,
    targets: Sequence[Target] = (),
    *,
    networks: int = 3,
    epochs: int = 150,
    network: Network | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> pd.DataFrame:
    """Train networks on a condensed set and score them: accuracy, and what each makes of a target.

    A row per network and target; the columns are those of `rdmdc.metrics.evaluate.evaluate`. A
    target is misread as the attacker wants where predicted_label is adversarial_label.
    """
    schedule = Schedule(
        epochs=epochs,
        batch=256,
        learning_rate=0.01,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        decay_after=Rate("1/2"),
        augmentation=AUGMENTATION,
    )
    net = _running(network, test, device)
    shown = _progress(progress, "evaluate")
    return scores_of(
        synthetic, test, targets, net, schedule, networks, seed, 0, device, shown, NoCheckpoints()
    )


# --- what the calls share --------------------------------------------------------------------


def _quiet(done: int, total: int, loss: float) -> None:
    """Show nothing."""


def _progress(wanted: bool, name: str) -> Any:
    return Progress(name) if wanted else _quiet


def _running(network: Network | None, images: LabelledImages, device: str) -> Network:
    """The network, or the usual one, compiled where that is possible."""
    made = default_network(images) if network is None else network
    running.compiling(True, device, made)
    return made


def default_network(images: LabelledImages) -> Network:
    """A ConvNet of width 32, as deep as halves the images' side down to 4 pixels."""
    return network(images)


def _name(choice: Choice) -> str:
    if isinstance(choice, str):
        return choice
    if "use" not in choice:
        raise ApiError(f"{dict(choice)}: the key use is missing, the plug-in's name")
    return str(choice["use"])


def _options(plugin: plugins.Plugin, choice: Choice, usual: Mapping[str, Any]) -> Any:
    """The plug-in's options: those of the choice, and the usual ones that it has."""
    known = fields(plugin.options)
    own = {} if isinstance(choice, str) else {k: v for k, v in choice.items() if k != "use"}
    values = {**{key: value for key, value in usual.items() if key in known}, **own}
    return build(plugin.options, values, f"{plugin.kind} {plugin.name}")


def _method(method: str | Mapping[str, Choice]) -> Mapping[str, Choice]:
    if isinstance(method, str):
        if method not in METHODS:
            raise ApiError(
                f"no method is named {method!r}; there are {', '.join(METHODS)}, or give a mapping"
                " of screen, condenser and estimator"
            )
        screen_name, estimator = METHODS[method]
        return {"screen": screen_name, "condenser": "dm", "estimator": estimator}
    usual: dict[str, Choice] = {"screen": "none", "condenser": "dm", "estimator": "mean"}
    strange = sorted(set(method) - set(usual))
    if strange:
        raise ApiError(f"method: unknown key {strange[0]!r} (keys: {', '.join(usual)})")
    return {**usual, **method}


def _in_memory(images: LabelledImages) -> LabelledImages:
    """A copy that does not need the file any more."""
    return LabelledImages(
        images.pixels.clone(), images.labels.clone(), images.class_names, images.normalisation
    )
