"""Running the workflow on a preset: the same rules, caches and checkpoints as for any other."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rdmdc
from rdmdc.errors import InputError

POLL = 0.5  # seconds between looks at the logs


class WorkflowError(InputError):
    """The workflow cannot run or has failed; the message names the log."""


def snakefile() -> Path:
    """The workflow's Snakefile: of the checkout, or where pip has put it."""
    beside = Path(rdmdc.__file__).parents[1] / "Snakefile"
    installed = Path(sysconfig.get_path("data")) / "share" / "rdmdc" / "Snakefile"
    for path in (beside, installed):
        if path.is_file():
            return path
    raise WorkflowError(f"{installed}: no such file; install the package again")


def command(preset: Path, work: Path, cores: int, targets: Sequence[str]) -> list[str]:
    """The command that runs the workflow, as a person can run it too."""
    return [
        *(sys.executable, "-m", "snakemake", *targets),
        *("--snakefile", str(snakefile()), "--configfile", str(preset.absolute())),
        *("--directory", str(work.absolute()), "--cores", str(cores)),
        *("--rerun-incomplete", "--show-failed-logs", "--nolock", "--resources", "gpu=1"),
        *("--max-checksum-file-size", "2GB", "--quiet", "rules"),
    ]


def run(preset: Path, work: Path, cores: int, targets: Sequence[str]) -> None:
    """Run the workflow to the targets, showing what the jobs say of their progress.

    What is there already and still valid is not made again; a job that was killed goes on from its
    last checkpoint. Raises WorkflowError where a job fails.
    """
    log = work / "snakemake.log"
    folder = str(Path(rdmdc.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
    with _alone(work) as lock, open(log, "w") as file:
        words = command(preset, work, cores, targets)
        env = {**os.environ, "PYTHONPATH": paths}
        begun = time.time() - 1
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env=env, pass_fds=(lock,)
        )
        try:
            shown: dict[Path, str] = {}
            while process.poll() is None:
                time.sleep(POLL)
                _show(work, shown, begun)
            _show(work, shown, begun)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise WorkflowError(f"{_fault(log)}; all that was said is in {log}")


def _show(work: Path, shown: dict[Path, str], begun: float) -> None:
    """Print the latest line of each log that has a new one since this run began."""
    for path in sorted(work.glob("results/*/logs/**/*.log")):
        try:
            if path.stat().st_mtime < begun:
                continue
            last = path.read_text(errors="replace").strip().rsplit("\n", 1)[-1]
        except OSError:
            continue
        if last and shown.get(path) != last:
            shown[path] = last
            print(last, file=sys.stderr, flush=True)


def _fault(log: Path) -> str:
    """The line in which a stage told its fault, else the last of the log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("rdmdc stage ", "WorkflowError"))]
    return (told or lines or ["the workflow ended without a word"])[-1]


@contextmanager
def _alone(work: Path) -> Iterator[int]:
    """Only one run in a folder at a time; yields the lock's descriptor.

    A workflow that inherits it keeps the folder locked where this process alone is killed.
    """
    work.mkdir(parents=True, exist_ok=True)
    with open(work / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkflowError(f"{work}: another run is under way there; wait for it") from error
        yield file.fileno()
