"""What every condenser promises: its draws, its panel, its checkpoints, its screening, its start.

Each is compared with a loop of its own in the file of its method.
"""

import dataclasses
from dataclasses import replace

import pandas as pd
import pytest
import torch
from test_checkpoints import check_every_state
from test_condense import STRATEGY, calibration, poison, screening_of

from rdmdc import plugins
from rdmdc.condensers.task import Task
from rdmdc.models import running
from rdmdc.networks.convnet import ConvNet
from rdmdc.options import build
from rdmdc.records import RecordError
from rdmdc.training_data import TrainingData

CONDENSERS = plugins.load("condenser").plugins
GRADIENTS = {
    "ipc": 2,
    "batch": 5,
    "iterations": 2,
    "outer_loops": 2,
    "inner_loops": 2,
    "learning_rate": 1.0,
    "momentum": 0.5,
    "network_rate": 0.1,
    "network_batch": 4,
    "initialisation": "noise",
    "log_every": 2,
}
CORESET = {"ipc": 2, "pool": 9, "networks": 2}
MEANS = {
    "ipc": 2,
    "batch": 5,
    "iterations": 3,
    "learning_rate": 20.0,
    "momentum": 0.5,
    "initialisation": "noise",
    "log_every": 2,
}
VALUES = {
    "dm": MEANS,
    "datadam": {**MEANS, "balance": 0.01},
    "random_real": {"ipc": 2},
    "herding": CORESET,
    "k_centre": CORESET,
    "dc": GRADIENTS,
    "dsa": GRADIENTS,
    "mtt": {
        "ipc": 2,
        "experts": 2,
        "interval": 2,
        "expert_batch": 9,
        "expert_rate": 0.1,
        "latest_start": 1,
        "span": 1,
        "student_steps": 2,
        "student_batch": 4,
        "iterations": 3,
        "learning_rate": 10.0,
        "momentum": 0.5,
        "rate_rate": 1e-3,
        "initialisation": "noise",
        "log_every": 2,
    },
    "dd": {
        "ipc": 2,
        "batch": 5,
        "iterations": 3,
        "steps": 2,
        "start_rate": 0.1,
        "learning_rate": 0.1,
        "initialisation": "noise",
        "log_every": 2,
    },
    "kip": {
        "ipc": 2,
        "batch": 5,
        "networks": 2,
        "iterations": 3,
        "ridge": 1e-3,
        "learning_rate": 0.1,
        "initialisation": "noise",
        "log_every": 2,
    },
    "factorisation": {
        "bases": 2,
        "hallucinators": 2,
        "channels": 3,
        "batch": 5,
        "iterations": 3,
        "learning_rate": 0.1,
        "style_rate": 0.1,
        "initialisation": "noise",
        "log_every": 2,
    },
}
"""Options of every condenser, by name, small."""
OFFERS = {name: 3 for name in VALUES} | {"random_real": 0, "dc": 4, "dsa": 4, "mtt": 7}
"""How many states each offers."""
ESTIMATORS = ("mean", "spectral_mean", "median", "contrastive_mean")
STARTS = [
    (name, start)
    for name, values in VALUES.items()
    for start in ("noise", "real")
    if "initialisation" in values and name != "factorisation"  # its start is rendered
]
TRACED = [name for name, values in VALUES.items() if "log_every" in values]
LEFT_OUT = [1, 4, 12, 13, 25, 30]


def panel_of(name):
    """Methods with an estimator each, or two without one where the condenser matches no means."""
    if CONDENSERS[name].facts["matches"] is None:
        return {"one": None, "other": None}
    return {estimator: calibration(estimator, others=12) for estimator in ESTIMATORS}


@pytest.fixture(scope="module")
def run(train, network, quiet, never):
    def run(
        name,
        panel=None,
        poisons=None,
        screening=None,
        seed=5,
        number=0,
        network=network,
        checkpoints=never,
        progress=quiet,
        **options,
    ):
        chosen = build(CONDENSERS[name].options, VALUES[name] | options, name)
        data = TrainingData(train, poisons, screening)
        methods = panel_of(name) if panel is None else panel
        task = Task(data, network, STRATEGY, methods, seed, number, "cpu")
        return CONDENSERS[name](task, chosen, progress, checkpoints)

    return run


def equal(one, other):
    return all(torch.equal(one[name][0].inputs, other[name][0].inputs) for name in one)


def test_every_condenser_is_here():
    assert set(VALUES) == set(OFFERS) == set(CONDENSERS)
    for name, values in VALUES.items():
        assert {field.name for field in dataclasses.fields(CONDENSERS[name].options)} == set(values)


@pytest.mark.parametrize("name", CONDENSERS)
def test_a_set_is_sorted_by_class_and_carries_what_it_needs(run, train, name):
    for made, _ in run(name).values():
        assert made.labels.tolist() == sorted([*range(3)] * (len(made.labels) // 3))
        assert made.inputs.shape[1:] == train.pixels.shape[1:]
        assert (made.class_names, made.normalisation) == (train.class_names, train.normalisation)


@pytest.mark.parametrize("name", CONDENSERS)
def test_same_seed_same_bits_other_seed_or_run_other_bits(run, name):
    made = run(name)
    torch.manual_seed(8)
    assert equal(made, run(name))
    for other in (run(name, seed=6), run(name, number=1)):
        assert all(not torch.equal(made[m][0].inputs, other[m][0].inputs) for m in made)


@pytest.mark.parametrize("name", CONDENSERS)
def test_alone_is_as_in_a_panel_bit_for_bit(run, name):
    panel = run(name, poisons=poison([13, 15, 20], [1, 1, 1]))
    for method, chosen in panel_of(name).items():
        alone = run(name, {method: chosen}, poisons=poison([13, 15, 20], [1, 1, 1]))[method]
        assert torch.equal(alone[0].inputs, panel[method][0].inputs)
        pd.testing.assert_frame_equal(alone[1], panel[method][1], check_exact=True)


@pytest.mark.parametrize("name", TRACED)
def test_methods_of_a_panel_differ(run, name):
    sets = [made.inputs for made, _ in run(name, poisons=poison([13, 15], [1, 1])).values()]
    if CONDENSERS[name].facts["matches"] is not None:
        for i, one in enumerate(sets):
            assert all(not torch.equal(one, other) for other in sets[:i])


@pytest.mark.parametrize("name", CONDENSERS)
def test_it_goes_on_from_each_state_with_the_same_bits(run, tmp_path, name):
    def parts(tape):
        made = run(name, poisons=poison([13, 15], [1, 1]), checkpoints=tape)
        return [part for synthetic, trace in made.values() for part in (synthetic.inputs, trace)]

    check_every_state(parts, tmp_path, OFFERS[name])


@pytest.mark.parametrize("name", CONDENSERS)
def test_a_left_out_image_is_never_drawn(run, train, name):
    """Its pixels do not matter; those of the images that are kept do."""
    screening = screening_of(train, LEFT_OUT)
    hidden = poison(LEFT_OUT, train.labels[LEFT_OUT].tolist())
    kept = [i for i in range(39) if i not in LEFT_OUT]
    seen = poison(kept, train.labels[kept].tolist())
    clean = run(name, screening=screening)
    assert equal(clean, run(name, screening=screening, poisons=hidden))
    assert not equal(clean, run(name, screening=screening, poisons=seen))


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_it_moves_away_from_its_start(run, name, start):
    """A start of noise has a spread of one; a real one is the images that random_real returns."""
    still = {"learning_rate": 1e-9, "momentum": 0.0, "initialisation": start}
    made = run(name, **{key: value for key, value in still.items() if key in VALUES[name]})
    begun = next(iter(made.values()))[0].inputs
    if start == "real":
        real = run("random_real")["one"][0].inputs
        torch.testing.assert_close(begun, real, rtol=0, atol=1e-5)
    else:
        assert 0.9 < float(begun.std()) < 1.1
    moved = run(name, initialisation=start)
    for inputs in (synthetic.inputs for synthetic, _ in moved.values()):
        assert float((inputs - begun).abs().amax((1, 2, 3)).min()) > 1e-4


@pytest.mark.parametrize("name", TRACED)
def test_what_is_logged_changes_no_bit(run, name):
    assert equal(run(name, log_every=1), run(name, log_every=9))


@pytest.mark.parametrize("name", CONDENSERS)
def test_progress_ends_at_its_total(run, name):
    told = []
    run(name, progress=lambda *seen: told.append(seen[:2]))
    total = told[-1][1]
    assert told == [(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("name", CONDENSERS)
def test_more_images_than_a_class_has(run, name):
    changed = {"bases" if name == "factorisation" else "ipc": 13}
    if "initialisation" in VALUES[name]:
        changed["initialisation"] = "real"
    with pytest.raises(RecordError, match=r"ipc.* is 13, but class 'ant' has 12 images; lower it"):
        run(name, **changed)
    if "batch" in VALUES[name]:
        with pytest.raises(RecordError, match="batch is 13, but class 'ant' has 12 images"):
            run(name, batch=13)


@pytest.mark.parametrize("name", CONDENSERS)
def test_compiled_networks_differ_in_rounding_only(run, compiled, name):
    wide = ConvNet(3, 8, 3, width=16, depth=2)
    short = {"iterations": 1} if "iterations" in VALUES[name] else {}
    made = run(name, network=wide, **short)
    running.compiling(False, "cpu", None)
    plain = run(name, network=wide, **short)
    for method in made:
        torch.testing.assert_close(
            made[method][0].inputs, plain[method][0].inputs, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("name", CONDENSERS)
def test_forward_passes_grow_with_the_work(name):
    chosen = build(CONDENSERS[name].options, VALUES[name], name)
    passes = CONDENSERS[name].facts["passes"]
    if name == "random_real":
        assert passes(chosen, 3, 2) == 0
        return
    more = {"iterations": 30, "networks": 4}
    field = next(field for field in more if hasattr(chosen, field))
    grown = replace(chosen, **{field: more[field]})
    assert passes(grown, 3, 2) > 1.5 * passes(chosen, 3, 2) > 0
