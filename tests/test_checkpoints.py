"""A job that is killed goes on with the same bits; a checkpoint that is not its own is refused."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from test_attacks import ATTACKS, CRAFTED, CRAFTING, options_of
from test_command_line import CONFIG, argv, edited, send
from test_condense import OPTIONS, PANEL, STRATEGY
from test_evaluate import SHORT

from rdmdc.__main__ import main
from rdmdc.attacks.crafting import Scene
from rdmdc.attacks.optimisers import OPTIMISERS
from rdmdc.checkpoints import State
from rdmdc.condensers.dm import dm
from rdmdc.condensers.task import Task
from rdmdc.metrics.evaluate import evaluate
from rdmdc.models import running
from rdmdc.models.training import fit
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import SyntheticSet
from rdmdc.storage import job_checkpoints as checkpoints
from rdmdc.storage.job_checkpoints import JobCheckpoints, packed, read
from rdmdc.training_data import TrainingData
from rdmdc.workflow import job_options
from rdmdc.workflow.completing import complete

KILLED = ("pretrain", "dm poison", "gradient matching", "screen", "condense", "evaluate")
KILLS = int(os.environ.get("KILLS", "20"))
IDENTITY = {
    "options": {"condense": {"ipc": 2, "batch": 8}, "seed": 0},
    "code": "c0de",
    "inputs": {"train.safetensors": "12ab"},
    "compiled": False,
    "threads": 1,
}
FACTS = {"rows": [[0, 1, 0.1 + 0.2], [1, 2, float("inf")]], "name": "µ", "none": None}


def state(seed=0):
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, 4, 4, generator=draws)
    kernels = images.to(memory_format=torch.channels_last)
    sets = {"dm": images, "empty": images[:0], "one": images[0, 0, 0, 0]}
    return State({"sets": sets, "moments": {}, "weights": {"a.b": kernels}}, FACTS)


def same(a, b):
    """Whether two states are the same bits; a group without members is none."""
    tensors = [{g: members for g, members in s.tensors.items() if members} for s in (a, b)]
    return json.dumps(a.facts) == json.dumps(b.facts) and all(
        one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(tensors[0].values(), tensors[1].values(), strict=True)
    )


# --- the file --------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path):
    return tmp_path / "folder" / "dm.safetensors"


def saved(output, minutes=1e-9, identity=IDENTITY):
    """A checkpoint as a job leaves that is killed."""
    job = JobCheckpoints(output, minutes, identity)
    job.offer(state())
    return job.path


def test_a_state_comes_back_bit_for_bit(output):
    path = saved(output)
    assert path.name == ".dm.safetensors.checkpoint"
    assert [p.name for p in output.parent.iterdir()] == [path.name]
    identity, found = read(path)
    assert identity == IDENTITY
    assert same(found, state())
    assert not same(found, state(seed=1))
    assert found.group("moments", "cpu") == {}
    again = JobCheckpoints(output, 1, IDENTITY).resume()
    assert again is not None
    assert same(again, found)


def test_there_is_nothing_to_go_on_from_at_first(output, capsys):
    assert JobCheckpoints(output, 1, IDENTITY).resume() is None
    assert capsys.readouterr().err == ""


OTHERS = [
    ("options.condense.ipc", 3, "options.condense.ipc = 2, this job has 3"),
    ("options.power", 3, "options.power = null, this job has 3"),
    ("code", "c0d3", 'code = "c0de", this job has "c0d3"'),
    ("inputs", {"train.safetensors": "ab"}, 'inputs.train.safetensors = "12ab", this job has "ab"'),
    ("compiled", True, "compiled = false, this job has true"),
    ("threads", 2, "threads = 1, this job has 2"),
]


@pytest.mark.parametrize(("key", "value", "reason"), OTHERS)
def test_another_jobs_checkpoint_is_refused_with_its_reason(output, capsys, key, value, reason):
    path = saved(output)
    assert JobCheckpoints(output, 1, edited(IDENTITY, (key, value))).resume() is None
    line = f"checkpoint: {path}: not used, made with {reason}; the job starts afresh\n"
    assert capsys.readouterr().err == line


def test_a_flipped_bit_anywhere_is_refused(output, capsys):
    path, seeds = saved(output), random.Random(0)
    content = path.read_bytes()
    places = [*range(0, 400, 7), *seeds.sample(range(len(content)), 100), len(content) - 1]
    for place in places:
        bit = 1 << seeds.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        assert JobCheckpoints(output, 1, IDENTITY).resume() is None, place
        said = capsys.readouterr().err
        assert said.startswith(f"checkpoint: {path}: not used, damaged (")
        assert said.endswith("); the job starts afresh\n")
        assert said.count("\n") == 1


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.999])
def test_half_a_file_is_refused(output, capsys, part):
    path = saved(output)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert JobCheckpoints(output, 1, IDENTITY).resume() is None
    assert "not used, damaged (" in capsys.readouterr().err


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    output, capsys, monkeypatch, function
):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    path = saved(output)
    content = path.read_bytes()
    with JobCheckpoints(output, 1e-9, IDENTITY) as job:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "os", SimpleNamespace(**{**vars(os), function: full}))
            job.offer(state(1))
        assert "cannot be written: No space left on device; free" in capsys.readouterr().err
        assert [p.name for p in output.parent.iterdir()] == [path.name]
        assert path.read_bytes() == content
        job.offer(state(1))
        assert path.read_bytes() != content


def test_a_state_is_saved_when_it_is_due_and_not_before(output, monkeypatch):
    now = 0.0
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now))
    written = []
    monkeypatch.setattr(checkpoints, "packed", lambda *_: written.append(now) or b"")
    job = JobCheckpoints(output, 5, IDENTITY)
    for second in range(0, 1000, 70):
        now = float(second)
        job.offer(state())
    assert written == [350.0, 700.0]


def test_a_job_that_ends_well_leaves_none_and_one_that_fails_does(output):
    with JobCheckpoints(output, 1e-9, IDENTITY) as job:
        job.offer(state())
        job.partial.touch()
    assert list(output.parent.iterdir()) == []
    with pytest.raises(ZeroDivisionError), JobCheckpoints(output, 1e-9, IDENTITY) as job:
        job.offer(state())
        raise ZeroDivisionError
    assert [p.name for p in output.parent.iterdir()] == [job.path.name]


# --- signals ---------------------------------------------------------------------------------


def test_sigterm_saves_and_ends(output, capsys):
    before = [signal.getsignal(number) for number in checkpoints.SIGNALS]
    with pytest.raises(SystemExit) as stopped, JobCheckpoints(output, 60, IDENTITY) as job:
        job.offer(state())
        assert not job.path.exists()
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        job.offer(state(1))
    assert stopped.value.code == 143
    assert capsys.readouterr().err == (
        f"checkpoint: {job.path}: saved on SIGUSR1\ncheckpoint: {job.path}: saved on SIGTERM\n"
    )
    assert same(read(job.path)[1], state(1))
    assert [signal.getsignal(number) for number in checkpoints.SIGNALS] == before


def test_sigusr1_saves_and_goes_on(output, capsys):
    with JobCheckpoints(output, 60, IDENTITY) as job:
        send(signal.SIGUSR1)
        job.offer(state())
        assert capsys.readouterr().err == f"checkpoint: {job.path}: saved on SIGUSR1\n"
        job.offer(state(1))
        assert same(read(job.path)[1], state())
    assert not job.path.exists()


# --- the stages' states ----------------------------------------------------------------------


class Tape:
    """Checkpoints that keep every state as it would be read back; begins with one of them."""

    def __init__(self, folder, begin=None):
        self.path, self.begin, self.states = folder / "state", begin, []

    def resume(self):
        return self.begin

    def offer(self, state):
        self.path.write_bytes(packed({}, state))
        self.states.append(read(self.path)[1])


def check_every_state(run, tmp_path, steps):
    """Go on from each state in turn; it must end as it did without."""
    tape = Tape(tmp_path)
    expected = run(tape)
    assert len(tape.states) == steps
    for number, begin in enumerate(tape.states):
        again = Tape(tmp_path, begin)
        for one, other in zip(run(again), expected, strict=True):
            if isinstance(one, pd.DataFrame):
                pd.testing.assert_frame_equal(one, other, check_exact=True)
            else:
                assert torch.equal(one, other), number
        assert len(again.states) == steps - 1 - number
        assert all(same(*pair) for pair in zip(again.states[::-1], tape.states[::-1], strict=False))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("attack", CRAFTED)
def test_crafting_goes_on_from_each_step(
    train, target, network, quiet, tmp_path, attack, optimiser
):
    victims = tuple(network.draw(generator("victim", i)) for i in range(2))
    scene = Scene(train, target, network, victims, poisons=4, seed=3, device="cpu")
    crafting = replace(CRAFTING, optimiser=optimiser, restarts=2, iterations=4, step=30.0)

    def run(tape):
        poisons, trace = ATTACKS[attack](scene, options_of(attack, crafting), quiet, tape)
        return poisons.pixels, trace

    check_every_state(run, tmp_path, 8)


def test_condensation_goes_on_from_each_iteration(train, network, quiet, tmp_path):
    def run(tape):
        options = replace(OPTIONS, iterations=5, log_every=2)
        task = Task(TrainingData(train), network, STRATEGY, PANEL, 5, 0, "cpu")
        made = dm(task, options, quiet, tape)
        return [part for made, trace in made.values() for part in (made.inputs, trace)]

    check_every_state(run, tmp_path, 5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("width", [4, 16])
def test_training_goes_on_from_each_batch(train, quiet, tmp_path, compiled, width, momentum):
    """Across the epochs and the fall of the rate; 39 images are three batches, one of 7."""
    network = ConvNet(3, 8, 3, width=width, depth=2)
    running.compiling(True, "cpu", network)  # those of width 4 cannot be
    schedule = replace(SHORT, epochs=4, batch=16, momentum=momentum, decay_after="1/2")
    inputs = train.normalisation.normalise(train.pixels)

    def run(tape):
        weights = fit(network, lambda i: inputs[i], train.labels, schedule, ("any",), quiet, tape)
        return weights.values()

    check_every_state(run, tmp_path, 12)


def test_evaluation_goes_on_from_each_batch(train, test, target, network, quiet, tmp_path):
    inputs = torch.randn(9, 3, 8, 8, generator=generator("condensed"))
    labels = torch.arange(3).repeat_interleave(3)
    condensed = SyntheticSet(inputs, labels, train.class_names, train.normalisation)
    schedule = replace(SHORT, epochs=2, batch=5)

    def run(tape):
        return [evaluate(condensed, test, [target], network, schedule, 3, 1, 0, "cpu", quiet, tape)]

    check_every_state(run, tmp_path, 3 * 2 * 2)


# --- jobs ------------------------------------------------------------------------------------


def test_a_job_goes_on_or_tells_why_not(tmp_path, capsys):
    """SIGTERM at the third of twelve steps; then with other options, and then as it was."""
    train, weights = tmp_path / "train.safetensors", tmp_path / "out" / "victim.safetensors"
    data = argv(
        "data",
        job_options.data(complete(CONFIG)),
        train=train,
        test=tmp_path / "test.safetensors",
    )
    assert main(data) == 0

    def run(seed=0, at=None):
        config = edited(CONFIG, ("seed", seed))
        options = job_options.victim(complete(config), 3)
        words = argv("victim", options, train=train, weights=weights)
        capsys.readouterr()
        count, offer = 0, JobCheckpoints.offer

        def counting(self, state):
            nonlocal count
            count += 1
            if count == at:
                send(signal.SIGTERM)
            offer(self, state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(JobCheckpoints, "offer", counting)
            assert main(words) == 0
        left = {p.name for p in weights.parent.iterdir()} - {f"{weights.name}.provenance.json"}
        assert left == {weights.name}
        return weights.read_bytes(), count, capsys.readouterr().err

    expected, steps, _ = run()
    assert steps == 6
    with pytest.raises(SystemExit, match="143"):
        run(at=3)
    path = weights.with_name(".victim.safetensors.checkpoint")
    assert f"checkpoint: {path}: saved on SIGTERM\n" in capsys.readouterr().err
    kept = path.read_bytes()

    other, steps, said = run(seed=1)
    assert f"{path}: not used, made with options.seed = 0, this job has 1; the job" in said
    assert (steps, other == expected) == (6, False)
    path.write_bytes(kept)
    again, steps, said = run()
    assert f"{path}: the job goes on from here" in said
    assert (steps, again == expected) == (3, True)


@pytest.fixture(scope="module")
def kills(tmp_path_factory):
    """What tests/killing.py counts, by stage; KILLS of the environment a stage."""
    folder = tmp_path_factory.mktemp("kills")
    script = Path(__file__).with_name("killing.py")
    command = [sys.executable, str(script), str(folder), str(KILLS)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(run.stdout)
    counted = [json.loads(line) for line in run.stdout.splitlines()]
    return {counts.pop("stage"): counts for counts in counted}


@pytest.mark.slow
@pytest.mark.parametrize("stage", KILLED)
def test_a_killed_job_ends_with_the_same_bits(kills, stage):
    counts = kills[stage]
    for fault in ("lost", "differing", "left behind", "strange ends"):
        assert counts[fault] == 0, counts
    assert counts["kills"] == KILLS
    assert counts["after a checkpoint"] >= 0.75 * KILLS
    assert counts["in a write"] >= 0.1 * KILLS
    assert counts["resumed"] > 0
