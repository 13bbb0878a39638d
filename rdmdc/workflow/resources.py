"""The memory and run time that a job requests, computed from what its plug-ins declare.

No result depends on them, and no job re-runs for them. Plug-ins state how many forward passes they
make, networks what a pass costs and holds. A gradient by the inputs costs another forward pass, one
by the weights as well another two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from rdmdc import rates
from rdmdc.models.network import Network
from rdmdc.workflow import presets
from rdmdc.workflow.presets import Config

START_MINUTES = 10  # Python, torch, compilation and slow file systems before and after the work
SNAKEMAKE_MB = 200  # the Snakemake processes that watch a job from within its allocation
DECODED = 100  # images of a data set decoded and scaled in a second
GRADIENT_CHUNK = 64  # images differentiated at once, at least
EMBEDDED = 4096  # images whose embeddings are held at once
COPIES = 4  # of embeddings: as they are, centred, sorted and what sorting holds


@dataclass(frozen=True)
class Work:
    """A job's arithmetic in floating-point operations, and the MB of tensors that it holds."""

    operations: float
    tensors_mb: float


def memory_mb(config: Config, work: Work, attempt: int) -> int:
    """MB of host memory, without a GPU's tensors; the n-th attempt requests n times as much."""
    held = work.tensors_mb if config["device"] == "cpu" else 0
    needed = config["cluster"]["memory_mb"] + SNAKEMAKE_MB + _data_mb(config) + held
    return attempt * 100 * ceil(needed / 100)


def minutes(config: Config, work: Work, attempt: int) -> int:
    """Minutes of wall time; the n-th attempt requests n times as many."""
    seconds = work.operations / (config["cluster"]["gflops"] * 1e9)
    return attempt * ceil(START_MINUTES + seconds / 60)


# --- stages ----------------------------------------------------------------------------------


def data(config: Config) -> Work:
    """Decoding the data set; memory holds three times its pixels while they are sorted."""
    images = config["cluster"]["train"] + config["cluster"]["test"]
    seconds = images / DECODED
    return Work(seconds * config["cluster"]["gflops"] * 1e9, 3 * _data_mb(config))


def victim(config: Config, epochs: int) -> Work:
    """Training on the whole data set for so many epochs."""
    network = _network(config, presets.network_of(config))
    images = epochs * config["cluster"]["train"]
    return Work(3 * images * network.operations, _held(network, config["pretrain"]["batch"]))


def poison(config: Config, condition: str) -> Work:
    """Restarts × iterations of a step for all poisons, and the comparison of restarts."""
    attack = presets.attack_of(config, condition)
    if attack is None or not attack.plugin.facts["passes"]:
        return Work(0, 0)
    network = _network(config, presets.network_of(config, condition))
    values, every_class = attack.values, attack.plugin.facts["every_class"]
    images = _poisons(config, condition, every_class)
    images += values.get("clean_batch", 0) * config["cluster"]["classes"]
    steps = values.get("restarts", 1) * (
        values.get("iterations", 0) + values.get("scoring_draws", 0)
    )
    victims = len(config["pretrain"]["epochs"]) if attack.plugin.facts["victims"] else 1
    passes = attack.plugin.facts["passes"] * steps * victims * images
    # a gradient of a gradient holds the tensors of both
    held = _held(network, images) * (2 if attack.plugin.facts["victims"] else 1)
    return Work(passes * network.operations, held)


def screen(config: Config, condition: str, name: str) -> Work:
    """As many passes over the training split as the screen declares."""
    chosen = presets.chosen(config, "screen", name, "screens")
    network = _network(config, presets.network_of(config, condition))
    passes = chosen.plugin.facts["passes"](chosen.options) * config["cluster"]["train"]
    return Work(passes * network.operations, _embedded(config, network, EMBEDDED) if passes else 0)


def condense(config: Config, condition: str, panel: str) -> Work:
    """As many passes as the condenser declares, for a panel of methods."""
    methods, classes = config["panels"][panel], config["cluster"]["classes"]
    condenser = presets.condenser_of(config, methods[0], condition)
    network = _network(config, presets.network_of(config, condition))
    passes = condenser.plugin.facts["passes"](condenser.options, classes, len(methods))
    ipc, batch = _ipc(condenser), condenser.values.get("batch", 0)
    sets = 3 * len(methods) * classes * ipc * _values(config) * 4e-6  # with momentum and gradient
    held = _held(network, max(GRADIENT_CHUNK, ipc))
    held += _embedded(config, network, min(classes * batch, EMBEDDED + batch))
    return Work(passes * network.operations, held + sets)


def evaluate(config: Config, condition: str, panel: str) -> Work:
    """Training networks on each method's set, and the test split's accuracy."""
    options, methods = config["evaluate"], config["panels"][panel]
    condenser = presets.condenser_of(config, methods[0], condition)
    images = config["cluster"]["classes"] * _ipc(condenser)
    passes = 3 * options["epochs"] * images + config["cluster"]["test"]
    operations, held = 0.0, 0.0
    for name, trained in options["networks"].items():
        network = _network(config, presets.network_named(config, name, "evaluate.networks"))
        operations += len(methods) * trained * passes * network.operations
        held = max(held, _held(network, min(options["batch"], images)))
    return Work(operations, held)


def _ipc(condenser: presets.Chosen) -> int:
    """Images of each class that it makes; one where the condenser has no such option."""
    return int(condenser.values.get("ipc", 1))


def _poisons(config: Config, condition: str, every_class: bool) -> int:
    """P, the number of poisons: as given, or a share of the classes that the attack poisons."""
    wanted, data = config["conditions"][condition]["poisons"], config["cluster"]
    attacked = data["classes"] if every_class else 1
    if isinstance(wanted, int):
        return int(attacked * wanted)
    return int(attacked * rates.count(wanted, data["train"] // data["classes"]))


# --- images and networks ---------------------------------------------------------------------


def _channels(config: Config) -> int:
    return 1 if config["dataset"]["color"] == "grey" else 3


def _values(config: Config) -> int:
    """Values of an image."""
    return int(_channels(config) * config["cluster"]["side"] ** 2)


def _data_mb(config: Config) -> float:
    """MB of all images as bytes."""
    return (config["cluster"]["train"] + config["cluster"]["test"]) * _values(config) / 1e6


def _network(config: Config, chosen: presets.Chosen) -> Network:
    """A network of the preset at the size of its images."""
    cluster = config["cluster"]
    network: Network = chosen.plugin(
        _channels(config), cluster["side"], cluster["classes"], chosen.options
    )
    return network


def _held(network: Network, images: int) -> float:
    """MB of so many images differentiated at once."""
    return images * network.activations * 4e-6


def _embedded(config: Config, network: Network, images: int) -> float:
    """MB of so many images and their embeddings."""
    return images * (COPIES * network.features + _values(config)) * 4e-6
