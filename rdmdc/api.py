"""The Python API: data, attacks, screens, condensation and evaluation as functions of arrays.

Everything here calls what the workflow calls, without files. The defaults are written in the
signatures; a preset states each of them itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from rdmdc import plugins, rates
from rdmdc.attacks.crafting import Scene
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.condensers.task import Calibration, Task
from rdmdc.datasets import targets as drawing
from rdmdc.datasets.arrays import ApiError, Images, labelled
from rdmdc.datasets.arrays import load_dataset as load_dataset
from rdmdc.metrics.evaluate import evaluate as scores_of
from rdmdc.models import running
from rdmdc.models.network import Network
from rdmdc.models.training import Schedule
from rdmdc.options import Rate, build, fields
from rdmdc.progress import Progress
from rdmdc.records import (
    LabelledImages,
    PoisonSet,
    Screening,
    SyntheticSet,
    Target,
)
from rdmdc.screens.screening import Suspects
from rdmdc.training_data import TrainingData

Choice = str | Mapping[str, Any]
"""A plug-in: its name, or a mapping of ``use`` and options as an entry of a preset has them."""

AUGMENTATION = ("color", "crop", "cutout", "flip", "scale", "rotate")
METHODS: dict[str, tuple[str, str]] = {
    "dm": ("none", "mean"),
    "rdm_dc": ("none", "spectral_mean"),
    "contrastive_dm": ("none", "contrastive_mean"),
    "screened_dm": ("contrastive_minorities", "mean"),
}
"""Screen and estimator of the methods that have a name here; all condense by ``dm``."""


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
    wanted = poisons if isinstance(poisons, int) else _rate(poisons, "poisons")
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
    scene = Scene(train, target, _running(network, train, device), (), wanted, seed, device)
    crafted, _ = plugin(scene, own, _progress(progress, plugin.name), NoCheckpoints())
    found: PoisonSet = crafted
    return found


def screen(
    images: Images,
    labels: Any = None,
    *,
    by: Choice = "contrastive_minorities",
    drop: str = "3/20",
    networks: int = 16,
    network: Network | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Screening:
    """Score how suspicious each image looks, and say which to keep.

    Scores and ``kept`` are in the order of the images sorted by class (`labelled`). The usual
    screen decides by itself how many images to leave out. drop: the share of each class that other
    screens leave out.
    """
    data = labelled(images, labels)
    plugin = plugins.get("screen", _name(by), "by")
    usual = {"drop": drop, "networks": networks, **CONTRAST, **MINORITIES}
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

MINORITIES = {
    "directions": 3,
    "components": 6,
    "groups": 3,
    "smallest": "1/100",
    "largest": "3/10",
    "separation": 0.87,
    "margin": 3.5,
    "fewest": 100,
}
"""What makes a group of images suspicious, where a call says nothing else; as in config.yaml."""


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
    (§4.3), a screen that is told the rate 1.5ε of each class. batch: real images of a class in each
    iteration, by default 128 or what the smallest class has. learning_rate: by default
    64 · ipc / width. The networks are random ConvNets of width 32 unless ``network`` is another.

    Raises PluginError for an unknown method, RecordError where a class is too small.
    """
    data = labelled(images, labels)
    chosen = _method(method)
    net = _running(network, data, device)
    screening = None
    rate = rates.parse(_rate(poison_rate, "poison_rate"))
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


def _rate(rate: Any, what: str) -> str:
    """An exact fraction; floats are refused, since ceil(0.1 · 20) is 3 in floats."""
    if not isinstance(rate, str):
        raise ApiError(f'{what} is {rate!r}; write an exact fraction such as "1/10"')
    rates.parse(rate)
    return rate


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
