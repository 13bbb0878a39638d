"""Every key of a preset: its type, bounds and meaning.

"§", "Alg." and "Eq." are the paper's (Zheng and Li, RDM-DC, UAI 2023). There are no defaults: what
is listed here must be there, except for the sections in OPTIONAL. Named entries of the sections
``networks``, ``attacks``, ``screens``, ``condensers`` and ``estimators`` hold a plug-in's options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rdmdc.models.augment import OPERATIONS
from rdmdc.options import Rate, option

OPTIONAL: dict[str, Any] = {
    "targets": [],
    "pretrain": None,
    "attacks": {},
    "screens": {},
    "estimators": {},
    "tables": {},
    "figures": None,
}
"""Sections that a preset may leave out, and what that means: none of them."""


@dataclass(frozen=True)
class Preset:
    """A complete description of a run, in one file."""

    preset: str = option(
        'name of the results\' folder; "default" puts tables and figures at results/'
    )
    description: str = option("what the preset is and is not; printed under its tables")
    seed: int = option("root of every draw but the targets'", at_least=0)
    runs: int = option("condensations for each target and method (§5.1: 5)", at_least=1)
    device: str = option("where torch computes", choices=("cpu", "cuda"))
    threads: int = option("threads that a job computes with; bits may depend on it", at_least=1)
    compile: bool = option(
        "run networks compiled, the same up to rounding: the ConvNet on a CPU by kernels in C where"
        " there is a C compiler and 16 divides the width, networks on a GPU by torch.compile"
    )
    precision: str = option(
        "of the products of convolutions with frozen weights while screening, condensing and in DM"
        " poisoning:"
        " bfloat16 is coarser, and faster on a GPU and on a CPU with AMX or AMD's AVX-512 BF16;"
        " the compiled kernels stay with float32 on other CPUs",
        choices=("float32", "bfloat16"),
    )
    checkpoint_minutes: float = option(
        "minutes between savings of a long job's state; no result depends on it", above=0
    )
    cluster: Cluster = option("what jobs' memory and run time are worked out from")
    dataset: Mapping[str, Any] = option("where images come from: source, its options, Decoding")
    networks: Mapping[str, Any] = option("networks, by name")
    network: str = option("the network that crafts, screens and condenses")
    augmentation: tuple[str, ...] = option(
        "operations of which DSA draws one in condensation (A_w in Eq. 2)",
        choices=tuple(OPERATIONS),
    )
    targets: tuple[int | Target, ...] = option(
        "seeds to draw a test image and an adversarial label from (§5.1: 0 to 4), or entries that"
        " say which image and which label",
        at_least=0,
    )
    pretrain: Mapping[str, Any] | None = option("victims, for attacks that need them")
    attacks: Mapping[str, Any] = option("how poisons are crafted, by name")
    screens: Mapping[str, Any] = option("which images are left out, by name")
    condensers: Mapping[str, Any] = option("how images are condensed, by name")
    estimators: Mapping[str, Any] = option("estimators of class means, by name")
    methods: Mapping[str, Any] = option("screen × condenser × estimator, by name")
    panels: Mapping[str, Any] = option("lists of methods that condense in one job, by name")
    conditions: Mapping[str, Any] = option("what is done to the data, by name")
    evaluate: Mapping[str, Any] = option("networks trained from scratch on each synthetic set")
    tables: Mapping[str, Any] = option("tables, by file name")
    figures: Figures | None = option("what the figures show")


@dataclass(frozen=True)
class Cluster:
    """What jobs ask a cluster for is worked out from these; no result depends on them."""

    train: int = option("images of the training split", at_least=1)
    test: int = option("images of the test split", at_least=1)
    classes: int = option("classes", at_least=1)
    side: int = option("side of an image", at_least=1, unit="pixels")
    memory_mb: int = option("memory of a job before any image", at_least=1, unit="MB")
    gflops: float = option("operations that a job can count on", above=0, unit="10⁹ a second")


@dataclass(frozen=True)
class PerClass:
    """Images of each class to keep, the first ones; null keeps all."""

    train: int | None = option("of the training split", at_least=1)
    test: int | None = option("of the test split", at_least=1)


@dataclass(frozen=True)
class Decoding:
    """How images are decoded, beside the options of their source."""

    classes: tuple[str, ...] | None = option(
        "names of the classes to keep, in the order of their labels; null keeps all"
    )
    per_class: PerClass | None = option("images of each class to keep; null keeps all")
    size: int | None = option(
        "side to scale images to; null leaves them", at_least=1, unit="pixels"
    )
    color: str = option("channels", choices=("rgb", "grey"))
    normalisation: str | Mapping[str, Any] = option(
        "training_split, or mean and std of each channel of images in 0..1"
    )


@dataclass(frozen=True)
class Target:
    """A target that is listed instead of drawn."""

    seed: int = option("the target's name", at_least=0)
    index: int = option("image of the class-sorted test split", at_least=0)
    adversarial_label: int = option("label that the attacker wants", at_least=0)


@dataclass(frozen=True)
class Method:
    """What makes a condensed set of a training set."""

    label: str = option("name in tables and figures")
    screen: str = option("entry of screens, or a screen without options")
    condenser: str = option("entry of condensers")
    estimator: str | None = option(
        "entry of estimators, or one without options; null where the condenser matches no means"
    )


@dataclass(frozen=True)
class Condition:
    """What is done to the data; an attack's own options may be given here too."""

    label: str = option("the attack's name in tables")
    attack: str = option("entry of attacks, an attack without options, or none")
    panels: tuple[str, ...] = option("panels that condense under this condition")
    poisons: int | Rate | None = option(
        "images to poison: a number, or a fraction of the adversarial class (of every class where"
        " the attack poisons all); §5.1's 1 % of CIFAR-10 is 1/10 of the class"
    )
    clean: str | None = option("the condition without attack to compare with")
    targets: tuple[int, ...] | None = option("seeds of the targets to attack; null attacks all")
    condense: Mapping[str, Any] | None = option("the condenser's options that differ here")
    network: str | None = option("a network other than the preset's")


@dataclass(frozen=True)
class Row:
    """Rows of a table: a condition, and a method each."""

    condition: str = option("entry of conditions, with an attack")
    methods: tuple[str, ...] = option("entries of methods")


@dataclass(frozen=True)
class Table:
    """A table of methods under attacks."""

    title: str = option("the table's heading")
    reference: str = option("the method that the others are tested against: plain DM")
    rows: tuple[Row, ...] = option("what is in it")


@dataclass(frozen=True)
class Figures:
    """What the figures show."""

    condition: str = option("whose poisons and synthetic sets")
    target: int = option("which target", at_least=0)
    run: int = option("which run", at_least=0)
    table: str = option("whose rows are drawn as accuracy against ASR")
