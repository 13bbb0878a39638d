"""The Python API: data, attacks, screens, condensation and evaluation as functions of arrays.

Everything here calls what the workflow calls, without files. The defaults are written in the
signatures; a preset states each of them itself. An argument that does not fit raises ApiError,
whose one line names the value and what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from rdmdc import rates
from rdmdc.arguments import ApiError as ApiError
from rdmdc.arguments import (
    Choice,
    checked,
    device_named,
    fitting,
    name_of,
    operations,
    options_of,
    plugin_of,
    rate,
    whole,
)
from rdmdc.attacks.crafting import Scene
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.condensers.task import Calibration, Task
from rdmdc.datasets import targets as drawing
from rdmdc.datasets.arrays import Images, labelled
from rdmdc.datasets.arrays import load_dataset as load_dataset
from rdmdc.metrics.evaluate import evaluate as scores_of
from rdmdc.models import running
from rdmdc.models.network import Network
from rdmdc.models.training import Schedule
from rdmdc.options import build
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
from rdmdc.wording import nearest

AUGMENTATION = ("color", "crop", "cutout", "flip", "scale", "rotate")
METHODS: dict[str, tuple[str, str]] = {
    "dm": ("none", "mean"),
    "rdm_dc": ("none", "spectral_mean"),
    "contrastive_dm": ("none", "contrastive_mean"),
    "screened_dm": ("contrastive_minorities", "mean"),
}
"""Screen and estimator of the methods that have a name here; all condense by ``dm``."""


@checked
def target(test: LabelledImages, seed: int = 0) -> Target:
    """The target of a seed: an image of the test split and the label that an attacker wants."""
    return drawing.draw(test, whole(seed, "seed", 0))


@checked
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
    plugin = plugin_of("network", family, "family")
    halvings = max(1, round(math.log2(side / 4)))
    usual = {"width": width, "depth": halvings if depth is None else depth}
    own = options_of(plugin, family, usual)
    made: Network = plugin(channels, side, len(images.class_names), own)
    return made


@checked
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
    pretrained victims run in the workflow only. Raises ApiError.
    """
    target.check(train)
    plugin = plugin_of("attack", by, "by")
    class_size = int(train.counts()[target.adversarial_label])
    wanted = (
        whole(poisons, "poisons", 1, class_size, ", the images of the class")
        if isinstance(poisons, int)
        else rate(poisons, "poisons")
    )
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
    own = options_of(plugin, by, usual)
    net = _running(network, train, device)
    scene = Scene(train, target, net, (), wanted, whole(seed, "seed", 0), device)
    crafted, _ = plugin(scene, own, _progress(progress, plugin.name), NoCheckpoints())
    found: PoisonSet = crafted
    return found


@checked
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
    screens leave out. Raises ApiError.
    """
    data = labelled(images, labels)
    plugin = plugin_of("screen", by, "by")
    usual = {"drop": drop, "networks": networks, **CONTRAST, **MINORITIES}
    suspects = Suspects(
        TrainingData(data),
        torch.zeros(len(data.labels), dtype=torch.bool),
        _running(network, data, device),
        AUGMENTATION,
        whole(seed, "seed", 0),
        device,
    )
    own = options_of(plugin, by, usual)
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


@checked
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

    Raises ApiError, also where ``ipc`` or ``batch`` is more than the smallest class has.
    """
    data = labelled(images, labels)
    chosen = _method(method)
    iterations = whole(iterations, "iterations", 1)
    share = rates.parse(rate(poison_rate, "poison_rate"))
    if 3 * share >= 1:
        raise ApiError(
            f"poison_rate is {poison_rate!r}; give less than 1/3, since RDM-DC drops three times as"
            " much of each class"
        )
    drawn = operations(augmentation)
    net = _running(network, data, device)
    screening = None
    if name_of(chosen["screen"], "method.screen") != "none":
        screening = screen(
            data,
            by=chosen["screen"],
            drop=str(share * 3 / 2),
            network=net,
            seed=seed,
            device=device,
            progress=progress,
        )
    delivered = TrainingData(data, None, screening)
    smallest = min(delivered.counts())
    ipc = whole(ipc, "ipc", 1, smallest, ", the images of the smallest class")
    if batch is not None:
        batch = whole(batch, "batch", 2, smallest, ", the images of the smallest class")
    condenser = plugin_of("condenser", chosen["condenser"], "method.condenser")
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
        estimator = plugin_of("estimator", chosen["estimator"], "method.estimator")
        dropping = {"drop": str(share * 3), **CONTRAST}
        calibration = Calibration(estimator, options_of(estimator, chosen["estimator"], dropping))
    task = Task(delivered, net, drawn, {"only": calibration}, whole(seed, "seed", 0), 0, device)
    own = options_of(condenser, chosen["condenser"], usual)
    made = condenser(task, own, _progress(progress, "condense"), NoCheckpoints())
    synthetic: SyntheticSet = made["only"][0]
    return synthetic


@checked
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
    target is misread as the attacker wants where predicted_label is adversarial_label. Raises
    ApiError, also where the set and the test split differ in classes, normalisation or shape.
    """
    for one in targets:
        one.check(test)
    schedule = {
        "epochs": epochs,
        "batch": 256,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "decay_after": "1/2",
        "augmentation": AUGMENTATION,
    }
    return scores_of(
        synthetic,
        test,
        targets,
        _running(network, test, device),
        build(Schedule, schedule, "evaluate"),
        whole(networks, "networks", 1),
        whole(seed, "seed", 0),
        0,
        device,
        _progress(progress, "evaluate"),
        NoCheckpoints(),
    )


# --- what the calls share --------------------------------------------------------------------


def _quiet(done: int, total: int, loss: float) -> None:
    """Show nothing."""


def _progress(wanted: bool, name: str) -> Any:
    return Progress(name) if wanted else _quiet


def _running(chosen: Network | None, images: LabelledImages, device: str) -> Network:
    """The network, or a ConvNet of width 32, compiled where that is possible."""
    device_named(device)
    made = network(images) if chosen is None else fitting(chosen, images)
    running.compiling(True, device, made)
    return made


def _method(method: str | Mapping[str, Choice]) -> Mapping[str, Choice]:
    if isinstance(method, str):
        if method not in METHODS:
            raise ApiError(
                f"no method is named {method!r}{nearest(method, METHODS)} (there are"
                f" {', '.join(METHODS)}), or give a mapping of screen, condenser and estimator"
            )
        screen_name, estimator = METHODS[method]
        return {"screen": screen_name, "condenser": "dm", "estimator": estimator}
    if not isinstance(method, Mapping):
        raise ApiError(
            f"method is {method!r}; give a name ({', '.join(METHODS)}), or a mapping of screen,"
            " condenser and estimator"
        )
    usual: dict[str, Choice] = {"screen": "none", "condenser": "dm", "estimator": "mean"}
    strange = sorted(set(method) - set(usual))
    if strange:
        raise ApiError(f"method: unknown key {strange[0]!r} (keys: {', '.join(usual)})")
    return {**usual, **method}
