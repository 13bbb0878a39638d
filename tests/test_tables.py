"""Tables against plain Python, scipy's quantiles and sums by hand; every error."""

import io
import itertools
import statistics
from collections.abc import Callable, Sequence
from math import comb, sin
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from rdmdc.reporting import table_texts, tables


def frame(fooled: dict[tuple[str, str], Sequence], architecture: str = "convnet") -> pd.DataFrame:
    """Scores of (condition, method) → booleans (targets, runs, networks); targets are 10, 11 …"""
    rows = []
    for (condition, method), values in fooled.items():
        array = np.array(values, dtype=bool)
        for (t, r, n), hit in np.ndenumerate(array):
            margin = (0.3 if hit else -0.5) + 0.2 * sin(7 * t + 3 * r + n)
            rows.append(
                {
                    "condition": condition,
                    "target": 10 + t,
                    "run": r,
                    "method": method,
                    "architecture": architecture,
                    "network": n,
                    "true_label": t % 3,
                    "adversarial_label": t % 3 + 1,
                    "predicted_label": t % 3 + 1 if hit else t % 3,
                    "adversarial_probability": (1 + margin) / 2,
                    "true_probability": (1 - margin) / 2,
                    "margin": margin,
                    "accuracy": 0.5 + 0.02 * r + 0.003 * n + 0.01 * len(method),
                }
            )
    return pd.DataFrame(rows)


def entry(method: str = "dm", **more: object) -> dict:
    return {
        "condition": "dm64",
        "clean": "clean",
        "method": method,
        "label": method.upper(),
        "architecture": "convnet",
        "attack": "DM Poison",
        "eps": 64,
        **more,
    }


def example(targets: int = 5, runs: int = 5, networks: int = 3, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return frame(
        {
            (condition, method): draw.random((targets, runs, networks)) < rate
            for condition, method, rate in (
                ("dm64", "dm", 0.7),
                ("dm64", "rdm", 0.3),
                ("clean", "dm", 0.2),
                ("clean", "rdm", 0.1),
            )
        }
    )


def plain(scores: pd.DataFrame, condition: str, method: str) -> dict[str, float]:
    """The same quantities from a list of dicts, without pandas or scipy.stats.binomtest."""
    rows = [
        row
        for row in scores.to_dict("records")
        if row["condition"] == condition and row["method"] == method
    ]
    cells: dict = {}
    for row in rows:
        cells.setdefault((row["target"], row["run"]), []).append(row)
    values = {
        key: sum(r["predicted_label"] == r["adversarial_label"] for r in cell) / len(cell)
        for key, cell in cells.items()
    }
    accuracies = [statistics.fmean(r["accuracy"] for r in cell) for cell in cells.values()]
    targets = sorted({target for target, _ in cells})
    hits = sum(
        statistics.fmean(v for (t, _), v in values.items() if t == target) > 0.5 + 1e-9
        for target in targets
    )
    n = len(targets)
    return {
        "accuracy_mean": 100 * statistics.fmean(accuracies),
        "accuracy_std": 100 * statistics.pstdev(accuracies),
        "asr_mean": 100 * statistics.fmean(values.values()),
        "asr_std": 100 * statistics.pstdev(values.values()),
        "asr_low": 100 * beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0,
        "asr_high": 100 * beta.ppf(0.975, hits + 1, n - hits) if hits < n else 100.0,
        "targets_hit": hits,
        "margin": statistics.fmean(
            statistics.fmean(r["margin"] for r in cell) for cell in cells.values()
        ),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["dm", "rdm"])
def test_table_equals_a_plain_computation(method: str, seed: int) -> None:
    scores = example(seed=seed)
    row = tables.table(scores, [entry(method)], "dm").iloc[0]
    attacked, clean = plain(scores, "dm64", method), plain(scores, "clean", method)
    for name, value in attacked.items():
        assert row[name] == pytest.approx(value, abs=1e-9), name
    for name in ("asr_mean", "asr_std", "asr_low", "asr_high", "targets_hit", "accuracy_mean"):
        assert row[f"clean_{name}"] == pytest.approx(clean[name], abs=1e-9), name
    assert row["clean_margin"] == pytest.approx(clean["margin"])
    by_run = [100 * (0.5 + 0.02 * r + 0.003 + 0.01 * len(method)) for r in range(5)]
    assert row["clean_accuracy_std"] == pytest.approx(statistics.pstdev(by_run))
    assert (row["targets"], row["runs"], row["networks"]) == (5, 5, 3)


def test_sixty_per_cent_of_25_cells_is_48_99() -> None:
    hits = [[[target < 3]] * 5 for target in range(5)]
    scores = frame({("dm64", "dm"): hits, ("clean", "dm"): np.zeros((5, 5, 1))})
    line = table_texts.csv(tables.table(scores, [entry()], "dm")).splitlines()
    row = dict(zip(line[0].split(","), line[1].split(","), strict=True))
    assert (row["asr_mean"], row["asr_std"]) == ("60.00", "48.99")
    assert (row["asr_low"], row["asr_high"], row["targets_hit"]) == ("14.66", "94.73", "3")
    assert (row["clean_asr_mean"], row["clean_asr_high"]) == ("0.00", "52.18")


def test_exactly_half_is_no_hit() -> None:
    """Nine of 18 networks: the mean of these thirds is 0.5000000000000001 in floats."""
    half = [[0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    more = [[1, 0, 0], *half[1:]]
    assert np.mean(half, axis=1).mean() > 0.5
    scores = frame({("dm64", "dm"): [half, more], ("clean", "dm"): np.zeros((2, 6, 3))})
    assert tables.table(scores, [entry()], "dm")["targets_hit"].tolist() == [1]


@pytest.mark.parametrize(("dm_only", "this_only"), [(0, 0), (3, 0), (6, 1), (2, 5), (4, 4)])
def test_paired_test_is_a_binomial_sum(dm_only: int, this_only: int) -> None:
    both = 2
    dm = [True] * dm_only + [False] * this_only + [True] * both
    this = [False] * dm_only + [True] * this_only + [True] * both
    zeros = np.zeros((len(dm), 1, 1))
    scores = frame(
        {
            ("dm64", "dm"): np.array(dm)[:, None, None],
            ("dm64", "rdm"): np.array(this)[:, None, None],
            ("clean", "dm"): zeros,
            ("clean", "rdm"): zeros,
        }
    )
    row = tables.table(scores, [entry("rdm")], "dm").iloc[0]
    n, small = dm_only + this_only, min(dm_only, this_only)
    p = min(1.0, 2 * sum(comb(n, k) for k in range(small + 1)) / 2**n)
    assert row["p_vs_dm"] == pytest.approx(p)
    assert (row["hit_by_dm_only"], row["hit_by_this_only"]) == (dm_only, this_only)


def test_no_p_for_dm_itself_or_without_dm_in_the_condition() -> None:
    scores = example()
    itself = tables.table(scores, [entry("dm")], "dm")
    lone = scores[(scores["condition"] == "clean") | (scores["method"] == "rdm")]
    without = tables.table(lone, [entry("rdm")], "dm")
    for table in (itself, without):
        assert table[["p_vs_dm", "hit_by_dm_only", "hit_by_this_only"]].isna().all(axis=None)
        assert table_texts.csv(table).splitlines()[1].endswith(",,,,5,5,3")


@st.composite
def boxes(draw: Callable) -> dict[tuple[str, str], np.ndarray]:
    shape = tuple(draw(st.integers(1, high)) for high in (4, 3, 3))
    cells = st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    keys = itertools.product(("dm64", "clean"), ("dm", "rdm"))
    return {key: np.array(draw(cells)).reshape(shape) for key in keys}


@settings(deadline=None, max_examples=15)
@given(boxes(), st.randoms(use_true_random=False))
def test_invariants(fooled: dict, random: Random) -> None:
    scores = frame(fooled)
    rows = [entry("dm"), entry("rdm")]
    table = tables.table(scores, rows, "dm")
    for row in table.to_dict("records"):
        box = fooled["dm64", row["method"]]
        hits = int((box.mean((1, 2)) > 0.5 + 1e-9).sum())
        assert row["asr_mean"] == pytest.approx(100 * box.mean())
        assert row["targets_hit"] == hits
        assert row["asr_low"] <= 100 * hits / len(box) <= row["asr_high"]
        assert 0 <= row["asr_std"] <= 50 + 1e-9
        assert (row["targets"], row["runs"], row["networks"]) == box.shape
    dm, rdm = table["targets_hit"]
    assert dm - rdm == table["hit_by_dm_only"][1] - table["hit_by_this_only"][1]
    mirrored = tables.table(scores, rows, "rdm").iloc[0]
    assert mirrored["p_vs_dm"] == table["p_vs_dm"][1]
    assert mirrored["hit_by_dm_only"] == table["hit_by_this_only"][1]
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = scores.iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(tables.table(shuffled, rows, "dm"), table, check_exact=True)


def test_other_conditions_and_the_clean_rows_of_other_targets_do_not_matter() -> None:
    scores = example(targets=4)
    other = scores[scores["condition"] == "dm64"].assign(condition="direct", run=7, network=9)
    more = scores[(scores["condition"] == "clean") & (scores["target"] == 10)].assign(target=99)
    other = other.drop_duplicates(tables.KEY)
    rows = [entry("rdm")]
    pd.testing.assert_frame_equal(
        tables.table(pd.concat([scores, other, more]), rows, "dm"),
        tables.table(scores, rows, "dm"),
    )


def test_rows_keep_their_order_and_labels() -> None:
    rows = [entry("rdm", label="RDM-DC", eps=None), entry("dm", eps=128)]
    table = tables.table(example(), rows, "dm")
    assert list(table.columns) == tables.COLUMNS
    assert table["label"].tolist() == ["RDM-DC", "DM"]
    assert table["eps"].isna().tolist() == [True, False]


def test_each_architecture_is_a_row_of_its_own() -> None:
    """Its numbers are those it has alone, the test against plain DM included."""
    by_convnet, by_vgg = example(seed=0), example(networks=2, seed=1).assign(architecture="vgg11")
    rows = [entry("rdm"), entry("rdm", architecture="vgg11")]
    both = tables.table(pd.concat([by_vgg, by_convnet]), rows, "dm")
    assert both["architecture"].tolist() == ["convnet", "vgg11"]
    alone = [tables.table(s, [r], "dm") for s, r in zip((by_convnet, by_vgg), rows, strict=True)]
    pd.testing.assert_frame_equal(both, pd.concat(alone, ignore_index=True))
    assert len(set(both["networks"])) == len(set(both["asr_mean"])) == 2


def test_the_network_is_shown_where_there_are_several() -> None:
    one = example()
    scores = pd.concat([one, one.assign(architecture="vgg11")])
    rows = [entry(architecture=name) for name in ("convnet", "vgg11")]
    lines = table_texts.markdown(tables.table(scores, rows, "dm"), "", "").splitlines()
    cells = [[text.strip() for text in line.split("|")] for line in lines if line.startswith("|")]
    assert [row[2] for row in cells if not row[1].startswith(":")] == [
        "Network",
        "convnet",
        "vgg11",
    ]
    assert "Network" not in table_texts.markdown(tables.table(one, rows[:1], "dm"), "", "")


def drop(condition: str, **where: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(scores: pd.DataFrame) -> pd.DataFrame:
        gone = scores["condition"] == condition
        for name, value in where.items():
            gone &= scores[name] == value
        assert gone.any()
        return scores[~gone]

    return change


def put(condition: str, name: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(scores: pd.DataFrame) -> pd.DataFrame:
        where = (scores["condition"] == condition) & (scores["target"] == 11)
        return scores.assign(**{name: scores[name].mask(where, value)})

    return change


ERRORS = {
    "cell": (
        drop("dm64", target=11, run=2, method="rdm"),
        "condition dm64, target 11, run 2, method rdm has no scores .1 of 25",
    ),
    "cells of dm": (
        drop("dm64", target=11, run=2, method="dm"),
        "condition dm64, target 11, run 2, method dm has no scores",
    ),
    "target": (drop("dm64", target=12, method="rdm"), "target 12, run 0.*5 of 25 cells"),
    "network": (
        drop("dm64", target=11, run=2, method="rdm", network=1),
        r"target 11, run 2, method rdm has networks \[0, 2\] of \[0, 1, 2\]",
    ),
    "run": (drop("dm64", run=4), "condition dm64, target 10, run 4, method rdm has no scores"),
    "clean target": (
        drop("clean", target=11),
        "condition clean, target 11, run 0, method rdm has no scores .5 of 25",
    ),
    "method": (
        drop("dm64", method="rdm"),
        "no scores of method rdm in condition dm64 .it holds dm",
    ),
    "condition": (drop("dm64"), "no scores of condition dm64; there are scores of clean"),
    "clean": (drop("clean"), "no scores of condition clean; there are scores of dm64"),
    "everything": (lambda scores: scores[:0], "there are scores of none"),
    "doubled": (
        lambda scores: pd.concat([scores, scores[scores["run"] == 3]]),
        "condition dm64, target 10, run 3, method dm, architecture convnet, network 0"
        " is scored more than once",
    ),
    "labels": (
        put("clean", "adversarial_label", 5),
        "target 11 has several pairs of true and adversarial label in dm64 and clean",
    ),
    "nan": (put("dm64", "margin", np.nan), "margin is nan for condition dm64, target 11"),
    "accuracy": (put("clean", "accuracy", 55.5), "accuracy is 55.5 for condition clean"),
    "architecture": (
        lambda scores: scores.assign(architecture="vgg11"),
        "no scores by architecture convnet; there are scores by vgg11: evaluate with it, or mend",
    ),
    "column": (lambda scores: scores.drop(columns="margin"), "scores lack the columns margin"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_errors_name_what_is_wrong(fault: str) -> None:
    change, message = ERRORS[fault]
    with pytest.raises(tables.ReportError, match=message):
        tables.table(change(example()), [entry("rdm")], "dm")


def test_errors_of_the_rows() -> None:
    incomplete = entry()
    del incomplete["eps"]
    with pytest.raises(tables.ReportError, match="lacks eps"):
        tables.table(example(), [incomplete], "dm")
    with pytest.raises(tables.ReportError, match="no rows"):
        tables.table(example(), [], "dm")


def test_counts_and_the_radius_are_whole_numbers_in_csv() -> None:
    text = table_texts.csv(tables.table(example(), [entry("rdm"), entry("dm", eps=None)], "dm"))
    first, second = (
        dict(zip(tables.COLUMNS, x.split(","), strict=True)) for x in text.splitlines()[1:]
    )
    assert (first["eps"], second["eps"]) == ("64", "")
    assert first["targets_hit"].isdigit() and first["hit_by_dm_only"].isdigit()
    assert second["hit_by_dm_only"] == ""


def test_csv_keeps_the_numbers() -> None:
    table = tables.table(example(), [entry("rdm"), entry("dm", eps=None)], "dm")
    again = pd.read_csv(io.StringIO(table_texts.csv(table)))
    assert list(again.columns) == list(table.columns)
    for name in tables.PERCENTAGES:
        assert again[name].tolist() == pytest.approx(table[name].tolist(), abs=0.005001)
    assert again["eps"].isna().tolist() == [False, True]


def test_markdown_is_padded_and_explained() -> None:
    rows = [entry("rdm", label="a|b"), entry("dm", eps=None)]
    table = tables.table(example(), rows, "dm")
    text = table_texts.markdown(table, "Table 2", "The default preset is not the paper's.")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("# Table 2\n\n|")
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith(r"| a\|b")
    row = table.iloc[0]
    hit = f"hit {row['targets_hit']}/{row['targets']}"
    asr = f"{row['asr_mean']:.1f} ± {row['asr_std']:.1f}, {hit} [{row['asr_low']:.1f},"
    assert asr in lines[2]
    assert f"{row['p_vs_dm']:.3f} ({row['hit_by_dm_only']}/{row['hit_by_this_only']})" in lines[2]
    assert "64/255" in lines[2] and "| – " in lines[3]
    assert "5 × 5 × 3" in lines[2]
    assert "The default preset is not the paper's.\n\n" + table_texts.EXPLANATION in text
