"""Verdicts on classes from a screening, and what was measured of how far they can be trusted."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rdmdc.records import LabelledImages, Screening

SCREEN: dict[str, Any] = {
    "networks": 16,
    "others": 384,
    "ridge": 0.1,
    "power_iterations": 20,
    "sample": 4096,
    "directions": 3,
    "components": 6,
    "groups": 3,
    "smallest": "1/100",
    "largest": "3/10",
    "separation": 0.8,
    "margin": 3.5,
    "fewest": 100,
}
"""Options of the screen `contrastive_minorities`: those that MEASURED was measured with."""

FOUND, NOTHING, UNKNOWN = "suspicious", "nothing found", "cannot tell"

FALSE_ALARMS = (
    "On clean data the audit called suspicious: none of CIFAR-10's 10 classes; none of 200"
    " classes of Tiny ImageNet (500 images each), and 1 of the 200 cut to 100 images each; but one"
    " or two of the 7 classes of emoji drawings in each of ten resamples, 0.9 % to 6.8 % of the"
    " images, where many nearly equal drawings (clock faces) form groups of their own."
)
MEASURED = (
    FALSE_ALARMS,
    "In trials during its development, of poisons made by distribution matching (DM) that were 10 %"
    " of their class it flagged 99.9 % on emoji drawings (20 targets, at least 98.6 % of each) and"
    " 98.8 % on CIFAR-10 (4 targets). At 5 % of a class: 80 % (10 targets, two of them missed"
    " altogether) and 33 % (3 targets).",
    "What it cannot see: poisons that are 2 % of their class or fewer (it found 20 % of them on"
    " the drawings and none on CIFAR-10; at 1 % none); classes of fewer than 100 images; classes"
    " that are poisoned all over or by more than 30 %; triggers and other attacks that were not"
    " tried. An attacker who knows the screen was missed in one of the trials. All of this was"
    " measured on images of 32 × 32 pixels.",
)


def rows(images: LabelledImages, screening: Screening, fewest: int) -> pd.DataFrame:
    """A row for each image: label, class, score, rank within the class, flagged, class_verdict.

    Rank 0 is the most suspicious image of its class. is_poison_issue and poison_score say the same
    as cleanlab's Datalab would of an issue "poison" (https://docs.cleanlab.ai): scores in 0..1, the
    lower the worse, here 1 / (1 + score).
    """
    frame = pd.DataFrame(
        {
            "label": images.labels.numpy(),
            "class": [images.class_names[label] for label in images.labels.tolist()],
            "score": screening.scores.numpy(),
        }
    )
    order = frame.groupby("label")["score"].rank(method="first", ascending=False)
    frame["rank"] = order.astype("int64") - 1
    frame["flagged"] = ~screening.kept.numpy()
    judged = classes(frame, fewest).set_index("label")["verdict"]
    frame["class_verdict"] = frame["label"].map(judged)
    frame["is_poison_issue"] = frame["flagged"]
    frame["poison_score"] = 1 / (1 + frame["score"])
    return frame


def classes(rows: pd.DataFrame, fewest: int) -> pd.DataFrame:
    """A row for each class: label, class, images, flagged, separation, verdict.

    separation: the share of the variance along the screen's direction that the split into a group
    and the rest explains, for the class's most separate group.
    """
    found = rows.groupby(["label", "class"], sort=True).agg(
        images=("score", "size"), flagged=("flagged", "sum"), highest=("score", "max")
    )
    found["separation"] = found["highest"] / (1 + found["highest"])
    found["verdict"] = [
        FOUND if flagged else NOTHING if images >= fewest else UNKNOWN
        for images, flagged in zip(found["images"], found["flagged"], strict=True)
    ]
    return found.drop(columns="highest").reset_index()
