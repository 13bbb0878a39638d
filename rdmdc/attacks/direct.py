"""The direct attack: the target itself under the adversarial label."""

from __future__ import annotations

import pandas as pd

from rdmdc import plugins
from rdmdc.attacks.crafting import Crafted, Scene, choose
from rdmdc.checkpoints import Checkpoints
from rdmdc.progress import OnStep
from rdmdc.records import PoisonSet


@plugins.attack()
def direct(scene: Scene, options: None, progress: OnStep, checkpoints: Checkpoints) -> Crafted:
    """Copies of the target under the adversarial label (§5.3, Table 5); it needs no crafting."""
    indices = choose(scene, [scene.target.adversarial_label])
    copies = scene.target.pixels.expand(len(indices), -1, -1, -1).clone()
    return PoisonSet(indices, scene.train.labels[indices], copies), pd.DataFrame()
