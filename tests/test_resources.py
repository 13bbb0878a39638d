"""What jobs ask for: the formulas against counted operations, and the profile that submits them."""

from __future__ import annotations

import re
from math import isclose

import pytest
import torch
import yaml
from test_workflow import PRESETS, ROOT, SMOKE, copy_sources, done, settings_of, touch_data
from torch.utils.flop_counter import FlopCounterMode

from rdmdc import plugins
from rdmdc.attacks import crafting
from rdmdc.attacks.crafting import Scene
from rdmdc.condensers.task import Calibration, Task
from rdmdc.metrics.evaluate import evaluate
from rdmdc.models import running
from rdmdc.models.training import Schedule, pretrain
from rdmdc.networks.convnet import ConvNet
from rdmdc.options import build
from rdmdc.screens import projecting
from rdmdc.screens.screening import Suspects
from rdmdc.training_data import TrainingData
from rdmdc.workflow import presets, resources

PROFILE = "workflow/profiles/slurm"
CLUSTER = {"train": 39, "test": 25, "classes": 3, "side": 8, "memory_mb": 1000, "gflops": 1}
TRAINING = {"epochs": 4, "batch": 9}
SCHEDULE = {
    **TRAINING,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0,
    "decay_after": "1",
    "augmentation": [],
}
CRAFTING = {
    "eps": 64,
    "step": 1,
    "restarts": 2,
    "iterations": 9,
    "optimiser": "sign_adam",
    "scoring_draws": 1,
    "augmentation": [],
}
ATTACKS = {  # options beside these, and the share of the counted images that are poisons
    "dm_poison": ({}, 4 / 5),  # the fifth image is the target, not worth a term
    "untargeted": ({"clean_batch": 2}, 1),
    "gradient_matching": ({}, 1),
}
SCREENS = {
    "spectral_signatures": {"drop": "1/4", "training": SCHEDULE},
    "contrastive": {
        "drop": "1/4",
        "networks": 3,
        "others": 8,
        "ridge": 0.1,
        "power_iterations": 2,
        "sample": 12,
    },
    "random": {"drop": "1/4"},
}
CONDENSER = {
    "ipc": 3,
    "batch": 12,
    "iterations": 4,
    "learning_rate": 1.0,
    "momentum": 0.5,
    "initialisation": "noise",
    "log_every": 4,
}


def config(**changes):
    """A preset of the tiny world's sizes, as far as resources read it."""
    method = {"screen": "none", "condenser": "dm"}
    clean = {"attack": "none", "condense": None, "network": None, "options": {}}
    return {
        "device": "cpu",
        "cluster": CLUSTER,
        "dataset": {"color": "rgb"},
        "networks": {"convnet": {"width": 4, "depth": 2}},
        "network": "convnet",
        "pretrain": {**TRAINING, "epochs": [0, 1]},
        "attacks": {name: {**CRAFTING, **more} for name, (more, _) in ATTACKS.items()},
        "screens": SCREENS,
        "condensers": {"dm": CONDENSER},
        "estimators": {},
        "methods": {
            "one": {**method, "estimator": "mean"},
            "two": {**method, "estimator": "median"},
        },
        "panels": {"pair": ["one", "two"], "alone": ["one"]},
        "conditions": {
            "clean": clean,
            **{name: {**clean, "attack": name, "poisons": 4} for name in (*ATTACKS, "direct")},
        },
        "evaluate": {**TRAINING, "networks": {"convnet": 2}},
        **changes,
    }


def counted(work):
    with FlopCounterMode(display=False) as counter:
        result = work()
    return counter.get_total_flops(), result


def plugin(kind, name, values):
    """A plug-in and its options."""
    found = plugins.get(kind, name, "here")
    return found, build(found.options, values, "here")


# --- arithmetic ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "depth", "color"), [(8, 2, "rgb"), (28, 3, "grey"), (32, 3, "rgb"), (64, 4, "rgb")]
)
def test_an_embedding_costs_what_torch_counts(side, depth, color):
    channels = {"rgb": 3, "grey": 1}[color]
    given = config(
        cluster={**CLUSTER, "side": side},
        networks={"convnet": {"width": 4, "depth": depth}},
        dataset={"color": color},
    )
    network = resources._network(given, presets.network_of(given))
    assert network == ConvNet(channels, side, classes=3, width=4, depth=depth)
    weights = network.draw(torch.Generator().manual_seed(0))
    inputs = torch.zeros(2, channels, side, side)
    number, embeddings = counted(lambda: network.embed(weights, inputs))
    assert network.operations * 2 == number
    assert network.features == embeddings.shape[1]


def condensed(train, network, names, quiet, never, **changes):
    """Condensed sets by DM with these estimators."""
    condenser, options = plugin("condenser", "dm", {**CONDENSER, **changes})
    methods = {name: Calibration(*plugin("estimator", name, {})) for name in names}
    task = Task(TrainingData(train), network, (), methods, 0, 0, "cpu")
    return condenser(task, options, quiet, never)


def test_condensation_costs_what_torch_counts(train, network, quiet, never):
    number, _ = counted(lambda: condensed(train, network, ["mean", "median"], quiet, never))
    # 36 real images run as three chunks of 16
    work = resources.condense(config(), "clean", "pair")
    assert 1 <= number / work.operations < 48 / 36


def test_a_victim_costs_what_torch_counts(train, network, quiet, never):
    schedule = build(Schedule, {**SCHEDULE, "batch": 13}, "here")
    number, _ = counted(lambda: pretrain(train, network, schedule, 0, "cpu", quiet, never))
    work = resources.victim(config(), epochs=4)
    assert isclose(number, work.operations, rel_tol=0.3)


def test_evaluation_costs_what_torch_counts(train, test, target, network, quiet, never):
    made = condensed(train, network, ["mean"], quiet, never, iterations=1)["mean"][0]
    schedule = build(Schedule, SCHEDULE, "here")
    number, _ = counted(
        lambda: evaluate(made, test, [target], network, schedule, 2, 0, 0, "cpu", quiet, never)
    )
    work = resources.evaluate(config(), "clean", "alone")
    assert isclose(number, work.operations, rel_tol=0.3)


@pytest.mark.parametrize("name", ATTACKS)
def test_crafting_costs_what_torch_counts(train, target, network, quiet, never, name, monkeypatch):
    more, poisons = ATTACKS[name]
    # poisons with the target or with clean images, and no padding
    together = {"dm_poison": 4 + 1, "untargeted": 4 + 2, "gradient_matching": 4}[name]
    monkeypatch.setitem(crafting.CHUNK, "cpu", together)
    victims = tuple(network.draw(torch.Generator().manual_seed(n)) for n in range(2))
    scene = Scene(train, target, network, victims, 4, 0, "cpu")
    attack, options = plugin("attack", name, {**CRAFTING, "step": 2, **more})
    number, _ = counted(lambda: attack(scene, options, quiet, never))
    work = resources.poison(config(), name)
    assert isclose(poisons * number, work.operations, rel_tol=0.15)


@pytest.mark.parametrize("name", SCREENS)
def test_screening_costs_the_convolutions_that_torch_counts(
    train, network, quiet, never, name, monkeypatch
):
    monkeypatch.setitem(running.CHUNK, "cpu", 1)  # no padding
    monkeypatch.setattr(projecting, "FEWEST", 2)  # of classes of a dozen images, not thousands
    unknown = torch.zeros(len(train.labels), dtype=torch.bool)
    suspects = Suspects(TrainingData(train), unknown, network, (), 0, "cpu")
    screen, options = plugin("screen", name, SCREENS[name])
    with FlopCounterMode(display=False) as counter:
        screen(suspects, options, quiet, never)
    convolutions = sum(
        number
        for operation, number in counter.get_flop_counts().get("Global", {}).items()
        if "convolution" in str(operation)
    )
    work = resources.screen(config(), "clean", name)
    assert isclose(convolutions, work.operations, rel_tol=0.3)


def test_what_crafts_or_computes_nothing_costs_nothing():
    given = config()
    assert resources.poison(given, "direct") == resources.Work(0, 0)
    assert resources.screen(given, "clean", "oracle") == resources.Work(0, 0)


def test_a_condenser_needs_no_option_ipc(monkeypatch):
    @plugins.condenser(None, matches="embeddings", passes=lambda options, classes, methods: 5)
    def lone():
        """One image a class."""

    found = plugins.Found({**plugins.load("condenser").plugins, "lone": lone}, {})
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind: found if kind == "condenser" else load(kind))
    methods = {"one": {"screen": "none", "condenser": "lone", "estimator": "mean"}}
    given = config(methods=methods)
    assert resources.condense(given, "clean", "alone").operations > 0
    three = resources.evaluate(config(), "clean", "alone").operations  # of M = 3
    assert resources.evaluate(given, "clean", "alone").operations < three


# --- requests --------------------------------------------------------------------------------


def test_memory_grows_with_batch_side_and_width_where_tensors_are_the_hosts():
    def asked(device="cpu", batch=9, side=8, width=4):
        given = config(
            device=device,
            cluster={**CLUSTER, "side": side, "train": 3, "test": 3},
            networks={"convnet": {"width": width, "depth": 2}},
            pretrain={"epochs": [1], "batch": batch},
        )
        return resources.memory_mb(given, resources.victim(given, 1), attempt=1)

    assert asked() == 1000 + resources.SNAKEMAKE_MB + 100  # a little more, rounded up
    big = {"batch": 256, "side": 64, "width": 128}
    for larger in big:
        assert asked(**big) >= 1.3 * asked(**{**big, larger: big[larger] // 2})
    assert asked("cuda", **big) == asked("cuda")


def test_minutes_are_those_of_starting_and_of_the_work_at_the_presets_speed():
    given = config(cluster={**CLUSTER, "gflops": 2})
    work = resources.Work(operations=60e9, tensors_mb=0)  # half a minute
    assert resources.minutes(given, work, attempt=1) == resources.START_MINUTES + 1
    assert resources.minutes(given, work, attempt=3) == 3 * (resources.START_MINUTES + 1)


def test_every_attempt_asks_for_as_much_memory_again():
    work = resources.Work(0, 0)
    once = resources.memory_mb(config(), work, attempt=1)
    assert resources.memory_mb(config(), work, attempt=3) == 3 * once


# --- the profile -----------------------------------------------------------------------------

LISTED = re.search(
    r"^localrules:\n((?: +\w+,\n)+)", (ROOT / "workflow/rules/report.smk").read_text(), re.MULTILINE
)
LOCAL = set(re.findall(r"\w+", LISTED.group(1)))
LIMITS = {  # MB and minutes of any job at its first attempt
    "config.yaml": (3000, 30),
    SMOKE: (1500, 15),
    "config/paper.yaml": (10_000, 120),
    "config/paper-tiny-imagenet.yaml": (10_000, 3 * 24 * 60),
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_each_job_of_a_preset_asks_for_memory_and_time(tmp_path, preset):
    sources = copy_sources(tmp_path / "copy")
    settings = settings_of(preset)
    touch_data(settings, sources)
    configfile = None if preset == "config.yaml" else preset
    said = done(sources, "--workflow-profile", PROFILE, "--dry-run", configfile=configfile)
    assert f"specific profile {PROFILE} for" in said
    blocks = re.findall(r"^rule (\w+):\n((?: {4}.*\n)+)", said, re.MULTILINE)
    submitted = [(rule, block) for rule, block in blocks if rule not in LOCAL]
    assert "data" in {rule for rule, _ in submitted}
    assert any(rule.startswith("condense_") for rule, _ in submitted)
    most_memory, most_minutes = LIMITS.get(preset, (10_000, 3 * 24 * 60))
    for rule, block in submitted:
        asked = dict(re.findall(r"[ ,](\w+)=([^,\n]*)", block.partition("    resources:")[2]))
        assert settings["cluster"]["memory_mb"] < int(asked["mem_mb"]) <= most_memory, block
        assert resources.START_MINUTES <= int(asked["runtime"]) <= most_minutes, block
        wanted = {"cuda": "1", "cpu": "0"}[settings["device"]]
        assert asked.get("gpu", "0") == (wanted if rule != "data" else "0")


def test_both_profiles_agree():
    local, slurm = (
        yaml.safe_load((ROOT / folder / "config.yaml").read_text())
        for folder in ("profiles/default", PROFILE)
    )
    local.pop("resources")  # this machine's
    assert {key: slurm[key] for key in local} == local
    assert slurm["retries"] > 0
