"""An estimator of one's own: a function with a decorator, used by name once it is installed.

Here it is called directly; CONTRIBUTING.md shows how a package makes it known by an entry point.
"""

from dataclasses import dataclass

import torch

from rdmdc import plugins
from rdmdc.estimators.estimate import Estimate
from rdmdc.options import option


@dataclass(frozen=True)
class Options:
    """How strongly outliers are pulled in."""

    radius: float = option("distance from the mean beyond which a vector is pulled in", above=0)


@plugins.estimator(Options)
def clipped_mean(
    vectors: torch.Tensor, generators: list[torch.Generator], options: Options
) -> Estimate:
    """Mean of vectors whose distance from the plain mean is clipped (Huber's idea, one step)."""
    mean = vectors.mean(1, keepdim=True)
    away = vectors - mean
    length = away.norm(dim=2, keepdim=True).clamp(min=options.radius)
    return Estimate((mean + away * (options.radius / length)).mean(1), None)


vectors = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(0))
vectors[:, :5] += 50  # outliers
estimate = clipped_mean(vectors, [torch.Generator(), torch.Generator()], Options(radius=3.0))
print("plain mean:", vectors.mean(1).norm(dim=1).tolist())
print("clipped mean:", estimate.value.norm(dim=1).tolist())
