"""Feeds mutants of small real files to every reader: python tests/fuzz.py COUNT SEED [READER ...]

A reader may refuse a mutant with an InputError, or return what it returns for the original, or
return another value of a file whose sha256 tells (``changed``). Anything else fails: another
exception, a signal, more than SECONDS or than MEMORY. Mutants run in a worker that takes many; one
that ends it is named, and can be made again with ``mutant(original, reader, seed, index)``.

Readers that run in a child of their own (rows, data sets) run in the worker itself here: it is
their child. A signal or too much time or memory is then ``stopped``: what storage/guarded.py turns
into a refusal.
"""

import io
import json
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 20  # for one mutant, on a machine that does other things too
MEMORY = 1 << 30  # bytes that a worker may allocate beyond what it has after its imports
EXTREMES = (0, 1, -1, 127, 2**15 - 1, 2**31 - 1, -(2**31), 10**12, 2**63 - 1, -(2**63))
UNGUARDED = ("images", "target", "poisons", "synthetic set", "weights", "sidecar")
IMAGES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")


# --- mutants ---------------------------------------------------------------------------------


def mutant(original, reader, seed, index):
    """One to four mutations, of which the half are near an end, where headers and footers are."""
    draw = random.Random(f"{seed}/{reader}/{index}")
    content = bytearray(original)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if content:
            draw.choice(MUTATIONS)(content, draw)
    return bytes(content)


def place(content, draw):
    near = min(len(content), draw.choice((64, 512, 4096)))
    at = draw.randrange(near)
    return draw.choice((draw.randrange(len(content)), at, len(content) - 1 - at))


def block(content, draw):
    start = place(content, draw)
    return start, min(len(content), start + draw.choice((1, 2, 4, 8, 64, 512)))


def flip(content, draw):
    content[place(content, draw)] ^= 1 << draw.randrange(8)


def byte(content, draw):
    content[place(content, draw)] = draw.randrange(256)


def truncate(content, draw):
    del content[place(content, draw) :]


def zero(content, draw):
    start, end = block(content, draw)
    content[start:end] = bytes(end - start)


def remove(content, draw):
    start, end = block(content, draw)
    del content[start:end]


def duplicate(content, draw):
    start, end = block(content, draw)
    content[start:start] = content[start:end]


def move(content, draw):
    start, end = block(content, draw)
    at = place(content, draw)
    content[at:at] = content[start:end]


def insert(content, draw):
    start = place(content, draw)
    content[start:start] = draw.randbytes(draw.choice((1, 4, 64)))


def extreme(content, draw):
    """A field of 1, 2, 4 or 8 bytes with the largest, the smallest or a huge number."""
    start, width = place(content, draw), draw.choice((1, 2, 4, 8))
    number = draw.choice(EXTREMES) % (1 << 8 * width)
    content[start : start + width] = number.to_bytes(width, draw.choice(("little", "big")))


def digits(content, draw):
    """A number in text, as JSON and safetensors have them, with another one."""
    at = [i for i, value in enumerate(content) if 48 <= value < 58]
    if at:
        start = draw.choice(at)
        content[start : start + 1] = str(draw.choice(EXTREMES)).encode()


MUTATIONS = (flip, byte, truncate, zero, remove, duplicate, move, insert, extreme, digits)


# --- readers ---------------------------------------------------------------------------------


class Specimen:
    """A file, and what reads it; ``value`` gives what == compares of that."""

    def __init__(self, path, value):
        self.path, self.value, self.original = path, value, path.read_bytes()
        self.expected = value()


def readers():
    """Name to a function of a folder that makes the specimen."""
    import kinds

    return {
        **{kind: lambda folder, kind=kind: artifact(kind, folder) for kind in kinds.KINDS},
        "sidecar": sidecar,
        "parquet data": parquet,
        "embedded data": embedded,
        **{form: lambda folder, form=form: image(form, folder) for form in IMAGES},
        "annotations": annotations,
        "MNIST": mnist,
    }


def artifact(kind, folder):
    from kinds import KINDS, OPTIONS, bits

    from rdmdc.storage.provenance import Provenance

    save, load, record = KINDS[kind]
    save(folder / kind, record, Provenance("a stage", OPTIONS, "c0de", {}, 0.0))
    return Specimen(folder / kind, lambda: bits(load(folder / kind)))


def sidecar(folder):
    """The sidecar of a target; what the artifact and its inputs are compared with."""
    from kinds import KINDS, OPTIONS

    from rdmdc.storage import provenance

    save, _, record = KINDS["target"]
    (folder / "input").write_bytes(b"what it is made from")
    begun = provenance.Provenance.begin("a stage", OPTIONS, "c0de", [folder / "input"])
    save(folder / "target", record, begun)
    path = provenance.sidecar_of(folder / "target")

    def value():
        said = provenance.read(path)
        inputs = {str(Path(name)): digest for name, digest in said.inputs.items()}  # a//b is a/b
        return said.artifact, said.bytes, said.sha256, inputs

    return Specimen(path, value)


def dataset(folder, **options):
    """Both splits that the options describe."""
    from test_datasets import COMMON

    from rdmdc.datasets import decoding as datasets

    def value():
        splits = datasets.load({**COMMON, **options})
        return [
            (s.pixels.numpy().tobytes(), s.labels.tolist(), s.class_names, s.normalisation)
            for s in splits
        ]

    return value


def columns(folder):
    paths = {part: str(folder / f"{part}.parquet") for part in ("train", "test")}
    names = {"image_column": "image", "label_column": "label", "class_names": None}
    return {"source": "parquet", **names, **paths}


def parquet(folder):
    """Compressed, with a dictionary, two row groups and the hub's metadata."""
    import pyarrow.parquet as pq
    import test_datasets as made

    pictures = [made.encoded(made.image(i), ("PNG", "JPEG")[i % 2]) for i in range(8)]
    table = made.table(pictures, [0, 1, 2, 0, 1, 2, 0, 1], made.hub(["ant", "bee", "cat"]))
    for part in ("train", "test"):
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=5)
    return Specimen(folder / "train.parquet", dataset(folder, **columns(folder)))


def embedded(folder):
    """A dozen rows of the data set that the package brings, as its script writes them."""
    import pyarrow.parquet as pq

    import rdmdc

    table = pq.read_table(Path(rdmdc.__file__).parent / "datasets" / "emoji" / "emoji-test.parquet")
    few = table.take([i * len(table) // 14 for i in range(14)])
    for part in ("train", "test"):
        pq.write_table(few, folder / f"{part}.parquet", compression="zstd", use_dictionary=False)
    return Specimen(folder / "train.parquet", dataset(folder, **columns(folder)))


def image(form, folder):
    """One image of a class folder."""
    import test_datasets as made

    for part, name, seed in (
        ("train", "a", 0),
        ("train", "b", 1),
        ("test", "a", 2),
        ("test", "b", 3),
    ):
        (folder / part / name).mkdir(parents=True)
        made.image(seed, (24, 24)).save(folder / part / name / "0.png")
    path = folder / "train" / "a" / "0.png"
    buffer = io.BytesIO()
    made.image(0, (24, 24)).save(buffer, form)
    path.write_bytes(buffer.getvalue())
    paths = {part: str(folder / part) for part in ("train", "test")}
    return Specimen(path, dataset(folder, source="folder", layout="class_folders", **paths))


def annotations(folder):
    """Tiny ImageNet's list of its validation images."""
    import test_datasets as made

    for name in ("n01", "n02"):
        (folder / "train" / name / "images").mkdir(parents=True)
        made.image(int(name[1:])).save(folder / "train" / name / "images" / "0.JPEG")
    (folder / "val" / "images").mkdir(parents=True)
    for i in range(4):
        made.image(i).save(folder / "val" / "images" / f"val_{i}.JPEG")
    path = folder / "val" / "val_annotations.txt"
    path.write_text("".join(f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t0\t5\t5\n" for i in range(4)))
    paths = {"train": str(folder / "train"), "test": str(folder / "val")}
    return Specimen(path, dataset(folder, source="folder", layout="tiny_imagenet", **paths))


def mnist(folder):
    """The only files of torchvision's that it reads without an md5."""
    import urllib.error

    import numpy as np
    from test_datasets import idx

    def urlopen(*args, **kwargs):
        raise urllib.error.URLError("no network")

    import urllib.request

    urllib.request.urlopen = urlopen
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 4, 4), dtype=np.uint8)
    for part in ("train", "t10k"):
        idx(raw / f"{part}-images-idx3-ubyte", pixels)
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    options = {"source": "torchvision", "name": "MNIST", "root": str(folder), "color": "grey"}
    return Specimen(raw / "train-images-idx3-ubyte", dataset(folder, **options))


# --- the worker ------------------------------------------------------------------------------


def work(count, seed, starts):
    """Mutants of each reader from a start on: the two in a line before each, JSON after it."""
    import torch

    from rdmdc.storage import rows

    torch.set_num_threads(1)
    rows.guarded = lambda function, *arguments, **limits: function(*arguments)
    warnings.simplefilter("ignore")
    say, sys.stdout = sys.stdout, sys.stderr  # torchvision prints progress
    made = readers()
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
    for reader, start in starts.items():
        with tempfile.TemporaryDirectory() as folder:
            specimen = made[reader](Path(folder))
            for index in range(start, count):
                print(json.dumps([reader, index]), file=say, flush=True)
                print(json.dumps(judged(specimen, reader, seed, index)), file=say, flush=True)


def judged(specimen, reader, seed, index):
    """What became of a mutant, and for a failure why."""
    from rdmdc.errors import InputError

    content = mutant(specimen.original, reader, seed, index)
    specimen.path.unlink()  # the old file may be mapped
    specimen.path.write_bytes(content)
    try:
        value = specimen.value()
    except InputError:
        return "refused", ""
    except MemoryError:
        return "memory", traceback.format_exc()
    except BaseException:
        return "exception", traceback.format_exc()
    if value == specimen.expected:
        return "equal", ""
    told = told_by_verify if reader == "sidecar" else told_by_sha256
    return ("changed", "") if told(specimen) else ("wrong", repr(value)[:500])


def told_by_verify(specimen):
    """Whether `rdmdc verify` would find that a sidecar and its artifact do not fit."""
    from rdmdc.storage import provenance, verify

    artifact = specimen.path.with_name(specimen.path.name.removesuffix(provenance.SUFFIX))
    both = (specimen.path, artifact)
    return any(list(verify.findings(path, verify._sha256)) for path in both)


def told_by_sha256(specimen):
    """Whether a job that takes the file as an input, or verify, would notice."""
    from rdmdc.errors import ArtifactError
    from rdmdc.storage import provenance

    if not provenance.sidecar_of(specimen.path).exists():  # of a data set: its user's files
        import hashlib

        return provenance.sha256(specimen.path) != hashlib.sha256(specimen.original).hexdigest()
    try:
        provenance.verified(specimen.path)
    except ArtifactError:
        return True
    return False


# --- the runner ------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of the mutants of a reader: counts, (index, what, why) of failures, seconds."""

    counts: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)
    slowest: float = 0.0

    def add(self, index, what, why, seconds, guarded):
        if guarded and what in ("crash", "hang", "memory"):
            what = f"stopped ({what})"
        self.counts[what] += 1
        self.slowest = max(self.slowest, seconds)
        if what not in ("refused", "equal", "changed") and not what.startswith("stopped"):
            self.failures.append((index, what, why))

    def __str__(self):
        shown = ", ".join(f"{n} {what}" for what, n in sorted(self.counts.items()))
        return f"{shown}; slowest {self.slowest:.2f} s"


def fuzz(count, seed, names):
    """The outcome of so many mutants of each reader, by its name."""
    outcomes = {name: Outcome() for name in names}
    while left := {n: o.counts.total() for n, o in outcomes.items() if o.counts.total() < count}:
        worker = subprocess.Popen(
            [sys.executable, __file__, "--work", str(count), str(seed), json.dumps(left)],
            bufsize=0,  # select does not see what a buffer holds
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        reader, what = None, "crash"
        while True:
            # what a specimen needs to be made is not a mutant's time
            if not select.select([worker.stdout], [], [], SECONDS if reader else 180)[0]:
                what = "hang"
                break
            line = worker.stdout.readline()
            if not line:
                break
            said = json.loads(line)
            if reader is None:
                (reader, index), begun = said, time.monotonic()
            else:
                outcomes[reader].add(
                    index, *said, time.monotonic() - begun, reader not in UNGUARDED
                )
                reader = None
        worker.kill()
        code = worker.wait()
        worker.stdout.close()
        if reader is not None:
            seconds = time.monotonic() - begun
            outcomes[reader].add(index, what, f"exit code {code}", seconds, reader not in UNGUARDED)
        elif code != 0:
            raise RuntimeError(f"the worker ended between mutants with {code}: {left}")
    return outcomes


def main(count, seed, *names):
    """Print the outcomes; 1 where there are failures."""
    outcomes = fuzz(int(count), int(seed), names or list(readers()))
    for reader, outcome in outcomes.items():
        print(f"{reader}: {outcome}")
        for index, what, why in outcome.failures[:20]:
            print(f"  mutant {index}: {what}: {why.strip()[-700:]}")
    return int(any(outcome.failures for outcome in outcomes.values()))


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        sys.exit(main(*sys.argv[1:]))
