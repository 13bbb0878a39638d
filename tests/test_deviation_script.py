"""What scripts/deviation.py measures: Eq. 6's growth on Gaussians, and the committed tables."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import deviation  # noqa: E402


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


def test_exponents_are_those_of_powers():
    x = pd.Series([1.0, 2.0, 5.0])
    assert deviation.exponent(x, 3 * x**1.5) == pytest.approx(1.5)


def test_the_figure_is_drawn_from_the_committed_tables(tmp_path):
    tables = [pd.read_csv(deviation.FOLDER / f"{name}.csv") for name in ("gaussians", "real")]
    deviation.figure(*tables, tmp_path / "deviation.png")
    assert (tmp_path / "deviation.png").stat().st_size > 10_000
