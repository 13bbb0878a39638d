"""The screen without a rate: it drops a planted group, all of it, and nothing of clean classes."""

import pytest
import torch
from test_screen_contrastive import images, planted, quiet, suspects_of

from rdmdc.checkpoints import NoCheckpoints, State
from rdmdc.screens.contrastive_minorities import Options, contrastive_minorities

OPTIONS = Options(
    networks=4,
    others=60,
    ridge=0.1,
    power_iterations=20,
    sample=1000,
    directions=3,
    components=6,
    groups=3,
    smallest="1/100",
    largest="3/10",
    separation=0.8,
    margin=3.5,
    fewest=100,
)


@pytest.mark.parametrize("count", [16, 30])
def test_a_planted_group_is_left_out_and_hardly_anything_else(count):
    train = images((150, 140, 160))
    poisons = planted(train, 1, count)
    found = contrastive_minorities(suspects_of(train, poisons), OPTIONS, quiet, NoCheckpoints())
    assert not found.kept[poisons.indices].any()
    assert int((~found.kept).sum()) <= count + 4
    highest = found.scores[train.labels == 1].topk(count + 4).indices
    assert set(range(count)) <= set(highest.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_clean_images_are_all_kept(seed):
    suspects = suspects_of(images((150, 140, 160), seed))
    assert contrastive_minorities(suspects, OPTIONS, quiet, NoCheckpoints()).kept.all()


def test_a_class_of_too_few_images_is_kept_whole():
    train = images((99, 140, 160))
    poisons = planted(train, 0, 10)
    found = contrastive_minorities(suspects_of(train, poisons), OPTIONS, quiet, NoCheckpoints())
    assert found.kept.all()
    assert (found.scores[train.labels == 0] == 0).all()


def test_a_resumed_screen_says_the_same():
    suspects = suspects_of(images((120, 110)))
    states = []

    class Keeping(NoCheckpoints):
        def offer(self, state):
            states.append(State({k: dict(v) for k, v in state.tensors.items()}, dict(state.facts)))

    class Resuming(NoCheckpoints):
        def resume(self):
            return states[1]

    whole = contrastive_minorities(suspects, OPTIONS, quiet, Keeping())
    resumed = contrastive_minorities(suspects, OPTIONS, quiet, Resuming())
    assert torch.equal(resumed.scores, whole.scores)
    assert torch.equal(resumed.kept, whole.kept)


@pytest.mark.parametrize("counts", [(1, 3, 4), (200, 2)])
def test_classes_of_any_size_are_accepted(counts):
    few = Options(**{**vars(OPTIONS), "fewest": 3})
    found = contrastive_minorities(suspects_of(images(counts)), few, quiet, NoCheckpoints())
    assert torch.isfinite(found.scores).all()
