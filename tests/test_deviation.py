"""Rows of the trace against figures worked out by hand."""

from math import isnan, nan, sqrt

import pytest
import torch

from rdmdc.condensers.deviation import trace_rows
from rdmdc.estimators.estimate import Drop, Estimate
from rdmdc.estimators.mean import mean
from rdmdc.estimators.truncated_mean import truncated_mean
from rdmdc.rates import RateError

# two clean embeddings, mean (2, 0), and two poisons; the plain mean of all is (2.5, 2)
EMBEDDINGS = [[1.0, 0.0], [3.0, 4.0], [3.0, 0.0], [3.0, 4.0]]
POISONED = [False, True, False, True]
BEFORE = {"deviation_before": 2.5, "shift_before": sqrt(0.25 + 4)}  # ‖(6, 8)‖ / 4
MEASURES = [f"{what}_{when}" for what in ("deviation", "shift") for when in ("before", "after")]
MEASURES += ["distance_after", "recall", "precision"]


def largest(classes, embeddings):
    """A stand-in whose value is the greatest coordinates: (3, 0) without the poisons."""
    return Estimate(embeddings.amax(1), None)


def row_of(kept, poisoned=POISONED, estimator=largest):
    """The row for the value (2, 2), and kept."""
    estimate = Estimate(
        torch.tensor([[2.0, 2.0]]), None if kept is None else torch.tensor([kept]).bool()
    )
    (row,) = trace_rows(
        torch.tensor([EMBEDDINGS]), torch.tensor([poisoned]), estimate, [0], estimator
    )
    return row


@pytest.mark.parametrize(
    ("kept", "recall", "precision", "after"),
    [
        ([1, 1, 0, 0], 0.5, 0.5, 2.5),  # one of each: ‖(3, 4)‖ / 2
        ([1, 0, 1, 0], 1, 1, 0),  # all caught
        ([1, 0, 0, 0], 1, 2 / 3, 0),  # all caught, and a clean one
        ([0, 1, 0, 1], 0, 0, 5),  # none caught, clean ones dropped instead
        ([1, 1, 0, 1], 0, 0, 10 / 3),
        ([1, 1, 1, 1], 0, nan, 2.5),  # nothing dropped
        (None, nan, nan, nan),  # nothing whole dropped or kept
    ],
)
def test_row(kept, recall, precision, after):
    expected = {
        "poisons": 2,
        "kept": -1 if kept is None else sum(kept),
        "recall": recall,
        "precision": precision,
        "deviation_after": after,
        "shift_after": sqrt(5),  # from (2, 2) to (3, 0)
        "distance_after": 2,  # from (2, 2) to (2, 0)
        **BEFORE,
    }
    row = row_of(kept)
    assert row == pytest.approx(expected, nan_ok=True)
    assert all(type(value) in (int, float) for value in row.values())


@pytest.mark.parametrize("poisoned", [[False] * 4, [True] * 4])
def test_no_poisons_or_nothing_else(poisoned):
    row = row_of([1, 1, 0, 1], poisoned)
    assert (row["poisons"], row["kept"]) == (sum(poisoned), 3)
    assert all(isnan(row[name]) for name in MEASURES)
    assert row.keys() == row_of([1, 1, 0, 1]).keys()


def test_shift_is_not_defined_where_the_rest_is_too_small_to_filter():
    def failing(classes, embeddings):
        raise RateError("none left")

    row = row_of([1, 1, 0, 0], estimator=failing)
    assert isnan(row["shift_after"])
    assert (row["recall"], row["distance_after"]) == (0.5, 2)


def test_each_class_is_estimated_again_by_itself_without_its_poisons():
    embeddings = torch.arange(18.0).view(3, 3, 2).requires_grad_()
    poisoned = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    seen = []

    def noted(classes, clean):
        seen.append((list(classes), clean.tolist()))
        return mean(clean, [], None)

    estimate = mean(embeddings, [], None)
    rows = trace_rows(embeddings, poisoned, estimate, [7, 8, 9], noted)
    assert seen == [([7], [[[0, 1], [4, 5]]]), ([9], [[[16, 17]]])]
    assert [row["poisons"] for row in rows] == [1, 0, 2]
    for row in rows[::2]:  # of the mean itself, before and after are the same
        assert row["shift_after"] == pytest.approx(row["shift_before"])
        assert row["distance_after"] == pytest.approx(row["shift_before"])
        assert row["deviation_after"] == pytest.approx(row["deviation_before"])


def test_a_filter_that_catches_all_leaves_nothing():
    """Poisons far off: truncated mean drops them, and its shift is what its own filter does."""
    drawn = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
    drawn[0, :4] += 100
    poisoned = torch.arange(20)[None] < 4

    def estimator(classes, vectors):
        return truncated_mean(vectors, [], Drop("1/5"))

    (row,) = trace_rows(drawn, poisoned, estimator([0], drawn), [0], estimator)
    assert (row["recall"], row["precision"], row["deviation_after"]) == (1, 1, 0)
    again = estimator([0], drawn[:, 4:]).value[0]
    assert row["shift_after"] == pytest.approx(float((drawn[0, 4:].mean(0) - again).norm()))
    assert row["shift_before"] > 10 * row["shift_after"]
