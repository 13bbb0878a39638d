"""Attackers who know the screens: within eps, the plain attack at weight zero, and hidden above."""

import pytest
import torch
from test_screen_contrastive import images, quiet

from rdmdc.attacks import adaptive_dm as adaptive
from rdmdc.attacks import counterpoised_dm as counterpoised
from rdmdc.attacks import decoy_dm as decoy
from rdmdc.attacks import graded_dm as graded
from rdmdc.attacks import selected_dm as selected
from rdmdc.attacks import translated_dm as translated
from rdmdc.attacks.crafting import Crafting, Scene, embed
from rdmdc.attacks.dm_poison import dm_objective, dm_poison
from rdmdc.checkpoints import NoCheckpoints
from rdmdc.networks.convnet import ConvNet
from rdmdc.records import PoisonSet, Target

CRAFTING = {
    "eps": 80,
    "step": 4.0,
    "restarts": 1,
    "iterations": 40,
    "optimiser": "sign_adam",
    "scoring_draws": 2,
    "augmentation": ("flip",),
}
SCREENED = {
    "directions": 1,
    "class_images": 40,
    "others": 40,
    "ridge": 0.1,
    "power_iterations": 10,
}


@pytest.fixture(scope="module")
def scene():
    """Six of sixty images of class 1 are to be taken for an image of class 0."""
    train = images((50, 60, 40))
    target = Target(3, 0, images((5, 5, 5), 9).pixels[0], 0, 1)
    return Scene(train, target, ConvNet(3, 8, 3, 8, 2), (), 6, 0, "cpu")


def hidden(hiding):
    return adaptive.Options(**CRAFTING, **SCREENED, hiding=hiding)


def spread(nearest, grading):
    return graded.Options(
        **CRAFTING, nearest=nearest, farthest=1.0, grading=grading, class_images=60
    )


def changes(scene, poisons):
    return poisons.pixels.int() - scene.train.pixels[poisons.indices].int()


def places(scene, poisons):
    """Each poison's place between the class's mean (0) and the target (1), in fresh networks."""
    start, count = int(scene.train.class_start()[1]), int(scene.train.counts()[1])
    pixels = torch.cat(
        [scene.target.pixels[None], scene.train.pixels[start : start + count], poisons.pixels]
    ).float()
    found = []
    for draw in range(10):
        embeddings = embed(scene, Crafting(**CRAFTING), pixels, ("fresh", draw))
        mean = embeddings[1 : 1 + count].mean(0)
        way = embeddings[0] - mean
        found.append((embeddings[1 + count :] - mean) @ way / way.square().sum())
    return torch.stack(found).mean(0)


@pytest.mark.parametrize(
    ("attack", "options"),
    [(adaptive.adaptive_dm, hidden(1.0)), (graded.graded_dm, spread(0.2, 1.0))],
)
def test_poisons_keep_within_eps(scene, attack, options):
    poisons, trace = attack(scene, options, quiet, NoCheckpoints())
    assert 60 < int(changes(scene, poisons).abs().max()) <= 80
    assert len(trace) == 41


def test_without_hiding_it_is_dm_poisoning_to_the_bit(scene):
    plain, _ = dm_poison(scene, Crafting(**CRAFTING), quiet, NoCheckpoints())
    mine, _ = adaptive.adaptive_dm(scene, hidden(0.0), quiet, NoCheckpoints())
    assert torch.equal(mine.pixels, plain.pixels)


def test_graded_at_the_target_and_without_grading_is_dm_s_objective(scene):
    values = scene.train.pixels[50:56].float()
    (plain,) = dm_objective(scene, Crafting(**CRAFTING), values, ("any",))
    (mine,) = graded.graded_objective(scene, spread(1.0, 0.0), values, ("any",))
    torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)


def test_hiding_brings_poisons_nearer_to_their_class_along_the_contrast(scene):
    def distance(options):
        poisons, _ = adaptive.adaptive_dm(scene, options, quiet, NoCheckpoints())
        total = 0.0
        for draw in range(10):
            purpose = ("held out", draw)
            embeddings = embed(scene, options, poisons.pixels.float(), purpose)
            mean, directions = adaptive.screened(
                scene, hidden(1.0), poisons.indices, embeddings, purpose
            )
            total += float(((embeddings - mean) @ directions).square().mean())
        return total

    assert distance(hidden(10.0)) < 0.7 * distance(hidden(0.0))


def test_graded_poisons_lie_in_the_wanted_order_along_the_way(scene):
    wide, _ = graded.graded_dm(scene, spread(0.0, 10.0), quiet, NoCheckpoints())
    tight, _ = graded.graded_dm(scene, spread(1.0, 0.0), quiet, NoCheckpoints())
    along = places(scene, wide)
    assert along[-1] > along[0] + 0.2
    assert along.std() > 1.5 * places(scene, tight).std()


def test_translated_poisons_keep_their_own_differences(scene):
    """In fresh networks, more than DM's do; with no weight they are DM's to the bit."""
    plain, _ = dm_poison(scene, Crafting(**CRAFTING), quiet, NoCheckpoints())
    made = {
        keeping: translated.translated_dm(
            scene, translated.Options(**CRAFTING, keeping=keeping), quiet, NoCheckpoints()
        )[0]
        for keeping in (0.0, 3.0)
    }
    assert torch.equal(made[0.0].pixels, plain.pixels)

    def changed(poisons):
        before = scene.train.pixels[poisons.indices]
        pixels = torch.cat([before, poisons.pixels]).float()
        total = 0.0
        for d in range(10):
            found = embed(scene, Crafting(**CRAFTING), pixels, ("fresh", d))
            old, new = found[:6] - found[:6].mean(0), found[6:] - found[6:].mean(0)
            total += float((new - old).square().sum())
        return total

    assert changed(made[3.0]) < 0.7 * changed(plain)


def test_counterweights_lie_on_the_other_side(scene):
    options = counterpoised.Options(**CRAFTING, counterweight="1/3", beyond=1.0, class_images=60)
    poisons, _ = counterpoised.counterpoised_dm(scene, options, quiet, NoCheckpoints())
    along = places(scene, poisons)
    assert along[:4].min() > along[4:].max() + 0.3
    assert along[4:].max() < 0


def test_without_counterweights_it_is_dm_s_objective(scene):
    options = counterpoised.Options(**CRAFTING, counterweight="0", beyond=1.0, class_images=60)
    values = scene.train.pixels[50:56].float()
    (plain,) = dm_objective(scene, Crafting(**CRAFTING), values, ("any",))
    (mine,) = counterpoised.counterpoised_objective(scene, options, values, ("any",))
    torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)


def test_decoys_lie_on_both_sides_of_their_own_class(scene):
    options = decoy.Options(**CRAFTING, reach=1.0, class_images=40)
    poisons, _ = decoy.decoy_dm(scene, options, quiet, NoCheckpoints())
    labels = scene.train.labels[poisons.indices]
    for c in (0, 2):
        own = poisons.pixels[labels == c].float()
        apart = 0.0
        for d in range(10):
            pixels = torch.cat(
                [scene.target.pixels[None].float(), scene.train.pixels[50:110].float(), own]
            )
            found = embed(scene, options, pixels, ("fresh", d))
            way = found[0] - found[1:61].mean(0)
            along = found[61:] @ way / way.square().sum()
            apart += float(along[0::2].mean() - along[1::2].mean()) / 10
        assert apart > 0.3, c


@pytest.mark.parametrize(("which", "sign"), [("nearest", 1), ("farthest", -1)])
def test_the_nearest_or_farthest_images_are_selected(scene, which, sign):
    options = selected.Options(**CRAFTING, selected=which, networks=10, class_images=60)
    chosen = selected.places_chosen(scene, options)
    everyone = PoisonSet(
        torch.arange(50, 110), scene.train.labels[50:110], scene.train.pixels[50:110]
    )
    along = sign * places(scene, everyone)
    rank = along.argsort(descending=True).argsort()
    assert len(chosen) == 6
    assert rank[chosen - 50].float().mean() < 15  # of 60
    poisons, _ = selected.selected_dm(scene, options, quiet, NoCheckpoints())
    assert torch.equal(poisons.indices, chosen)


def test_poisons_beyond_the_target(scene):
    far = graded.Options(**CRAFTING, nearest=2.0, farthest=2.0, grading=0.0, class_images=60)
    beyond, _ = graded.graded_dm(scene, far, quiet, NoCheckpoints())
    at, _ = graded.graded_dm(scene, spread(1.0, 0.0), quiet, NoCheckpoints())
    assert places(scene, beyond).mean() > places(scene, at).mean() + 0.1


def test_the_class_is_screened_as_it_is_delivered(scene):
    """All of the class: the mean is that of its clean images and the poisons in their places."""
    indices = torch.tensor([50, 53])
    options = adaptive.Options(**CRAFTING, **{**SCREENED, "class_images": 60}, hiding=1.0)
    pixels = scene.train.pixels[50:110].float()
    pixels[[0, 3]] = 255 - pixels[[0, 3]]
    embeddings = embed(scene, options, pixels, ("one",))
    mean, directions = adaptive.screened(scene, options, indices, embeddings[[0, 3]], ("one",))
    torch.testing.assert_close(mean, embeddings.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(1))


def test_vectors_lose_the_mean_of_their_own_label():
    vectors = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([4, 2, 4, 4, 2, 9, 2])
    found = adaptive.without_class_means(vectors, labels)
    for own in range(7):
        expected = vectors[own] - vectors[labels == labels[own]].mean(0)
        torch.testing.assert_close(found[own], expected)
