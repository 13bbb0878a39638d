"""Evaluation: what a score says, against an independent count, and that it finds a target."""

from dataclasses import replace

import pytest
import torch

from rdmdc.metrics import evaluate as module
from rdmdc.metrics.evaluate import NO_TARGET, evaluate
from rdmdc.models import training
from rdmdc.models.training import Schedule, fit
from rdmdc.randomness import generator
from rdmdc.records import Normalisation, RecordError, SyntheticSet, Target

SCHEDULE = Schedule(
    epochs=60,
    batch=8,
    learning_rate=0.05,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    decay_after="1/2",
    augmentation=("color",),
)
SHORT = replace(SCHEDULE, epochs=2)


@pytest.fixture(scope="module")
def condensed(train):
    """Six real images a class: as good as a condensed set."""
    starts = train.class_start()
    inputs = torch.cat([train.pixels[s : s + 6] for s in starts])
    return SyntheticSet(
        train.normalisation.normalise(inputs),
        torch.arange(3).repeat_interleave(6),
        train.class_names,
        train.normalisation,
    )


@pytest.fixture(scope="module")
def targets(test):
    """An ant as a bee and as a cat, a cat as an ant."""
    return [
        Target(seed, i, test.pixels[i].clone(), int(test.labels[i]), label)
        for seed, i, label in ((4, 3, 1), (5, 3, 2), (9, 20, 0))
    ]


@pytest.fixture(scope="module")
def run(condensed, test, targets, network, quiet, never):
    def run(synthetic=condensed, test=test, targets=targets, schedule=SHORT, trained=2, **more):
        options = {
            "seed": 1,
            "run": 0,
            "device": "cpu",
            "progress": quiet,
            "checkpoints": never,
            **more,
        }
        return evaluate(synthetic, test, targets, network, schedule, trained, **options)

    return run


@pytest.fixture(scope="module")
def planted(condensed, targets):
    """One bee replaced by the ant that is to be taken for one."""
    inputs = condensed.inputs.clone()
    inputs[8] = condensed.normalisation.normalise(targets[0].pixels)
    return replace(condensed, inputs=inputs)


def test_finds_a_planted_target_and_only_that(run, condensed, planted, targets):
    for synthetic, fooled in ((planted, True), (condensed, False)):
        rows = run(synthetic, targets=targets[::2], schedule=SCHEDULE, trained=3)
        of_ant, of_cat = rows[rows.target == 4], rows[rows.target == 9]
        assert ((of_ant.predicted_label == 1) == fooled).all()
        assert ((of_ant.margin > 0) == fooled).all()
        assert (of_cat.predicted_label == 2).all()
        assert (of_cat.margin < 0).all()
        assert (rows.accuracy > 0.9).all()


def test_a_row_per_network_and_target(run):
    rows = run(trained=3)
    assert list(zip(rows.network, rows.target, strict=True)) == [
        (n, t) for n in range(3) for t in (4, 5, 9)
    ]
    assert rows.true_label.tolist() == [0, 0, 2] * 3
    assert rows.adversarial_label.tolist() == [1, 2, 0] * 3
    assert rows.groupby("network").accuracy.nunique().tolist() == [1, 1, 1]


def test_without_targets_a_row_has_the_network_and_its_accuracy(run):
    rows, scored = run(targets=[]), run()
    assert list(rows.columns) == list(scored.columns)
    assert rows.network.tolist() == [0, 1]
    assert rows.accuracy.tolist() == scored.groupby("network").accuracy.first().tolist()
    for name, value in NO_TARGET.items():
        assert (rows[name].isna() if value != value else rows[name] == -1).all()


def test_scores_are_an_independent_count(
    run, condensed, test, targets, network, quiet, never, monkeypatch
):
    """Accuracy, probabilities and margin from the networks' logits, image by image; the test split
    goes through in blocks that do not divide it."""
    monkeypatch.setattr(module, "BLOCK", 4)
    rows = run().set_index(["network", "target"])
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    for number in range(2):
        weights = fit(
            network,
            lambda i: condensed.inputs[i],
            condensed.labels,
            SHORT,
            (1, "evaluate", 0, number),
            quiet,
            never,
        )

        def logits(pixels, weights=weights):
            return network.logits(weights, ((pixels / 255 - mean) / std)[None])[0].tolist()

        right = 0
        for pixels, label in zip(test.pixels, test.labels.tolist(), strict=True):
            scores = logits(pixels)
            right += scores.index(max(scores)) == label
        for target in targets:
            row, scores = rows.loc[(number, target.seed)], logits(target.pixels)
            probabilities = torch.tensor(scores).exp() / torch.tensor(scores).exp().sum()
            others = [p for c, p in enumerate(probabilities) if c != target.adversarial_label]
            adversarial = float(probabilities[target.adversarial_label])
            assert row.accuracy == right / 25
            assert row.predicted_label == scores.index(max(scores))
            assert row.adversarial_probability == pytest.approx(adversarial, abs=1e-5)
            assert row.true_probability == pytest.approx(
                float(probabilities[target.true_label]), abs=1e-5
            )
            assert row.margin == pytest.approx(adversarial - float(max(others)), abs=1e-5)


def test_networks_draw_the_same_for_every_set_of_a_run(run, planted, monkeypatch):
    """Initial weights, seen without learning; and every draw's purpose."""
    purposes = []

    def noted(*purpose):
        purposes.append(purpose)
        return generator(*purpose)

    still = replace(SHORT, learning_rate=0.0)
    assert run(schedule=still).equals(run(planted, schedule=still))
    monkeypatch.setattr(training, "generator", noted)
    run()
    first = purposes.copy()
    purposes.clear()
    run(planted)
    assert purposes == first
    assert len(set(first)) == len(first) == 2 * 3


def test_runs_seeds_and_networks_draw_apart(run):
    still = replace(SHORT, learning_rate=0.0)
    rows = [run(schedule=still), run(schedule=still, seed=2), run(schedule=still, run=1)]
    probabilities = [float(p) for r in rows for p in r[r.target == 4].adversarial_probability]
    assert len(set(probabilities)) == 6
    assert run().equals(run())


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("class_names", ("ant", "cat", "bee")),
        ("normalisation", Normalisation((0.5, 0.4, 0.6), (0.2, 0.3, 0.2))),
    ],
)
def test_a_set_of_other_classes_or_normalisation(run, condensed, what, other):
    with pytest.raises(RecordError, match=f"differ in {what}"):
        run(replace(condensed, **{what: other}))
