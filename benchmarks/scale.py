"""`make bench-scale`: how time and memory of this package grow, one size at a time.

Each point is a process of its own, for its peak memory. Random pixels, plain DM, one iteration of
condensation (median of three), from the base: 10 classes, M 10, N 128, width 32, side 32.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from rdmdc.checkpoints import NoCheckpoints
from rdmdc.condensers.dm import Options, dm
from rdmdc.condensers.task import Calibration, Task
from rdmdc.estimators.mean import mean
from rdmdc.models import running
from rdmdc.networks.convnet import ConvNet
from rdmdc.records import LabelledImages, Normalisation
from rdmdc.storage.images import load_images, save_images
from rdmdc.storage.provenance import Provenance
from rdmdc.training_data import TrainingData

ROOT = Path(__file__).parent.parent
STRATEGY = ("color", "crop", "cutout", "flip", "scale", "rotate")
BASE = {"classes": 10, "ipc": 10, "batch": 128, "width": 32, "side": 32, "images": 5000}
SWEEPS = {
    "classes": (10, 50, 200),
    "ipc": (1, 10, 50),
    "batch": (64, 128, 256, 512),
    "width": (16, 32, 64, 128),
    "side": (32, 64),
    "images": (10**4, 10**5, 10**6),
}
CELLS = (25, 250, 2500)


def quiet(done: int, total: int, loss: float) -> None:
    """No progress."""


def point(sizes: dict[str, int], threads: int) -> dict[str, float]:
    """Seconds an iteration and the peak of this process's own memory, files' maps left out."""
    torch.set_num_threads(threads)
    classes, side = sizes["classes"], sizes["side"]
    network = ConvNet(3, side, classes, sizes["width"], 4 if side == 64 else 3)
    if reason := running.compiling(True, "cpu", network):
        raise SystemExit(f"bench-scale: {reason}")
    each = max(sizes["batch"], sizes["images"] // classes)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder, "train.safetensors")
        writer = multiprocessing.get_context("spawn").Process(
            target=_write, args=(path, classes, each, side)
        )
        writer.start()
        writer.join()
        train = load_images(path)
        before = _anonymous()
        options = Options(sizes["ipc"], sizes["batch"], 1, 1.0, 0.5, "noise", 10)
        methods = {"dm": Calibration(mean, None)}
        seconds = []
        for run in range(4):
            start = time.perf_counter()
            task = Task(TrainingData(train), network, STRATEGY, methods, 0, run, "cpu")
            dm(task, options, quiet, NoCheckpoints())
            seconds.append(time.perf_counter() - start)
        return {
            "seconds": statistics.median(seconds[1:]),
            "memory_mb": (_anonymous() - before) / 1e6,
            "file_mb": path.stat().st_size / 1e6,
        }


def _anonymous() -> int:
    """Bytes of memory that is not a file's."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(s for s in status.read_text().splitlines() if s.startswith("RssAnon"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(path: Path, classes: int, each: int, side: int) -> None:
    """A split of repeated random images, in the artifact's form; in a process of its own."""
    block = np.random.default_rng(0).integers(0, 256, (1000, 3, side, side), dtype=np.uint8)
    pixels = torch.from_numpy(np.resize(block, (classes * each, 3, side, side)))
    labels = torch.arange(classes).repeat_interleave(each)
    names = tuple(f"class {c}" for c in range(classes))
    split = LabelledImages(pixels, labels, names, Normalisation((0.5,) * 3, (0.25,) * 3))
    provenance = Provenance("bench-scale", {}, "", {}, time.monotonic())
    save_images(path, split, provenance)


def dry_run(cells: int) -> float:
    """Seconds of Snakemake's dry run of a preset with so many cells (targets × methods)."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["preset"] = "scale"
    config["conditions"] = {name: config["conditions"][name] for name in ("clean", "dm_112")}
    config["panels"] = {"five": ["dm", "median", "trimmed", "truncated", "rdm_dc"]}
    for condition in config["conditions"].values():
        condition["panels"] = ["five"]
    config["tables"] = {"table2": config["tables"]["table2"]}
    config["tables"]["table2"]["rows"][0]["methods"] = config["panels"]["five"]
    config["targets"] = list(range(cells // 5))
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder, "scale.yaml")
        preset.write_text(yaml.safe_dump(config))
        command = [str(Path(sys.executable).with_name("snakemake")), "-n", "--quiet", "all"]
        command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", folder]
        command += ["--cores", "1", "--configfile", str(preset)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure each point in a process, then the dry runs; print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/scale.csv"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--point", type=json.loads, help="one point's sizes; for its process")
    args = parser.parse_args()
    if args.point:
        print(json.dumps(point(args.point, args.threads)))
        return
    rows = []
    for name, values in SWEEPS.items():
        for value in values:
            sizes = json.dumps(BASE | {name: value})
            command = [sys.executable, __file__, "--point", sizes, "--threads", str(args.threads)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"size": name, "value": value, **json.loads(run.stdout)})
            print(rows[-1], flush=True)
    for cells in CELLS:
        rows.append({"size": "cells, dry run", "value": cells, "seconds": dry_run(cells)})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
