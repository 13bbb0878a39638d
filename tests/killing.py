"""Kills jobs over and over, lets them go on, and compares the bits with those of a job left alone.

``python tests/killing.py FOLDER KILLS``: a line of JSON for each stage. A process forks for each
run of a job after importing torch once, and never computes itself: threads do not survive a fork.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch._dynamo  # noqa: F401 (an optimiser imports it: once, before the forks)
from test_command_line import CONFIG, POISONED, argv, edited, jobs

from rdmdc.__main__ import main
from rdmdc.storage import job_checkpoints as checkpoints
from rdmdc.workflow import job_options
from rdmdc.workflow.completing import complete
from rdmdc.workflow.stages import condense, evaluate, poison, screen, victim  # noqa: F401 too

ALWAYS, NEVER = "1e-9", "1e9"  # minutes
STAGES = {
    "pretrain": "victim 6",
    "dm poison": "poison",
    "gradient matching": "gradient matching",
    "screen": "screen",
    "condense": "condense",
    "evaluate": "evaluate",
}
SETTINGS = edited(
    CONFIG,
    ("networks", {"convnet": {"width": 16, "depth": 2}, "mlp": {"hidden": 16}}),
    ("evaluate.networks", {"convnet": 2, "mlp": 1}),
    ("compile", True),
    ("condensers.dm.iterations", 24),
    ("screens.contrastive.networks", 24),
    ("attacks.dm_poison.iterations", 10),
    ("attacks.gradient_matching.iterations", 10),
    ("evaluate.epochs", 5),
    ("evaluate.batch", 4),
)
POINTS = ("half of it written", "written, not renamed", "renamed")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fork(words, log, minutes, watch=None):
    """Start a job in a process of its own; ``watch`` is called in it before it starts."""
    place = words.index("--checkpoint-minutes") if "--checkpoint-minutes" in words else None
    if place is not None:
        words = [*words[: place + 1], minutes, *words[place + 2 :]]
    if pid := os.fork():
        return pid
    code = 99
    try:
        with open(log, "w") as file:
            sys.stderr = file
            if watch is not None:
                watch()
            code = main(words)
    except SystemExit as stopped:
        code = stopped.code
    finally:
        os._exit(code)


def finish(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_step(numbers, tell):
    """In the job: a byte into the pipe whenever one of so many states has been offered."""
    count, offer = 0, checkpoints.JobCheckpoints.offer

    def counting(self, state):
        nonlocal count
        offer(self, state)
        count += 1
        if count in numbers:
            os.write(tell, b".")

    def watch():
        checkpoints.JobCheckpoints.offer = counting
        if 0 in numbers:
            os.write(tell, b".")

    return watch


def in_write(number, point):
    """In the job: die within a writing of the checkpoint."""
    count = 0

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count == number and point == POINTS[0]:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        os.fsync(descriptor)
        if count == number and point == POINTS[1]:
            die()

    def replace(source, path):
        os.replace(source, path)
        if count == number and point == POINTS[2]:
            die()

    def watch():
        checkpoints.os = SimpleNamespace(fsync=fsync, replace=replace)

    return watch


class Job:
    """A stage's job in a folder of its own, and what it makes when it is left alone."""

    def __init__(self, name, folder):
        self.folder, self.made, self.out = folder, folder / "made", folder / "out"
        self.log, self.seeds = folder / "log", random.Random(name)
        self.words = all_jobs(self.made, self.out)[STAGES[name]]
        self.sets = [] if name != "evaluate" else list((self.made / POISONED / "run=0").iterdir())
        if self.sets:
            self.words[self.words.index("--folder") + 1] = str(self.out)
        self.begin()
        assert finish(fork(self.words, self.log, NEVER)) == 0, self.log.read_text()
        self.expected = self.outputs()
        # how many steps it has, and how long one takes with its checkpoint
        told, tell = os.pipe()
        started = time.monotonic()
        assert finish(fork(self.words, self.log, ALWAYS, at_step(range(10**6), tell))) == 0
        os.close(tell)
        self.steps = len(os.read(told, 1 << 16)) - 1
        os.close(told)
        self.step_seconds = (time.monotonic() - started) / self.steps
        assert self.outputs() == self.expected, "checkpoints change bits"

    def begin(self):
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        for path in self.sets:
            shutil.copy(path, self.out)

    def outputs(self):
        """As Snakemake sees them: sha256 of each file that is not hidden, nor varies."""
        files = [p for p in self.out.rglob("[!.]*") if p.is_file() and p.suffix != ".json"]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    def leftovers(self):
        return [path.name for path in self.out.rglob(".*.checkpoint*")]

    def kill(self, number, counts):
        """One kill; False where the job was done before."""
        started = time.time_ns()
        if number % 5 == 0:
            point = POINTS[number // 5 % len(POINTS)]
            job = fork(self.words, self.log, ALWAYS, in_write(self.seeds.randint(2, 5), point))
            code = finish(job)
        else:
            # of five, four: one at the very start, the others anywhere
            step = 0 if number % 10 == 1 else self.seeds.randrange(1, self.steps)
            told, tell = os.pipe()
            job = fork(self.words, self.log, ALWAYS, at_step((step,), tell))
            os.close(tell)
            if os.read(told, 1):
                time.sleep(self.seeds.uniform(0, self.step_seconds))
            os.close(told)
            terminate = number % 10 == 9
            os.kill(job, signal.SIGTERM if terminate else signal.SIGKILL)
            code = finish(job)
        counts["lost"] += "not used" in self.log.read_text()
        if code == 0:
            return False
        partial = [p for p in self.out.rglob(".*.partial") if p.stat().st_mtime_ns > started]
        counts["kills"] += 1
        counts["in a write"] += bool(partial) or number % 5 == 0
        counts["after a checkpoint"] += bool(list(self.out.rglob(".*.checkpoint")))
        counts["ended by SIGTERM"] += code == 143
        counts["strange ends"] += code not in (143, -signal.SIGKILL, -signal.SIGTERM)
        return True

    def finish(self, counts):
        kept = list(self.out.rglob(".*.checkpoint"))
        code = finish(fork(self.words, self.log, NEVER))
        said = self.log.read_text()
        counts["resumed"] += (resumed := "the job goes on from here" in said)
        if code or resumed != bool(kept):
            counts["lost"] += 1
            sys.stderr.write(said)

    def compare(self, counts):
        made = self.outputs()
        counts["finished"] += 1
        counts["lost"] += made.keys() != self.expected.keys()
        counts["differing"] += any(made.get(p) != h for p, h in self.expected.items())
        counts["left behind"] += bool(self.leftovers())


def all_jobs(made, out):
    found = jobs(SETTINGS, made, out)
    train, weights = made / "data/train.safetensors", out / "victims/epochs=6.safetensors"
    options = job_options.victim(complete(SETTINGS), 6)
    found["victim 6"] = argv("victim", options, train=train, weights=weights)
    return found


def killed(name, folder, kills):
    job = Job(name, folder)
    counts = Counter(dict.fromkeys(("lost", "differing", "left behind", "strange ends"), 0))
    while counts["kills"] < kills:
        job.begin()
        while job.kill(counts["kills"], counts):
            if counts["kills"] == kills or job.seeds.random() < 0.5:
                job.finish(counts)
                break
        job.compare(counts)
    return counts


if __name__ == "__main__":
    folder, kills = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    made = folder / "made"
    for job in ("data", "target", "victim 0", "victim 1", "poison", "screen", "condense"):
        code = finish(fork(all_jobs(made, made)[job], folder / "log", NEVER))
        assert code == 0, (folder / "log").read_text()
    for name in STAGES:
        print(json.dumps({"stage": name, **killed(name, folder, kills)}), flush=True)
