"""The workflow through a real slurmctld and slurmd on this machine: `make test-slurm`.

start.sh and stop.sh beside this file start and stop them. Where they cannot be had, all tests are
skipped with the reason.
"""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_workflow import (
    PATIENCE,
    ROOT,
    SMOKE,
    artifacts,
    copy_sources,
    done,
    environment,
    failed,
    hashes,
    settings_of,
    sha256,
    sha256_alone,
    wait_for,
    with_a_long_job,
    write_settings,
)

HERE = Path(__file__).parent
CLUSTER = (ROOT / "docs/cluster.md").read_text()
DATA = "results/smoke/data/train.safetensors"
VICTIM = "results/smoke/victims/epochs=1.safetensors"  # two jobs: data, then victim
ENDED = {"COMPLETED", "CANCELLED", "FAILED"}


@pytest.fixture(scope="session", autouse=True)
def slurm():
    """It is up for the tests of this folder, and nothing is left of it after them."""
    start = subprocess.run([HERE / "start.sh"], stderr=subprocess.PIPE, text=True)
    if start.returncode == 77:
        pytest.skip(start.stderr.splitlines()[-1])
    assert start.returncode == 0, start.stderr
    # what is terminated cleans up as what is interrupted does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # in a shell's background interrupts are ignored, and by all that is started from there
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    subprocess.run([HERE / "stop.sh"], check=True)
    assert not Path("/etc/slurm/slurm.conf").exists()
    daemons = {"slurmctld", "slurmd"}
    wait_for(lambda: daemons.isdisjoint(output_of("ps", "-eo", "comm").split()))


@pytest.fixture
def workspace(tmp_path):
    return copy_sources(tmp_path / "copy")


@pytest.fixture
def submit(workspace):
    """Start snakemake for some targets; none is left running by a test that fails."""
    started = []

    def start(targets, *arguments, configfile=SMOKE):
        started.append(Submitted(workspace, targets, *arguments, configfile=configfile))
        return started[-1]

    yield start
    for submitted in started:
        submitted.process.kill()
        submitted.process.wait()


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Submitted:
    """A snakemake that submits jobs from a folder, in the background."""

    def __init__(self, folder, targets, *arguments, configfile):
        self.folder, self.told = folder, folder / f"told-{time.time_ns()}.txt"
        profile = ["--workflow-profile", "workflow/profiles/slurm", "--configfile", configfile]
        often = ["--slurm-init-seconds-before-status-checks", "1"]
        with self.told.open("w") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *targets, *profile, *often, *arguments],
                cwd=folder,
                env=environment(folder),
                stdout=told,
                stderr=subprocess.STDOUT,
            )

    def finish(self, patience=PATIENCE):
        """Its return code and all that it printed."""
        return self.process.wait(patience), self.told.read_text()

    def run_id(self):
        return wait_for(lambda: re.search("SLURM run ID: (.*)", self.told.read_text()))[1]

    def jobs(self):
        """Rule and state of each of its jobs by SLURM's number, in order."""
        named = ["squeue", "--noheader", "--states=all", f"--name={self.run_id()}"]
        rows = [row.split("|") for row in output_of(*named, "--format=%A|%k|%T").splitlines()]
        jobs = {int(n): (rule.split("_")[1], state) for n, rule, state in rows}
        return dict(sorted(jobs.items()))

    def running(self, rule):
        """The number of its job of a rule, once that runs."""

        def found():
            assert self.process.poll() is None, self.told.read_text()
            return [n for n, job in self.jobs().items() if job == (rule, "RUNNING")]

        return wait_for(found)[0]


def made(folder):
    """Every artifact with what a second making would change."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in artifacts(folder)}


def rules_of(submitted):
    return [rule for rule, _ in submitted.jobs().values()]


# --- results ---------------------------------------------------------------------------------


def test_jobs_of_the_cluster_make_the_same_bits_as_local_ones(workspace, submit, tmp_path):
    submitted = submit([])
    local = copy_sources(tmp_path / "local")
    done(local)
    code, told = submitted.finish(patience=480)
    assert code == 0, told
    cells = (3 + 3 + 2 + 2 + 2) + 8  # of each panel
    assert len(submitted.jobs()) == 1 + 2 + 9 + 9 + 2 * cells  # data, victim, poison, screen
    assert {state for _, state in submitted.jobs().values()} == {"COMPLETED"}
    expected = hashes(local / "results")
    assert len(expected) > 100
    assert hashes(workspace / "results") == expected


# --- failures --------------------------------------------------------------------------------


def test_a_cancelled_job_is_retried_with_more(workspace, submit):
    submitted = submit([VICTIM])
    cancelled = submitted.running("victim")
    before = made(workspace / "results/smoke/data")
    output_of("scancel", str(cancelled))
    code, told = submitted.finish()
    assert code == 0, told
    jobs = [("data", "COMPLETED"), ("victim", "CANCELLED"), ("victim", "COMPLETED")]
    assert list(submitted.jobs().values()) == jobs
    assert (workspace / VICTIM).is_file()
    assert made(workspace / "results/smoke/data") == before
    for resource in ("mem_mb", "runtime"):
        asked = [int(n) for n in re.findall(rf"^ +resources: .*\b{resource}=(\d+)", told, re.M)]
        assert asked[2] == 2 * asked[1]


def test_a_requeued_job_goes_on_from_where_it_was(workspace, submit):
    """What preemption does to a job: it returns to the queue under its number, and waits there."""
    path, checkpoint, log = with_a_long_job(workspace)
    submitted = submit([path.relative_to(workspace)])
    job = str(submitted.running("victim"))
    wait_for(checkpoint.exists)
    output_of("scontrol", "requeue", job)
    wait_for(lambda: submitted.jobs()[int(job)][1] == "PENDING")
    assert "saved on SIGTERM" in log.read_text()
    # not SLURM's two minutes; but a job that starts again in the second of its requeueing finds its
    # credential revoked and fails, which no cluster's wait allows
    output_of("scontrol", "update", f"JobId={job}", "StartTime=now+2")
    code, told = submitted.finish()
    assert code == 0, told
    assert list(submitted.jobs().values()) == [("data", "COMPLETED"), ("victim", "COMPLETED")]
    assert "the job goes on from here" in log.read_text()
    assert not checkpoint.exists()
    assert sha256(path) == sha256_alone(workspace)


def interrupt(submitted):
    submitted.process.send_signal(signal.SIGINT)
    code, told = submitted.finish()
    assert code != 0, told


def kill(submitted):
    """And what docs/cluster.md says to do then."""
    submitted.process.kill()
    submitted.finish()
    assert "RUNNING" in {state for _, state in submitted.jobs().values()}
    cancel, unlock = re.findall("^    ((?:scancel|snakemake --unlock).*)", CLUSTER, re.M)
    output_of(*shlex.split(cancel.replace("RUN_ID", submitted.run_id())))
    folder = submitted.folder
    assert "--unlock" in failed(folder, VICTIM)
    arguments = shlex.split(unlock.replace("config/paper.yaml", SMOKE))
    command = [sys.executable, "-m", *arguments]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)


@pytest.mark.parametrize("end", [interrupt, kill])
def test_after_snakemake_is_gone_nothing_finished_is_computed_twice(workspace, submit, end):
    submitted = submit([VICTIM])
    submitted.running("victim")
    before = made(workspace / "results")
    assert workspace / DATA in before
    end(submitted)
    wait_for(lambda: {state for _, state in submitted.jobs().values()} <= ENDED)
    assert not (workspace / VICTIM).exists()
    again = submit([VICTIM])
    code, told = again.finish()
    assert code == 0, told
    assert rules_of(again) == ["victim"]
    after = made(workspace / "results")
    assert after.keys() == before.keys() | {workspace / VICTIM}
    assert {path: after[path] for path in before} == before


# --- requests --------------------------------------------------------------------------------

SHOW_ENVIRONMENT = """
rule environment:
    output:
        "results/environment/{which}.txt",
    resources:
        gpu=GPUS,
    shell:
        "env > {output}; for _ in {{1..60}}; do"
        " [ -e results/environment/0.txt -a -e results/environment/1.txt ] && exit 0; sleep 0.5;"
        " done; echo 'the other job does not run' >&2; exit 1"
"""


def test_jobs_that_run_side_by_side_see_a_gpu_each(workspace, submit):
    write_settings(workspace / "gpu.yaml", settings_of(SMOKE) | {"device": "cuda"})
    with (workspace / "Snakefile").open("a") as snakefile:
        snakefile.write(SHOW_ENVIRONMENT)
    shown = [f"results/environment/{which}.txt" for which in (0, 1)]
    code, told = submit(shown, "--retries", "0", configfile="gpu.yaml").finish()
    assert code == 0, told
    seen = []
    for path in shown:
        variables = dict(re.findall("^(\\w+)=(.*)", (workspace / path).read_text(), re.M))
        assert variables["CUDA_VISIBLE_DEVICES"] == variables["SLURM_STEP_GPUS"]
        seen.append(variables["SLURM_STEP_GPUS"])
    assert sorted(seen) == ["0", "1"]


@pytest.mark.parametrize(
    ("resource", "fault"),
    {
        "mem_mb=1000000": "Memory specification can not be satisfied",
        "gpu=3": "Requested node configuration is not available",
        "slurm_partition=nowhere": "invalid partition specified: nowhere",
    }.items(),
)
def test_a_request_that_slurm_refuses_is_told(submit, resource, fault):
    asked = ("--set-resources", f"data:{resource}")
    code, told = submit([DATA], *asked).finish()
    assert code != 0, told
    assert "Error in rule data" in told
    assert fault in told


def test_the_documented_command_tells_why_a_job_waits_forever(submit):
    submitted = submit([DATA], "--set-resources", "data:runtime=2880")
    wait_for(lambda: submitted.jobs())
    (command,) = re.findall("^    (squeue .*)", CLUSTER, re.M)
    wait_for(lambda: "PartitionTimeLimit" in output_of(*shlex.split(command)))
    line = next(x for x in output_of(*shlex.split(command)).splitlines() if "TimeLimit" in x)
    assert "rule_data" in line
    assert "PENDING" in line
    interrupt(submitted)
