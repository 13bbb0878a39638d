"""What jobs ask for: the formulas against counted operations, and the profile that submits them."""

import re
from math import isclose

import pytest
import torch
import yaml
from test_workflow import PRESETS, ROOT, SMOKE, copy_sources, done, settings_of, touch_data
from torch.utils.flop_counter import FlopCounterMode

from rdmdc.attacks import crafting as attacks
from rdmdc.workflow import resources
from rdmdc.attacks.crafting import Crafting, Scene
from rdmdc.condensers.dm import Condensation, condense
from rdmdc.metrics.evaluate import evaluate
from rdmdc.models.running import ConvNet
from rdmdc.models.training import Schedule, pretrain

PROFILE = "workflow/profiles/slurm"
CLUSTER = {"train": 39, "test": 25, "classes": 3, "side": 8, "memory_mb": 1000, "gflops": 1}
CRAFTING = {"restarts": 2, "iterations": 9, "scoring_draws": 1}
TRAINING = {"epochs": 4, "batch": 9}


def config(**changes):
    """A preset of the tiny world's sizes, as far as resources read it."""
    return {
        "device": "cpu",
        "cluster": CLUSTER,
        "dataset": {"color": "rgb"},
        "network": {"width": 4, "depth": 2},
        "pretrain": {**TRAINING, "epochs": [0, 1]},
        "attacks": dict.fromkeys(resources.PASSES, CRAFTING),
        "condense": {"ipc": 3, "batch": 12, "iterations": 4},
        "panels": {"pair": ["one", "two"]},
        "conditions": {
            attack: {"attack": attack, "poisons": 4, "eps": 64} for attack in resources.PASSES
        },
        "evaluate": {**TRAINING, "networks": 2},
        **changes,
    }


def counted(work):
    with FlopCounterMode(display=False) as counter:
        result = work()
    return counter.get_total_flops(), result


# --- arithmetic ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "depth", "color"), [(8, 2, "rgb"), (28, 3, "grey"), (32, 3, "rgb"), (64, 4, "rgb")]
)
def test_an_embedding_costs_what_torch_counts(side, depth, color):
    channels = {"rgb": 3, "grey": 1}[color]
    network = ConvNet(channels, side, classes=3, width=4, depth=depth)
    weights = network.draw(torch.Generator().manual_seed(0))
    inputs = torch.zeros(2, channels, side, side)
    number, embeddings = counted(lambda: network.embed(weights, inputs))
    given = config(
        cluster={**CLUSTER, "side": side},
        network={"width": 4, "depth": depth},
        dataset={"color": color},
    )
    assert resources._forward(given) * 2 == number
    assert resources._features(given) == embeddings.shape[1]


def test_condensation_costs_what_torch_counts(train, network, quiet, never):
    options = Condensation(3, 12, 4, 1.0, 0.5, "noise", 4)
    panel = {"one": {"function": "mean"}, "two": {"function": "median"}}
    number, _ = counted(
        lambda: condense(train, None, network, [], options, panel, 0, 0, "cpu", quiet, never)
    )
    # 36 real images run as three chunks of 16
    work = resources.condense(config(conditions={"clean": {}}), "clean", "pair")
    assert 1 <= number / work.operations < 48 / 36


def test_a_victim_costs_what_torch_counts(train, network, quiet, never):
    schedule = Schedule(4, 13, 0.1, 0.9, False, 0.0, "1", ())
    number, _ = counted(lambda: pretrain(train, network, schedule, 0, "cpu", quiet, never))
    work = resources.victim(config(), epochs=4)
    assert isclose(number, work.operations, rel_tol=0.3)


def test_evaluation_costs_what_torch_counts(train, test, target, network, quiet, never):
    options = Condensation(3, 12, 1, 1.0, 0.5, "noise", 1)
    made = condense(
        train, None, network, [], options, {"one": {"function": "mean"}}, 0, 0, "cpu", quiet, never
    )
    schedule = Schedule(4, 9, 0.1, 0.9, False, 0.0, "1", ())
    number, _ = counted(
        lambda: evaluate(
            made["one"][0], test, [target], network, schedule, 2, 0, 0, "cpu", quiet, never
        )
    )
    given = config(conditions={"clean": {}}, panels={"alone": ["one"]})
    work = resources.evaluate(given, "clean", "alone")
    assert isclose(number, work.operations, rel_tol=0.3)


@pytest.mark.parametrize("attack", resources.PASSES)
def test_crafting_costs_what_torch_counts(
    train, target, network, quiet, never, attack, monkeypatch
):
    # poisons with the target or with clean images, and no padding
    together = {"dm": 4 + 1, "untargeted": 4 + 2, "gradient_matching": 4}[attack]
    monkeypatch.setitem(attacks.CHUNK, "cpu", together)
    victims = tuple(network.draw(torch.Generator().manual_seed(n)) for n in range(2))
    scene = Scene(train, target, network, victims, 4, 0, "cpu")
    clean = {"clean_batch": 2} if attack == "untargeted" else {}
    crafting = Crafting(64, 1, 2, 9, "sign_adam", 1, (), **clean)
    number, _ = counted(lambda: attacks.ATTACKS[attack](scene, crafting, quiet, never))
    given = config(attacks={attack: {**CRAFTING, **clean}})
    work = resources.poison(given, attack)
    poisons = {"dm": 4 / 5}.get(attack, 1)  # the fifth image is the target, not worth a term
    assert isclose(poisons * number, work.operations, rel_tol=0.15)


# --- requests --------------------------------------------------------------------------------


def test_memory_grows_with_batch_side_and_width_where_tensors_are_the_hosts():
    def asked(device="cpu", batch=9, side=8, width=4):
        given = config(
            device=device,
            cluster={**CLUSTER, "side": side, "train": 3, "test": 3},
            network={"width": width, "depth": 2},
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
    touch_data(settings_of(preset), sources)
    configfile = None if preset == "config.yaml" else preset
    said = done(sources, "--workflow-profile", PROFILE, "--dry-run", configfile=configfile)
    assert f"specific profile {PROFILE} for" in said
    blocks = re.findall(r"^rule (\w+):\n((?: {4}.*\n)+)", said, re.MULTILINE)
    submitted = [(rule, block) for rule, block in blocks if rule not in LOCAL]
    assert {"data", "poison"} < {rule for rule, _ in submitted}
    most_memory, most_minutes = LIMITS.get(preset, (10_000, 3 * 24 * 60))
    settings = settings_of(preset)
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
