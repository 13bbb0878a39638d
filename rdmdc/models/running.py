"""How networks run: in chunks, and compiled where the machine and the network allow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch

from rdmdc.models.network import KernelError, Kernels, Network, Weights, classify
from rdmdc.models.processor import processor

# images at once: on a CPU so few that their activations stay in its cache
CHUNK = {"cpu": 16, "cuda": 1024}
GRADIENT_CHUNK = {"cpu": 64, "cuda": 512}


def to(weights: Mapping[str, torch.Tensor], device: torch.device | str) -> Weights:
    """The weights on a device, convolutions in channels-last order."""
    return {
        name: value.to(
            device,
            memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format,
        )
        for name, value in weights.items()
    }


def embed(
    network: Network, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Embeddings (N, D), differentiable once; where they run uncompiled, ``chunk`` at a time."""
    kernels = _kernels(network, inputs)
    if kernels is not None:
        return kernels(weights, inputs)
    return _in_chunks(network, weights, inputs, chunk)


def logits(
    network: Network, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Class scores (N, classes), differentiable once."""
    return classify(weights, embed(network, weights, inputs, chunk))


def loss_and_gradients(
    network: Network,
    weights: Mapping[str, torch.Tensor],
    inputs: torch.Tensor,
    labels: torch.Tensor,
    chunk: int,
) -> tuple[torch.Tensor, Weights]:
    """Mean cross-entropy () of inputs with labels (N,), and its gradients by the weights, which
    require them; those that the loss does not depend on are left out."""
    learner = network.learner(inputs.device.type) if _kernels(network, inputs) else None
    if learner is not None:
        return learner(weights, inputs, labels)
    loss = torch.nn.functional.cross_entropy(logits(network, weights, inputs, chunk), labels)
    made = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    found = zip(weights, made, strict=True)
    return loss.detach(), {name: value for name, value in found if value is not None}


def logits_for_weights(
    network: Network, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Class scores (N, classes), whose gradients by weights are differentiable by inputs."""
    kernels = _kernels(network, inputs)
    if kernels is not None:
        return classify(weights, kernels(weights, inputs))
    return network.logits(weights, inputs)


def embed_all(
    network: Network, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Embeddings (N, D) without gradients."""
    with torch.no_grad():
        return embed(network, weights, inputs, CHUNK[inputs.device.type])


def logits_all(
    network: Network, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Class scores (N, classes) without gradients."""
    with torch.no_grad():
        return logits(network, weights, inputs, CHUNK[inputs.device.type])


def even_chunk(count: int, each: int, device: str) -> int:
    """How many of ``count`` groups of ``each`` inputs to differentiate at once.

    It is the size of the fewest equal chunks of about GRADIENT_CHUNK inputs.
    """
    chunks = -(-count * each // GRADIENT_CHUNK[device])
    return -(-count // min(chunks, count))


def _in_chunks(
    network: Network, weights: Mapping[str, torch.Tensor], inputs: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Embed chunk by chunk. The last chunk is padded with zeros, which no output sees: one shape
    is compiled, and an input's result does not depend on how many follow it."""
    on_gpu = inputs.device.type == "cuda"
    run = _compiled(network, chunk) if _compiling and on_gpu else network.embed
    missing = -len(inputs) % chunk
    padded = inputs
    if missing:
        padded = torch.nn.functional.pad(inputs, (0, 0) * (inputs.ndim - 1) + (0, missing))
    frozen = not any(value.requires_grad for value in weights.values())
    halved = _precision == "bfloat16" and frozen
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=halved):
        embedded = [run(weights, part) for part in padded.split(chunk)]
    return torch.cat(embedded)[: len(inputs)].float()


# --- compiled or not -------------------------------------------------------------------------

_compiling = False
_precision = "float32"
_products = "float32"


def compiling(
    wanted: bool, device: str, network: Network | None, precision: str = "float32"
) -> str | None:
    """Run networks compiled from now on, or not. Returns the reason where that is not possible.

    On a CPU a family's own kernels run, on a GPU torch.compile; both differ from the uncompiled
    network in rounding only. What was compiled is kept on disk, in the user's cache folder. In
    precision "bfloat16" convolutions with frozen weights take factors of bf16; norms and sums stay
    float32; where the processor would not gain by it, the compiled kernels keep to float32.
    """
    global _compiling, _precision, _products
    reason = None
    if wanted and network is not None:
        try:
            network.kernels(device, precision)
        except KernelError as error:
            reason = str(error)
    _compiling, _precision = wanted and reason is None, precision
    _products = precision
    if _compiling and network is not None:
        _products = network.products(device, precision)
    return reason


def compiled() -> bool:
    """True if networks run compiled."""
    return _compiling


def arithmetic(device: str) -> dict[str, str | int | bool]:
    """What rounding depends on here: how networks run, threads, torch and the processor."""
    return {
        "compiled": _compiling,
        "precision": _precision,
        "products": _products,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
    }


def _kernels(network: Network, inputs: torch.Tensor) -> Kernels | None:
    return network.kernels(inputs.device.type, _precision) if _compiling else None


@cache
def _compiled(
    network: Network, count: int
) -> Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor]:
    # a function of its own for every shape: torch gives up on one that meets too many
    def run(weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        return network.embed(weights, inputs)

    run.__code__ = run.__code__.replace()
    return torch.compile(run, fullgraph=True, dynamic=False)
