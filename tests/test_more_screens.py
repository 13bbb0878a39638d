"""Published screens and relatives of ours, against NumPy, SciPy and known groups."""

import numpy as np
import pytest
import scipy.cluster.vq
import scipy.spatial
import torch
from test_screen_contrastive import images, planted, quiet, suspects_of

from rdmdc.checkpoints import NoCheckpoints
from rdmdc.models.training import Schedule
from rdmdc.records import RecordError
from rdmdc.screens import activation_clustering as clustering
from rdmdc.screens import deep_knn as knn
from rdmdc.screens import density as dense
from rdmdc.screens import quantum_entropy as entropy

PROJECTING = {
    "networks": 3,
    "others": 60,
    "ridge": 0.1,
    "power_iterations": 40,
    "sample": 1000,
    "drop": "3/20",
}


def training(epochs):
    return Schedule(
        epochs=epochs,
        batch=32,
        learning_rate=0.05,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        decay_after="1",
        augmentation=(),
    )


def cloud(n, q, seed=0):
    return torch.randn(n, q, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("screen", "options"),
    [
        (entropy.quantum_entropy, entropy.Options(**PROJECTING, directions=3, alpha=4.0)),
        (dense.density, dense.Options(networks=3, neighbour=0.05, sample=1000, drop="3/20")),
    ],
)
def test_planted_images_are_left_out(screen, options):
    train = images((60, 60, 60))
    poisons = planted(train, 1, 6)
    found = screen(suspects_of(train, poisons), options, quiet, NoCheckpoints())
    assert not found.kept[poisons.indices].any()
    assert (~found.kept).sum() == 27


@pytest.mark.parametrize("k", [1, 4])
def test_distances_are_those_to_the_kth_other_neighbour(k):
    points = cloud(30, 4)
    found = dense.neighbour_distances(points, points, k / 29)
    own = np.sort(scipy.spatial.distance.cdist(points, points), axis=1)
    np.testing.assert_allclose(found.numpy(), own[:, k], rtol=1e-6)


def test_copies_are_the_nearest_of_all():
    assert dense.nearness(torch.tensor([2.0, 1.0, 0.0])).tolist() == pytest.approx([0.5, 1, 1e6])
    assert dense.nearness(torch.tensor([0.0, 0.0, 3.0])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_entropy_scores_are_quadratic_forms_of_the_matrix_exponential(alpha):
    points = cloud(50, 3) @ torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    axes = torch.linalg.eigh(points.T @ points).eigenvectors
    points = points @ axes  # uncorrelated, as projections on eigenvectors are
    covariance = (points.T @ points / 50).numpy()
    weights = scipy.linalg.expm(alpha * covariance / np.linalg.eigvalsh(covariance)[-1])
    expected = np.einsum("nd,de,ne->n", points, weights, points) / np.exp(alpha)
    np.testing.assert_allclose(entropy.entropy_scores(points, alpha), expected, rtol=1e-6)


def test_votes_are_those_of_the_nearest_images_by_angle():
    features, labels = cloud(40, 5), torch.arange(40) % 3
    votes = knn.neighbours_votes(features, labels, 3, 7)
    distances = scipy.spatial.distance.cdist(features, features, "cosine")
    np.fill_diagonal(distances, np.inf)
    for own in range(40):
        nearest = np.argsort(distances[own])[:7]
        assert votes[own].tolist() == np.bincount(labels[nearest], minlength=3).tolist()


def test_images_of_another_class_are_left_out_by_their_neighbours():
    """Five images of class 0 under label 1, not yet learnt by heart."""
    train = images((60, 60, 60))
    wrong = planted(train, 1, 5)
    moved = type(wrong)(wrong.indices, wrong.labels, train.pixels[:5])
    options = knn.Options(neighbours=15, training=training(3))
    found = knn.deep_knn(suspects_of(train, moved), options, quiet, NoCheckpoints())
    assert not found.kept[wrong.indices].any()
    assert int((~found.kept).sum()) <= 8
    assert found.scores[wrong.indices].min() > 0.5


def test_a_network_that_knows_nothing_is_no_reason_to_drop_a_class():
    train = images((3, 60, 60))
    options = knn.Options(neighbours=30, training=training(0))
    with pytest.raises(RecordError, match="no image of class 'class 0' has most neighbours"):
        knn.deep_knn(suspects_of(train), options, quiet, NoCheckpoints())


def test_two_means_finds_scipy_s_clusters():
    points = cloud(60, 3)
    points[:15] += 6
    found = clustering.two_means(points)
    centres = scipy.cluster.vq.kmeans(points.numpy(), points.numpy()[[0, 30]])[0]
    labels = scipy.cluster.vq.vq(points.numpy(), centres)[0]
    assert found.nonzero().squeeze(1).tolist() == np.flatnonzero(labels == 0).tolist()


def test_equal_points_have_no_smaller_cluster():
    assert not clustering.two_means(torch.zeros(5, 2)).any()


@pytest.mark.parametrize(("largest", "dropped"), [("7/20", 12), ("1/20", 0)])
def test_a_smaller_cluster_is_left_out_if_it_is_small(largest, dropped):
    train = images((60, 60, 60))
    poisons = planted(train, 1, 12)
    options = clustering.Options(components=2, largest=largest, training=training(5))
    found = clustering.activation_clustering(
        suspects_of(train, poisons), options, quiet, NoCheckpoints()
    )
    assert int((~found.kept[poisons.indices]).sum()) == dropped
    assert found.scores[poisons.indices].min() > 0
