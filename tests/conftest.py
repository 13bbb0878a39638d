"""A tiny labelled world: three classes of some dozen 8 × 8 images, networks of width 4."""

import pytest
import torch
from kinds import KINDS, OPTIONS

from rdmdc.checkpoints import NoCheckpoints
from rdmdc.models import running
from rdmdc.networks.convnet import ConvNet
from rdmdc.records import LabelledImages, Normalisation, Target
from rdmdc.storage.provenance import Provenance

CLASSES = ("ant", "bee", "cat")
NORMALISATION = Normalisation((0.5, 0.4, 0.6), (0.2, 0.3, 0.25))


def _split(seed, counts):
    """A pattern for each class, noise for each image; some pixels at 0 and at 255."""
    patterns = torch.randint(-40, 296, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    pixels = (patterns[labels] + 60 * noise).round().clamp(0, 255).to(torch.uint8)
    return LabelledImages(pixels, labels, CLASSES, NORMALISATION)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """On images this small threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def train():
    """Classes of different sizes, so that a wrong offset or count shows."""
    return _split(1, (12, 14, 13))


@pytest.fixture(scope="session")
def test():
    return _split(2, (10, 7, 8))


@pytest.fixture(scope="session")
def network():
    return ConvNet(channels=3, side=8, classes=3, width=4, depth=2)


@pytest.fixture(scope="session")
def target(test):
    """An ant that is to be taken for a bee."""
    return Target(seed=4, index=3, pixels=test.pixels[3].clone(), true_label=0, adversarial_label=1)


@pytest.fixture(scope="session")
def quiet():
    """Progress that nobody looks at."""
    return lambda done, total, loss: None


@pytest.fixture(scope="session")
def never():
    """Checkpoints of a job that begins at the start and is never stopped."""
    return NoCheckpoints()


@pytest.fixture(scope="module", autouse=True)
def plain_again():
    """Each file of tests begins uncompiled, whatever ran in the process before."""
    running.compiling(False, "cpu", None)


@pytest.fixture
def compiled():
    """ConvNets of a width of 16 or more run on the kernels in C; skipped where they cannot."""
    wide = ConvNet(channels=3, side=8, classes=3, width=16, depth=2)
    if reason := running.compiling(True, "cpu", wide):
        pytest.skip(f"cannot compile: {reason}")
    yield
    running.compiling(False, "cpu", None)


@pytest.fixture
def provenance(tmp_path):
    """Of a job with one input, which lies with the artifacts in a folder as the workflow's are."""
    folder = tmp_path / "target=3"
    folder.mkdir()
    (folder / "input").write_bytes(b"what it is made from")
    return Provenance.begin("a stage", OPTIONS, "c0de", [folder / "input"])


@pytest.fixture
def saved(tmp_path, provenance):
    """Saves the example of a kind; its path."""

    def save(kind, name="artifact", record=None):
        path = tmp_path / "target=3" / name
        KINDS[kind][0](path, KINDS[kind][2] if record is None else record, provenance)
        return path

    return save
