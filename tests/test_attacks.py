"""Attacks: the bound, the loop, which restart is kept, what is poisoned, and each objective
against a plain float64 computation of its equation."""

import dataclasses
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rdmdc import plugins
from rdmdc.attacks.adaptive_dm import adaptive_objective
from rdmdc.attacks.counterpoised_dm import counterpoised_objective
from rdmdc.attacks.crafting import Crafting, Scene, choose, craft, score_on_common_draws
from rdmdc.attacks.decoy_dm import decoy_objective
from rdmdc.attacks.dm_poison import dm_objective
from rdmdc.attacks.graded_dm import graded_objective
from rdmdc.attacks.gradient_matching import gradient_matching_objective, target_gradients
from rdmdc.attacks.optimisers import OPTIMISERS
from rdmdc.attacks.translated_dm import translated_objective
from rdmdc.attacks.untargeted import untargeted_objective
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.networks.convnet import ConvNet
from rdmdc.randomness import generator
from rdmdc.records import RecordError

CRAFTING = Crafting(
    eps=40,
    step=2.0,
    restarts=1,
    iterations=40,
    optimiser="sign_adam",
    scoring_draws=4,
    augmentation=("color", "crop", "cutout", "flip", "scale", "rotate"),
)
MORE = {
    "clean_batch": 8,
    "hiding": 0.1,
    "directions": 1,
    "class_images": 10,
    "others": 20,
    "ridge": 0.1,
    "power_iterations": 10,
    "nearest": 0.8,
    "farthest": 1.0,
    "grading": 0.1,
    "counterweight": "1/4",
    "beyond": 2.0,
    "keeping": 0.1,
    "reach": 1.0,
    "selected": "farthest",
    "networks": 2,
}
"""Options of single attacks, by name."""
ATTACKS = plugins.load("attack").plugins
CRAFTED = [name for name, attack in ATTACKS.items() if attack.options is not None]
AUGMENTATIONS = [(), ("color",), ("scale",), ("crop", "rotate", "flip")]
PURPOSE = ("any", 7)


@pytest.fixture(scope="module")
def scene(train, target, network):
    victims = tuple(network.draw(generator("victim", i)) for i in range(2))
    return Scene(train, target, network, victims, poisons=4, seed=3, device="cpu")


def options_of(attack, crafting):
    """An attack's options with the crafting's values; None for one without options."""
    options = ATTACKS[attack].options
    if options is None:
        return None
    values = MORE | vars(crafting)
    return options(**{field.name: values[field.name] for field in dataclasses.fields(options)})


@pytest.fixture(scope="module")
def run(quiet, never):
    """Poisons and trace of an attack by name."""

    def run(attack, scene, crafting=CRAFTING):
        return ATTACKS[attack](scene, options_of(attack, crafting), quiet, never)

    return run


def objective_of(attack, scene, crafting, indices):
    """The objective that an attack crafts with."""
    options = options_of(attack, crafting)
    return {
        "dm_poison": lambda: partial(dm_objective, scene, options),
        "adaptive_dm": lambda: partial(adaptive_objective, scene, options, indices),
        "graded_dm": lambda: partial(graded_objective, scene, options),
        "counterpoised_dm": lambda: partial(counterpoised_objective, scene, options),
        "translated_dm": lambda: partial(translated_objective, scene, options, indices),
        "decoy_dm": lambda: partial(decoy_objective, scene, options, scene.train.labels[indices]),
        "selected_dm": lambda: partial(dm_objective, scene, options),
        "untargeted": lambda: partial(
            untargeted_objective, scene, options, scene.train.labels[indices]
        ),
        "gradient_matching": lambda: partial(
            gradient_matching_objective, scene, options, target_gradients(scene)
        ),
    }[attack]()


# --- a plain reference in float64 ------------------------------------------------------------


def forward(weights, x):
    """Embeddings and logits of a ConvNet of depth 2, written out."""
    for block in range(2):
        x = F.conv2d(x, weights[f"conv{block}.weight"], weights[f"conv{block}.bias"], padding=1)
        x = F.instance_norm(
            x, weight=weights[f"norm{block}.weight"], bias=weights[f"norm{block}.bias"]
        )
        x = F.avg_pool2d(x.relu(), 2)
    return x.flatten(1), x.flatten(1) @ weights["linear.weight"].T + weights["linear.bias"]


def double(weights, trainable=False):
    return {n: w.double().requires_grad_(trainable) for n, w in weights.items()}


def inputs(pixels):
    """Normalised inputs in float64, in conftest's numbers."""
    mean = torch.tensor([0.5, 0.4, 0.6], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64)[:, None, None]
    return (pixels.double() / 255 - mean) / std


def random_embeddings(scene, strategy, purpose, pixels):
    """Embeddings by the network and the one augmentation of a purpose, image by image."""
    weights = double(scene.network.draw(generator(*purpose, "network")))
    drawn = draw(strategy, 1, generator(*purpose, "augmentation"), shared=False)
    single = [augment(inputs(x)[None, None], drawn)[0] for x in pixels]
    return torch.cat([forward(weights, x)[0] for x in single])


def total(terms):
    return sum(terms, torch.zeros(()))


def value_and_gradient(objective, values):
    values = values.clone().requires_grad_()
    loss = total(objective(values, PURPOSE))
    return float(loss.detach()), torch.autograd.grad(loss, values)[0]


@pytest.fixture(scope="module")
def values(scene):
    """Pixel values of four bees, off their originals."""
    noise = torch.rand(4, 3, 8, 8, generator=generator("values")) * 40 - 20
    return (scene.train.pixels[12:16] + noise).clamp(0, 255)


# --- the bound -------------------------------------------------------------------------------


def linear(signs):
    """An objective whose minimum over the box is a corner of it; two terms, as victims give."""

    def objective(values, purpose):
        yield (values * signs)[:1].sum()
        yield (values * signs)[1:].sum()

    return objective


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("eps", [0, 1, 8, 255])
def test_a_linear_objective_ends_in_the_corner_of_box_and_pixel_range(
    scene, quiet, never, eps, optimiser
):
    indices = torch.tensor([12, 13, 20])
    base = scene.train.pixels[indices].int()
    signs = torch.rand(base.shape, generator=generator("signs")).sub(0.5).sign()
    crafting = replace(CRAFTING, eps=eps, step=eps / 4 + 0.3, optimiser=optimiser)
    poisons, _ = craft(scene, indices, crafting, linear(signs), quiet, never)
    corner = (base - eps * signs.int()).clamp(0, 255)
    assert poisons.pixels.dtype == torch.uint8
    assert torch.equal(poisons.pixels.int(), corner)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    eps=st.sampled_from([0, 1, 255]) | st.integers(2, 254),
    step=st.sampled_from([1.0, 2.0]) | st.floats(0.01, 300),
    iterations=st.integers(0, 4),
    optimiser=st.sampled_from(sorted(OPTIMISERS)),
    attack=st.sampled_from(CRAFTED),
)
def test_poisons_stay_within_eps(scene, run, eps, step, iterations, optimiser, attack):
    crafting = replace(
        CRAFTING, eps=eps, step=step, iterations=iterations, optimiser=optimiser, scoring_draws=1
    )
    poisons, _ = run(attack, scene, crafting)
    delta = poisons.pixels.int() - scene.train.pixels[poisons.indices].int()
    assert poisons.pixels.dtype == torch.uint8
    assert int(delta.abs().max()) <= eps
    assert eps == 0 or int(delta.abs().max()) > 0


def test_the_start_is_uniform_in_the_box(scene, quiet, never):
    """Without an iteration the random start is returned: noise from −eps to eps on the grid."""
    mid = torch.full_like(scene.train.pixels, 128)
    grey = replace(scene, train=replace(scene.train, pixels=mid), poisons=14)
    crafting = replace(CRAFTING, iterations=0, eps=60)
    delta = ATTACKS["dm_poison"](grey, crafting, quiet, never)[0].pixels.int() - 128
    assert (int(delta.min()), int(delta.max())) == (-60, 60)
    assert abs(float(delta.float().mean())) < 3
    assert abs(float(delta.float().std()) - 60 / 3**0.5) < 2


# --- the loop --------------------------------------------------------------------------------


def distance(a, b):
    return float((a.mean(0) - b.mean(0)).square().sum())


def effect(attack, scene, indices, pixels):
    """What an attack lowers, by 20 fresh networks (its victims for gradient matching), in float64
    and without augmentation."""
    if attack == "gradient_matching":
        return 1 - sum(cosine(scene, v, pixels, ()) for v in scene.victims) / len(scene.victims)
    result = 0.0
    if attack == "decoy_dm":
        pixels = pixels[scene.train.labels[indices] == scene.target.adversarial_label]
    if attack == "counterpoised_dm":
        pixels = pixels[:3]
    for i in range(20):
        weights = double(scene.network.draw(generator("effect", i)))
        if attack != "untargeted":
            of_target = forward(weights, inputs(scene.target.pixels[None]))[0]
            result += distance(of_target, forward(weights, inputs(pixels))[0])
            continue
        for c in range(3):
            clean = forward(weights, inputs(scene.train.pixels[scene.train.labels == c]))[0]
            poisoned = forward(weights, inputs(pixels[scene.train.labels[indices] == c]))[0]
            result -= distance(clean, poisoned)
    return result


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("attack", CRAFTED)
def test_the_objective_falls(scene, run, attack, optimiser):
    """On the scoring draws and by a measure of its own; untargeted, the distance grows."""
    crafting = replace(CRAFTING, optimiser=optimiser, step=4.0)
    start, before = run(attack, scene, replace(crafting, iterations=0))
    poisons, after = run(attack, scene, crafting)
    scores = [trace.query("iteration == -1").objective.item() for trace in (before, after)]
    measures = [effect(attack, scene, p.indices, p.pixels) for p in (start, poisons)]
    for worse, better in (scores, measures):
        assert better < worse - 0.05 * abs(worse)


def test_every_iteration_draws_anew_inside_the_box(scene, quiet, never):
    """A network and an augmentation for each restart, iteration and score, each its own; pixel
    values are projected at every step, not at the end alone, and stay on the grid of uint8."""
    seen, base = [], scene.train.pixels[12:14].float()

    def objective(values, purpose):
        assert float((values - base).detach().abs().max()) <= 3
        assert 0 <= float(values.detach().min()) <= float(values.detach().max()) <= 255
        assert torch.equal(values, values.round())
        seen.append(purpose)
        yield values.sum() if len(seen) % 2 else -values.sum()

    crafting = replace(CRAFTING, eps=3, restarts=2, iterations=3, scoring_draws=2)
    craft(scene, torch.tensor([12, 13]), crafting, objective, quiet, never)
    draws, scores = seen[:3] + seen[5:8], seen[3:5] + seen[8:]
    assert len(set(draws)) == 6
    assert scores[:2] == scores[2:], "restarts are scored on other draws"
    assert len(set(scores)) == 2
    assert not set(scores) & set(draws)


def test_a_quarter_of_a_step_is_rounded_away(scene, run):
    """To the nearest, before the score: what is scored is what is saved."""
    start, before = run("dm_poison", scene, replace(CRAFTING, iterations=0))
    moved, after = run("dm_poison", scene, replace(CRAFTING, iterations=1, step=0.25))
    assert torch.equal(start.pixels, moved.pixels)
    assert before.objective.iloc[-1] == after.objective.iloc[-1]


@pytest.mark.parametrize("attack", CRAFTED)
def test_the_best_restart_is_kept(scene, run, attack):
    """The one of lowest score on the common draws, neither the first nor the last of four."""
    crafting = replace(CRAFTING, restarts=4, iterations=2)
    for seed in range(20):
        mine = replace(scene, seed=seed)
        poisons, trace = run(attack, mine, crafting)
        scores = trace.query("iteration == -1").objective.tolist()
        best = scores.index(min(scores))
        if 0 < best < 3:
            break
    assert 0 < best < 3
    objective = objective_of(attack, mine, crafting, poisons.indices)
    values = poisons.pixels.float()
    again = score_on_common_draws(mine, crafting, objective, values)
    assert again == pytest.approx(scores[best], rel=1e-6)
    purposes = [(mine.seed, "poison", 4, "score", i) for i in range(crafting.scoring_draws)]
    mean = sum(float(total(objective(values, p)).detach()) for p in purposes) / len(purposes)
    assert mean == pytest.approx(scores[best], rel=1e-6)
    for restarts in range(1, 5):
        prefix, _ = run(attack, mine, replace(crafting, restarts=restarts))
        kept = scores.index(min(scores[:restarts]))
        assert torch.equal(prefix.pixels, poisons.pixels) == (kept == best)


def test_the_trace_has_a_row_per_iteration_and_one_for_the_score(scene, never):
    told = []
    crafting = replace(CRAFTING, restarts=2, iterations=3, scoring_draws=1)
    _, trace = ATTACKS["dm_poison"](scene, crafting, lambda *progress: told.append(progress), never)
    expected = [(r, t) for r in range(2) for t in (0, 1, 2, -1)]
    assert list(zip(trace.restart, trace.iteration, strict=True)) == expected
    assert [(done, of) for done, of, _ in told] == [(i, 6) for i in range(1, 7)]
    assert [loss for *_, loss in told] == trace.query("iteration >= 0").objective.tolist()


@pytest.mark.parametrize("attack", CRAFTED)
def test_same_seed_same_bits_other_seed_other_bits(scene, run, attack):
    crafting = replace(CRAFTING, iterations=3, restarts=2)
    poisons, trace = run(attack, scene, crafting)
    torch.manual_seed(5)
    again, trace_again = run(attack, scene, crafting)
    assert torch.equal(poisons.pixels, again.pixels)
    assert trace.equals(trace_again)
    for other in (replace(scene, seed=4), replace(scene, target=replace(scene.target, seed=5))):
        # every image of the classes, so that only the pixels can differ
        all_images = [replace(s, poisons="1") for s in (scene, other)]
        mine, theirs = (run(attack, s, crafting)[0] for s in all_images)
        assert torch.equal(mine.indices, theirs.indices)
        assert not torch.equal(mine.pixels, theirs.pixels)


def test_an_attack_leaves_its_arguments_alone(scene, run):
    before = [t.clone() for t in (scene.train.pixels, scene.target.pixels)]
    victims = [{n: w.clone() for n, w in v.items()} for v in scene.victims]
    for attack in ATTACKS:
        run(attack, scene, replace(CRAFTING, iterations=1))
    after = (scene.train.pixels, scene.target.pixels)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for old, new in zip(victims, scene.victims, strict=True):
        assert all(torch.equal(old[n], new[n]) and not new[n].requires_grad for n in new)


def test_an_objective_that_is_no_number_is_an_error(scene, run):
    """A victim whose gradient vanishes has no cosine; the poisons must not be the originals."""
    flat = tuple({n: w * 0 for n, w in v.items()} for v in scene.victims)
    for v in flat:
        v["linear.bias"] += torch.tensor([-300.0, 300.0, -300.0])
    with pytest.raises(RecordError, match=r"target 4: .* is not a number"):
        run("gradient_matching", replace(scene, victims=flat))


# --- which images, which labels --------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("poisons", "counts"), [(1, [1, 1, 1]), (5, [5, 5, 5]), ("1/4", [3, 4, 4]), ("1", [12, 14, 13])]
)
def test_poisons_replace_distinct_images_of_their_class(scene, run, attack, poisons, counts):
    made, _ = run(attack, replace(scene, poisons=poisons), replace(CRAFTING, iterations=1))
    wanted = counts if ATTACKS[attack].facts["every_class"] else [0, counts[1], 0]
    assert torch.bincount(scene.train.labels[made.indices], minlength=3).tolist() == wanted
    assert torch.equal(made.labels, scene.train.labels[made.indices])
    assert len(set(made.indices.tolist())) == sum(wanted)
    made.check(scene.train)
    changed = (made.apply(scene.train).pixels != scene.train.pixels).flatten(1).any(1)
    assert set(changed.nonzero().flatten().tolist()) == set(made.indices.tolist())


def test_indices_depend_on_seed_and_target_alone(scene, run):
    def indices(attack="dm_poison", scene=scene, **options):
        return run(attack, scene, replace(CRAFTING, **{"iterations": 1, **options}))[0].indices

    mine = indices()
    other_pixels = replace(scene.train, pixels=255 - scene.train.pixels)
    same = [
        indices(eps=3),
        indices(step=5.0, restarts=2, optimiser="adam_of_signs", augmentation=()),
        indices("direct"),
        indices("gradient_matching"),
        indices(scene=replace(scene, train=other_pixels)),
        indices(scene=replace(scene, network=ConvNet(3, 8, 3, width=6, depth=1))),
    ]
    assert all(torch.equal(mine, i) for i in same)
    # "untargeted" takes the same bees, and a larger share contains a smaller one
    assert set(mine.tolist()) <= set(indices("untargeted").tolist())
    assert set(mine.tolist()) < set(indices(scene=replace(scene, poisons=9)).tolist())
    others = [replace(scene, seed=s) for s in range(4, 9)]
    others += [replace(scene, target=replace(scene.target, seed=s)) for s in range(5, 10)]
    drawn = {tuple(indices("direct", s).tolist()) for s in others}
    assert tuple(mine.tolist()) not in drawn
    assert len(drawn) >= 8


def test_indices_are_uniform(scene):
    """Every bee is taken about 2000 · 4/14 times, by the binomial's standard deviation of 20."""
    taken = torch.zeros(len(scene.train.labels))
    for seed in range(2000):
        taken[choose(replace(scene, seed=seed), [1])] += 1
    assert taken[:12].sum() == taken[26:].sum() == 0
    assert (taken[12:26] - 2000 * 4 / 14).abs().max() < 80


def test_direct_poisons_are_copies_of_the_target(scene, run):
    poisons, trace = run("direct", scene, None)
    assert torch.equal(poisons.pixels, scene.target.pixels.expand(4, -1, -1, -1))
    assert poisons.labels.tolist() == [1] * 4
    assert trace.empty


@pytest.mark.parametrize("attack", ATTACKS)
def test_more_poisons_than_the_class_has(scene, run, attack):
    name, count = ("ant", 12) if ATTACKS[attack].facts["every_class"] else ("bee", 14)
    fault = (
        rf"15 poisons cannot replace images of class '{name}', which has {count};"
        rf" set the condition's poisons to 1\.\.{count}"
    )
    with pytest.raises(RecordError, match=fault):
        run(attack, replace(scene, poisons=15))


@pytest.mark.parametrize("poisons", [0, -1, "0"])
def test_no_poisons_are_an_error(scene, run, poisons):
    with pytest.raises(RecordError, match=r"-?\d poisons cannot replace"):
        run("dm_poison", replace(scene, poisons=poisons))


# --- optimisers ------------------------------------------------------------------------------


def steps(optimiser, gradients, **options):
    crafting = replace(CRAFTING, iterations=len(gradients), **options)
    made, moments = [], {}
    for t, gradient in enumerate(gradients):
        step, moments = OPTIMISERS[optimiser](crafting, gradient, moments, t)
        made.append(step)
    return made


@pytest.fixture(scope="module")
def gradients():
    return [torch.randn(2, 3, 4, 4, generator=generator("gradient", t)) for t in range(40)]


def test_sign_adam_is_the_sign_of_momentum(gradients):
    """And so of Adam's own step, whose sign is its first moment's."""
    parameter = torch.zeros_like(gradients[0], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=1)
    momentum = torch.zeros_like(gradients[0], dtype=torch.float64)
    for gradient, step in zip(gradients, steps("sign_adam", gradients, step=3.0), strict=True):
        momentum = 0.9 * momentum + gradient.double()
        before, parameter.grad = parameter.detach().clone(), gradient.double()
        adam.step()
        clear = momentum.abs() > 1e-5
        assert torch.equal(step[clear], 3 * momentum.sign()[clear].float())
        assert torch.equal(step[clear], 3 * (before - parameter.detach()).sign()[clear].float())


def test_adam_of_signs_is_adam_fed_with_signs(gradients):
    """torch's Adam with its rate × 0.1 at 3/8, 5/8 and 7/8: iterations 15, 25 and 35 of 40."""
    parameter = torch.zeros_like(gradients[0], requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=3.0)
    decay = torch.optim.lr_scheduler.MultiStepLR(adam, [15, 25, 35], gamma=0.1)
    for gradient, step in zip(gradients, steps("adam_of_signs", gradients, step=3.0), strict=True):
        parameter.data.zero_()
        parameter.grad = gradient.sign()
        adam.step()
        decay.step()
        torch.testing.assert_close(step, -parameter.detach(), rtol=1e-4, atol=1e-7)


# --- objectives ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", AUGMENTATIONS)
def test_dm_objective_is_eq_5(scene, values, strategy):
    crafting = replace(CRAFTING, augmentation=strategy)
    objective = objective_of("dm_poison", scene, crafting, None)
    loss, gradient = value_and_gradient(objective, values)

    plain = values.double().requires_grad_()
    of = partial(random_embeddings, scene, strategy, PURPOSE)
    expected = (of(scene.target.pixels[None])[0] - of(plain).mean(0)).square().sum()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    close(gradient, torch.autograd.grad(expected, plain)[0])


@pytest.mark.parametrize("strategy", AUGMENTATIONS)
def test_untargeted_objective_is_minus_the_distance_to_the_clean_mean(scene, values, strategy):
    """A term a class: its clean mean is that of clean_batch images, drawn anew."""
    crafting = replace(CRAFTING, augmentation=strategy)
    objective = objective_of("untargeted", scene, crafting, torch.tensor([0, 1, 26, 27]))
    loss, gradient = value_and_gradient(objective, values)

    plain = values.double().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for c, count, mine in ((0, 12, plain[:2]), (2, 13, plain[2:])):
        order = torch.randperm(count, generator=generator(*PURPOSE, "clean", c))[:8]
        clean = scene.train.pixels[scene.train.labels == c][order]
        of = partial(random_embeddings, scene, strategy, (*PURPOSE, c))
        expected = expected - (of(clean).mean(0) - of(mine).mean(0)).square().sum()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    close(gradient, torch.autograd.grad(expected, plain)[0])


def clean_mean(scene, label, drawn, of):
    """Mean embedding of ten clean images of a class, drawn for a purpose."""
    own = scene.train.pixels[scene.train.labels == label]
    order = torch.randperm(len(own), generator=generator(*PURPOSE, *drawn))[:10]
    return of(own[order]).mean(0)


def graded(scene, values, of, mean, way):
    places = torch.linspace(0.8, 1.0, 4, dtype=torch.float64)
    apart = (of(values).mean(0) - (mean + 0.9 * way)).square().sum()
    off = [(v - mean) @ way / way.norm() - a * way.norm() for v, a in zip(of(values), places)]  # noqa: B905
    return apart + 0.1 * sum(o**2 for o in off) / 4


def counterpoised(scene, values, of, mean, way):
    found = of(values)
    here, there = found[:3].mean(0), found[3]
    return (here - mean - way).square().sum() + (there - mean + 2 * way).square().sum()


def translated(scene, values, of, mean, way):
    now, before = of(values), of(scene.train.pixels[12:16])
    kept = [(now[i] - now.mean(0)) - (before[i] - before.mean(0)) for i in range(4)]
    apart = (of(scene.target.pixels[None])[0] - now.mean(0)).square().sum()
    return apart + 0.1 * sum(k.square().sum() for k in kept) / 4


@pytest.mark.parametrize("strategy", AUGMENTATIONS)
@pytest.mark.parametrize(
    ("attack", "equation"),
    [("graded_dm", graded), ("counterpoised_dm", counterpoised), ("translated_dm", translated)],
)
def test_adaptive_objectives_are_their_equations(scene, values, strategy, attack, equation):
    crafting = replace(CRAFTING, augmentation=strategy)
    objective = objective_of(attack, scene, crafting, torch.arange(12, 16))
    loss, gradient = value_and_gradient(objective, values)

    plain = values.double().requires_grad_()
    of = partial(random_embeddings, scene, strategy, PURPOSE)
    with torch.no_grad():
        mean = clean_mean(scene, 1, ["clean"], of)
        way = of(scene.target.pixels[None])[0] - mean
    expected = equation(scene, plain, of, mean, way)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    close(gradient, torch.autograd.grad(expected, plain)[0])


def test_decoys_vary_along_the_way_to_both_sides(scene, values):
    """Decoys of class 0 and 2, one to either side, and poisons of class 1."""
    indices = torch.tensor([0, 1, 12, 13, 26, 27])
    six = torch.cat([values, 255 - values[:2]])
    objective = objective_of("decoy_dm", scene, replace(CRAFTING, augmentation=()), indices)
    loss, gradient = value_and_gradient(objective, six)

    plain = six.double().requires_grad_()
    of = partial(random_embeddings, scene, (), PURPOSE)
    with torch.no_grad():
        means = [clean_mean(scene, c, drawn, of) for c, drawn in
                 ((0, ["clean", 0]), (1, ["clean"]), (2, ["clean", 2]))]  # fmt: skip
        way = of(scene.target.pixels[None])[0] - means[1]
    found = of(plain)
    expected = (found[2:4].mean(0) - means[1] - way).square().sum()
    for first, c in ((0, 0), (4, 2)):
        expected = expected + (found[first] - means[c] - way).square().sum()
        expected = expected + (found[first + 1] - means[c] + way).square().sum()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    close(gradient, torch.autograd.grad(expected, plain)[0])


def cosine(scene, victim, values, strategy):
    """Eq. 4's cosine for one victim: a gradient for each image, summed, concatenated."""
    weights = double(victim, trainable=True)
    parameters = list(weights.values())

    def flat(x, create_graph):
        loss = F.cross_entropy(forward(weights, x)[1], torch.tensor([1]))
        parts = torch.autograd.grad(loss, parameters, create_graph=create_graph)
        return torch.cat([part.reshape(-1) for part in parts])

    wanted = flat(inputs(scene.target.pixels[None]), False)
    drawn = draw(strategy, len(values), generator(*PURPOSE, "augmentation"), shared=True)
    poisons = torch.zeros_like(wanted)
    for i, x in enumerate(values):
        own = Draw((drawn.operations[i],), drawn.uniforms[i : i + 1])
        poisons = poisons + flat(augment(inputs(x)[None, None], own)[0], True)
    return F.cosine_similarity(wanted, poisons, dim=0)


@pytest.mark.parametrize("strategy", AUGMENTATIONS)
def test_gradient_matching_objective_is_eq_4(scene, values, strategy):
    """The mean of 1 − cosine over victims, and its gradient by pixel values; the plain autograd
    that it is compared with agrees with finite differences."""
    crafting = replace(CRAFTING, augmentation=strategy)
    objective = objective_of("gradient_matching", scene, crafting, None)
    loss, gradient = value_and_gradient(objective, values)

    def expected(v):
        cosines = [cosine(scene, victim, v, strategy) for victim in scene.victims]
        return 1 - sum(cosines) / len(cosines)

    plain = values.double().requires_grad_()
    value = expected(plain)
    (plain_gradient,) = torch.autograd.grad(value, plain)
    assert loss == pytest.approx(float(value.detach()), rel=1e-4)
    close(gradient, plain_gradient)

    direction = torch.randn(plain.shape, generator=generator("direction"), dtype=torch.float64)
    shifted = [expected(plain.detach() + h * direction).detach() for h in (1e-5, -1e-5)]
    slope = float((plain_gradient * direction).sum())
    assert float(shifted[0] - shifted[1]) / 2e-5 == pytest.approx(slope, rel=1e-4)


def test_gradient_matching_of_the_target_itself_is_perfect(scene):
    crafting = replace(CRAFTING, augmentation=())
    objective = objective_of("gradient_matching", scene, crafting, None)
    copies = scene.target.pixels.float().expand(3, -1, -1, -1)
    assert float(total(objective(copies, PURPOSE)).detach()) == pytest.approx(0, abs=1e-6)


def close(gradient, expected):
    """Equal to 1e-3 of the largest entry: float32 through norms against float64."""
    assert float(expected.abs().max()) > 0
    assert float((gradient - expected).abs().max()) < 1e-3 * float(expected.abs().max())
