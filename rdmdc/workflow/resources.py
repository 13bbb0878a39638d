"""What a job asks a cluster for: memory and run time by formulas of its work.

No result depends on them, and no job re-runs for them. Snakemake imports this module at every
start, so it imports no torch. A convolution's multiply and add are two operations; a gradient by
the inputs costs another forward pass, one by the weights as well another two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from rdmdc import rates
from rdmdc.workflow.presets import Config, resolved

START_MINUTES = 10  # Python, torch, compilation and slow file systems before and after the work
SNAKEMAKE_MB = 200  # the Snakemake processes that watch a job from within its allocation
DECODED = 100  # images of a data set decoded and scaled in a second
GRADIENT_CHUNK = 64  # images differentiated at once, at least; networks.py has a device's own
EMBEDDED = 4096  # real images whose embeddings are held at once; condense.py's REAL_BLOCK
TENSORS = 4  # tensors of a block that its gradient needs: convolved, normalised, rectified, its own
COPIES = 4  # of real embeddings: as they are, centred, sorted and what sorting holds
PASSES = {"dm": 2, "untargeted": 2, "gradient_matching": 6}  # of a step, in forward passes


@dataclass(frozen=True)
class Work:
    """A job's arithmetic in floating-point operations, and the MB of tensors that it holds."""

    operations: float
    tensors_mb: float


def memory_mb(config: Config, work: Work, attempt: int) -> int:
    """MB of host memory: a GPU's tensors lie in its own. Each attempt asks for as much again."""
    held = work.tensors_mb if config["device"] == "cpu" else 0
    needed = config["cluster"]["memory_mb"] + SNAKEMAKE_MB + _data_mb(config) + held
    return attempt * 100 * ceil(needed / 100)


def minutes(config: Config, work: Work, attempt: int) -> int:
    """Minutes of wall time; each attempt asks for as many again."""
    seconds = work.operations / (config["cluster"]["gflops"] * 1e9)
    return attempt * ceil(START_MINUTES + seconds / 60)


# --- stages ----------------------------------------------------------------------------------


def data(config: Config) -> Work:
    """Decoding the data set, which is held once decoded and once sorted, with numbers between."""
    images = config["cluster"]["train"] + config["cluster"]["test"]
    seconds = images / DECODED
    return Work(seconds * config["cluster"]["gflops"] * 1e9, 3 * _data_mb(config))


def victim(config: Config, epochs: int) -> Work:
    """Training on the whole data set for so many epochs."""
    images = epochs * config["cluster"]["train"]
    return Work(3 * images * _forward(config), config["pretrain"]["batch"] * _tensors_mb(config))


def poison(config: Config, condition: str) -> Work:
    """Restarts × iterations of a step for all poisons, and the comparison of restarts."""
    config = resolved(config, condition)
    own = config["conditions"][condition]
    attack, images = own["attack"], _poisons(config, own)
    if attack == "direct":
        return Work(0, 0)
    crafting = config["attacks"][attack]
    images += crafting.get("clean_batch", 0) * config["cluster"]["classes"]
    draws = crafting["restarts"] * (crafting["iterations"] + crafting["scoring_draws"])
    models = len(config["pretrain"]["epochs"]) if attack == "gradient_matching" else 1
    passes = PASSES[attack] * draws * models * images
    # a gradient of a gradient holds the tensors of both
    held = images * _tensors_mb(config) * (2 if attack == "gradient_matching" else 1)
    return Work(passes * _forward(config), held)


def condense(config: Config, condition: str, panel: str) -> Work:
    """Iterations of: embed the real images once, differentiate each instance's synthetic ones."""
    config = resolved(config, condition)
    options, classes = config["condense"], config["cluster"]["classes"]
    instances = len(config["panels"][panel])
    real, synthetic = classes * options["batch"], classes * options["ipc"]
    passes = options["iterations"] * (real + 2 * instances * synthetic)
    differentiated = max(GRADIENT_CHUNK, options["ipc"])
    embedded = min(real, EMBEDDED + options["batch"])
    held = (
        differentiated * _tensors_mb(config)
        + embedded * (COPIES * _features(config) + _values(config)) * 4e-6
        + 3 * instances * synthetic * _values(config) * 4e-6  # set, momentum, gradient
    )
    return Work(passes * _forward(config), held)


def evaluate(config: Config, condition: str, panel: str) -> Work:
    """Training networks on each instance's set, and the test split's accuracy."""
    config = resolved(config, condition)
    options, test = config["evaluate"], config["cluster"]["test"]
    images = config["cluster"]["classes"] * config["condense"]["ipc"]
    networks = len(config["panels"][panel]) * options["networks"]
    passes = networks * (3 * options["epochs"] * images + test)
    return Work(passes * _forward(config), min(options["batch"], images) * _tensors_mb(config))


def _poisons(config: Config, condition: Mapping[str, Any]) -> int:
    """P: a number, or a rate of a class, of every class for an untargeted attack."""
    wanted, data = condition["poisons"], config["cluster"]
    attacked = data["classes"] if condition["attack"] == "untargeted" else 1
    if isinstance(wanted, int):
        return attacked * wanted
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


def _sides(config: Config) -> list[int]:
    """The side of each block's input, the first one padded to what ``depth`` halvings divide."""
    depth = config["network"]["depth"]
    last = ceil(config["cluster"]["side"] / 2**depth)
    return [last * 2 ** (depth - block) for block in range(depth)]


def _forward(config: Config) -> int:
    """Operations of one image's embedding: 3 × 3 convolutions from channels to width to width."""
    width, sides = config["network"]["width"], _sides(config)
    fan_in = [_channels(config), *[width] * (len(sides) - 1)]
    return sum(
        2 * 9 * channels * width * side * side for channels, side in zip(fan_in, sides, strict=True)
    )


def _features(config: Config) -> int:
    """D, an embedding's length."""
    return int(config["network"]["width"] * (_sides(config)[-1] // 2) ** 2)


def _tensors_mb(config: Config) -> float:
    """MB that one differentiated image holds: batch × area × width, over the blocks."""
    values = sum(config["network"]["width"] * side * side for side in _sides(config))
    return TENSORS * values * 4e-6
