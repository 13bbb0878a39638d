"""What scripts/deviation.py measures: Eq. 6's growth on Gaussians, and the committed tables."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import deviation  # noqa: E402

from rdmdc.randomness import generator  # noqa: E402
from rdmdc.records import LabelledImages, PoisonSet  # noqa: E402
from rdmdc.storage.images import save_images, save_poisons  # noqa: E402
from rdmdc.storage.provenance import Provenance  # noqa: E402


@pytest.fixture(scope="module")
def gaussians():
    rows = deviation.gaussian_rows((64, 256), (4.0, 400.0), 3)
    return deviation.means(rows, ["features", "gap", "rate"])


def test_the_deviation_grows_as_the_rate_and_as_the_root_of_the_features(gaussians):
    for _, near in gaussians[gaussians["gap"] == 4].groupby("features"):
        power = deviation.exponent(near["rate"], near["deviation_before"])
        assert power == pytest.approx(1, abs=0.1)
    for _, near in gaussians[(gaussians["gap"] == 4) & (gaussians["rate"] >= 10)].groupby("rate"):
        power = deviation.exponent(near["features"], near["deviation_before"])
        assert power == pytest.approx(0.5, abs=0.1)


def test_the_filter_catches_what_lies_far_and_not_what_lies_near(gaussians):
    recall = gaussians.groupby("gap")["recall"].mean()
    assert recall[400.0] > 0.99
    assert recall[4.0] < 0.7
    far = gaussians[gaussians["gap"] == 400]
    assert (far["deviation_after"] <= far["bound"]).all()


def test_the_spread_is_the_covariances_largest_eigenvalue():
    embeddings = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    largest = torch.linalg.eigvalsh(embeddings.T.cov())[-1]
    assert deviation._top_variance(embeddings) == pytest.approx(float(largest), rel=1e-5)


def test_real_poisons_are_measured_beside_clean_images_of_their_class(train, tmp_path, monkeypatch):
    """From a preset's folder, a row for each rate; poisons of several classes are left out."""
    monkeypatch.setattr(deviation, "BATCH", 20)
    counts = (25, 30, 25)
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    noise = torch.randint(0, 30, (80, 3, 8, 8), generator=generator("script"), dtype=torch.uint8)
    split = LabelledImages(noise, labels, train.class_names, train.normalisation)
    made = Provenance("a stage", {}, "c0de", {}, 0.0)
    save_images(tmp_path / "data" / "train.safetensors", split, made)
    for folder, indices in (("apart", [25, 27, 30, 41]), ("several", [1, 25])):
        board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 200
        pixels = (board + noise[indices]).to(torch.uint8)
        poisons = PoisonSet(torch.tensor(indices), labels[indices], pixels)
        save_poisons(tmp_path / folder / "target=7" / "poisons.safetensors", poisons, made)
    rows = list(deviation.real_rows(tmp_path, (4,), 2))
    assert [(r["condition"], r["target"], r["rate"]) for r in rows] == [
        ("apart", 7, rate) for _ in range(2) for rate in deviation.RATES
    ]
    assert [row["poisons"] for row in rows[:4]] == [0, 1, 2, 4]
    assert all(row["recall"] == 1 and row["deviation_after"] == 0 for row in rows if row["poisons"])
    assert all(row["gap"] > row["variance"] for row in rows)


def test_exponents_are_those_of_powers():
    x = pd.Series([1.0, 2.0, 5.0])
    assert deviation.exponent(x, 3 * x**1.5) == pytest.approx(1.5)


def test_the_figure_is_drawn_from_the_committed_tables(tmp_path):
    tables = [pd.read_csv(deviation.FOLDER / f"{name}.csv") for name in ("gaussians", "real")]
    deviation.figure(*tables, tmp_path / "deviation.png")
    assert (tmp_path / "deviation.png").stat().st_size > 10_000
