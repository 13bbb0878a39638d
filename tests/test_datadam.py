"""DataDAM against a loop in double precision that writes the network out."""

import pytest
import torch
from test_condense import PLAIN, STRATEGY, calibration, poison

from rdmdc import plugins
from rdmdc.condensers.datadam import Options, attention, datadam
from rdmdc.condensers.task import Task
from rdmdc.models.augment import Draw, augment, draw
from rdmdc.networks.convnet import ConvNet
from rdmdc.networks.mlp import MLP
from rdmdc.randomness import generator
from rdmdc.training_data import TrainingData

OPTIONS = Options(
    ipc=2,
    batch=10,
    iterations=2,
    learning_rate=1.0,
    momentum=0.5,
    initialisation="noise",
    log_every=1,
    balance=0.01,
)


def maps_and_embedding(weights, images):
    """The unit-length attention map of the first of two blocks, and the embedding."""
    layers, x, maps = torch.nn.functional, images, []
    for block in range(2):
        x = layers.conv2d(
            x, weights[f"conv{block}.weight"], weights[f"conv{block}.bias"], padding=1
        )
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), False, keepdim=True) + 1e-5).sqrt()
        x = x * weights[f"norm{block}.weight"].view(1, -1, 1, 1)
        x = x + weights[f"norm{block}.bias"].view(1, -1, 1, 1)
        x = x * (x > 0)
        flat = x.sum(1).flatten(1)
        maps.append(flat / flat.norm(dim=1, keepdim=True))
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
    return maps[0], x.flatten(1)


def textbook(train, network, options, calibrate):
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.6], [0.2, 0.3, 0.25]))
    m = options.ipc
    start = torch.randn((3 * m, 3, 8, 8), generator=generator(5, "condense", 0, "start"))
    synthetic = start.double().requires_grad_()
    sgd = torch.optim.SGD([synthetic], lr=options.learning_rate, momentum=options.momentum)
    losses = []
    for number in range(options.iterations):
        purpose = (5, "condense", 0, number)
        weights = network.draw(generator(*purpose, "network"))
        weights = {name: w.double() for name, w in weights.items()}
        drawn = draw(STRATEGY, 3, generator(*purpose, "augmentation"), shared=False)
        for c in range(3):
            own = Draw((drawn.operations[c],), drawn.uniforms[c : c + 1])
            members = (train.labels == c).nonzero().flatten()
            order = torch.randperm(len(members), generator=generator(*purpose, "batch", c))
            pixels = train.pixels[members[order[: options.batch]]].double()
            images = augment(((pixels / 255 - mean) / std)[None], own)[0]
            made = augment(synthetic[c * m : (c + 1) * m][None], own)[0]
            joined = torch.cat(
                [
                    scale * part
                    for scale, part in zip(
                        (1, options.balance**0.5), maps_and_embedding(weights, images), strict=True
                    )
                ],
                1,
            )
            wanted = torch.from_numpy(calibrate(joined.numpy()))
            a, e = (part.mean(0) for part in maps_and_embedding(weights, made))
            loss = (a - wanted[: len(a)]).square().sum()
            loss = loss + (options.balance**0.5 * e - wanted[len(a) :]).square().sum()
            losses.append(100 * loss)
        sgd.zero_grad()
        torch.stack(losses[-3:]).sum().backward()
        sgd.step()
    return synthetic.detach(), [float(loss.detach()) for loss in losses]


@pytest.mark.parametrize("estimator", PLAIN)
def test_against_a_plain_loop(train, network, quiet, never, estimator):
    poisons = poison([13, 15, 20], [1, 1, 1])
    panel = {"only": calibration(estimator)}
    task = Task(TrainingData(train, poisons), network, STRATEGY, panel, 5, 0, "cpu")
    made, trace = datadam(task, OPTIONS, quiet, never)["only"]
    expected, losses = textbook(poisons.apply(train), network, OPTIONS, PLAIN[estimator])
    torch.testing.assert_close(made.inputs.double(), expected, rtol=0, atol=1e-4)
    assert trace.loss.tolist() == pytest.approx(losses, rel=1e-3)
    start = torch.randn((6, 3, 8, 8), generator=generator(5, "condense", 0, "start"))
    assert float((made.inputs - start).abs().amax((1, 2, 3)).min()) > 0.05, "nothing has moved"


def test_maps_of_every_layer_but_the_last_at_length_one(train):
    network = ConvNet(3, 8, 3, width=4, depth=3)
    weights = network.draw(generator("w"))
    inputs = train.normalisation.normalise(train.pixels[:5])
    vectors = attention(network, weights, inputs, 2, balance=0.25)
    first, second, rest = vectors.split([64, 16, network.features], 1)
    for maps in (first, second):
        torch.testing.assert_close(maps.norm(dim=1), torch.full((5,), 10.0))
    torch.testing.assert_close(rest, 5 * network.embed(weights, inputs))


def test_a_network_without_maps_is_matched_by_its_embedding(train, quiet, never):
    """That is DM: with λ = 1/100 the scale of the loss is one."""
    network = MLP(3, 8, 3, hidden=8)
    panel = {"mean": calibration("mean")}
    task = Task(TrainingData(train), network, STRATEGY, panel, 5, 0, "cpu")
    made = datadam(task, OPTIONS, quiet, never)["mean"][0]
    plain = plugins.get("condenser", "dm", "")(task, OPTIONS, quiet, never)["mean"][0]
    torch.testing.assert_close(made.inputs, plain.inputs, rtol=1e-5, atol=1e-5)
