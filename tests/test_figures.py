"""Each figure builds, says what it shows, and renders to the same bytes twice."""

import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from rdmdc.records import (
    LabelledImages,
    Normalisation,
    PoisonSet,
    RecordError,
    SyntheticSet,
    Target,
)
from rdmdc.reporting import accuracy_asr as drawing
from rdmdc.reporting import figures, image_figures
from rdmdc.reporting.accuracy_asr import accuracy_asr
from rdmdc.reporting.matrix import matrix

ROOT = Path(__file__).parents[1]
NAMES = ("Activities", "Animals & Nature", "Objects", "Smileys & Emotion", "US$ and CA$")
NORMALISATION = Normalisation((0.7, 0.6, 0.5), (0.3, 0.2, 0.1))


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


def target(seed: int = 0) -> Target:
    return Target(seed, seed, pixels(3, 8, 8, seed=seed), seed % 5, (seed + 3) % 5)


def train() -> LabelledImages:
    labels = torch.arange(5).repeat_interleave(8)
    return LabelledImages(pixels(40, 3, 8, 8), labels, NAMES, NORMALISATION)


def poisoned(*indices: int) -> PoisonSet:
    """Poisons that are 20 brighter or darker than their originals, checkerwise."""
    images = train()
    chosen = torch.tensor(indices, dtype=torch.int64)
    signs = torch.ones(8, 8)
    signs[::2] = -1
    changed = (images.pixels[chosen] + 20 * signs).clamp(0, 255).to(torch.uint8)
    return PoisonSet(chosen, images.labels[chosen], changed)


def condensed(classes: tuple[str, ...] = NAMES, channels: int = 3, ipc: int = 2) -> SyntheticSet:
    labels = torch.arange(len(classes)).repeat_interleave(ipc)
    normalisation = Normalisation((0.5,) * channels, (0.25,) * channels)
    shape = (len(labels), channels, 8, 8)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return SyntheticSet(inputs, labels, classes, normalisation)


def table(attacks: dict[str, float | None], methods: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        {
            "label": method,
            "architecture": "convnet",
            "attack": attack,
            "eps": eps,
            "accuracy_mean": 44.0 - i,
            "accuracy_std": 0.4,
            "asr_mean": 40.0,
            "asr_low": 60.0 if i else 20.0,
            "asr_high": 95.0,
            "clean_accuracy_mean": 45.0 - i,
            "clean_asr_mean": 5.0,
        }
        for attack, eps in attacks.items()
        for i, method in enumerate(methods)
    ]
    return pd.DataFrame(rows)


METHODS = ("DM", "DM + Median", "DM + Trim", "RDM-DC")
FIGURES: dict[str, tuple[Callable[[], Figure], tuple[str, ...]]] = {
    "targets": (
        lambda: image_figures.targets([target(s) for s in range(7)], NAMES),
        ("seed 0", "seed 6", "Activities\n→ Smileys &\nEmotion", r"Objects" + "\n→ Activities"),
    ),
    "poisons": (
        lambda: image_figures.poisons(train(), poisoned(*range(8)), target(), 64, count=4),
        (
            "original",
            "difference\n× 1.99\n(±64/255\nfills the range)",
            "poison",
            "4 of 8 poisons, class Activities",
            "target, seed 0",
            "no. 0",
            "no. 7",
        ),
    ),
    "poisons of all classes": (
        lambda: image_figures.poisons(train(), poisoned(0, 9, 17, 25), target(), 64),
        ("4 of 4 poisons, of several classes", "no. 9\nAnimals & Nature"),
    ),
    "direct poison": (
        lambda: image_figures.poisons(train(), poisoned(3), target(), None),
        ("difference\n× 1", "1 of 1 poisons, class Activities", "no. 3"),
    ),
    "synthetic": (
        lambda: image_figures.synthetic({m: condensed() for m in METHODS}, per_class=3),
        (*METHODS, "Smileys &\nEmotion", r"US\$ and CA\$"),
    ),
    "many grey classes": (
        lambda: image_figures.synthetic({"DM": condensed(tuple(map(str, range(200))), channels=1)}),
        ("12 of 200 classes", "0", "199"),
    ),
    "accuracy and ASR": (
        lambda: accuracy_asr(table({"DM Poison": 64, "Direct": None}, METHODS)),
        (
            *("DM Poison, eps 64/255", "Direct", *METHODS, "clean", "poisoned (95 % interval)"),
            *("test accuracy, %", "attack success rate (ASR), %"),
        ),
    ),
    "matrix": (
        lambda: matrix(table({"DM Poison": 64, "Direct": None}, ("DM", "RDM-DC"))),
        ("DM", "RDM-DC", "DM Poison, 64/255", "Direct", "40 / 5\n44.0", "40 / 5\n43.0"),
    ),
}


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_says_what_it_shows_and_renders_alike(name: str) -> None:
    build, expected = FIGURES[name]
    figure = build()
    assert set(expected) <= texts(figure)
    for form, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first = figures.rendered(figure, form, 60)
        assert first.startswith(start)
        assert first == figures.rendered(build(), form, 60)
        assert first == figures.rendered(figure, form, 60)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_another_or_leaves_the_figure(name: str) -> None:
    figure = FIGURES[name][0]()
    figures.rendered(figure, "png", 100)
    unseen = set()
    for axes in figure.axes:
        for axis, place in ((axes.xaxis, 0), (axes.yaxis, 1)):
            low, high = sorted(axis.get_view_interval())
            unseen |= {
                t for t in axis.get_ticklabels() if not low <= t.get_position()[place] <= high
            }
        if not axes.axison:
            unseen |= set(axes.findobj(Text)) - set(axes.texts)
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unseen
    ]
    assert set(FIGURES[name][1]) <= {text for text, _ in boxes}
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, second) in combinations(boxes, 2):
        across = min(box.x1, second.x1) - max(box.x0, second.x0)
        down = min(box.y1, second.y1) - max(box.y0, second.y0)
        assert across <= 0 or down <= 0, (text, other)


def test_pyplot_is_left_alone() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for build, _ in FIGURES.values():
        build()
    assert plt.get_fignums() == before


def test_difference_fills_the_range_around_grey() -> None:
    figure = image_figures.poisons(train(), poisoned(*range(6)), target(), 20, count=2)
    difference = np.asarray(figure.axes[4].images[0].get_array())
    original = train().pixels[0].permute(1, 2, 0).numpy()
    unclipped = (original >= 20) & (original <= 235)
    expected = np.broadcast_to(np.arange(8)[:, None, None] % 2, original.shape)
    np.testing.assert_allclose(difference[unclipped], expected[unclipped], atol=1e-6)


def test_synthetic_images_are_shown_in_pixel_space() -> None:
    condensed_set = condensed()
    figure = image_figures.synthetic({"DM": condensed_set}, per_class=2)
    mosaic = np.asarray(figure.axes[0].images[0].get_array())
    expected = condensed_set.normalisation.images(condensed_set.inputs)[3].permute(1, 2, 0)
    np.testing.assert_allclose(mosaic[11:19, 11:19], expected)


def test_a_matrix_leaves_fields_empty_that_the_table_does_not_have() -> None:
    both = table({"DM Poison": 64}, ("DM", "RDM-DC"))
    one = table({"Direct": None}, ("RDM-DC",)).assign(asr_mean=95.0)
    (image,) = matrix(pd.concat([both, one])).axes[0].images
    np.testing.assert_allclose(
        np.ma.filled(image.get_array(), np.nan), [[35.0, 35.0], [np.nan, 90.0]]
    )
    with pytest.raises(figures.FigureError, match="no rows"):
        matrix(both.iloc[:0])


def test_points_stand_where_the_table_says_and_keep_their_look() -> None:
    figure = accuracy_asr(table({"DM Poison": 64, "Direct": None}, METHODS))
    for axes in figure.axes:
        markers = [line for line in axes.lines if line.get_marker() in drawing.MARKERS]
        hollow = [line for line in markers if to_hex(line.get_markerfacecolor()) == "#ffffff"]
        filled = [line for line in markers if line not in hollow]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in filled] == [
            (44.0 - i, 40.0) for i in range(4)
        ]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in hollow] == [
            (45.0 - i, 5.0) for i in range(4)
        ]
        looks = [(line.get_marker(), line.get_color()) for line in filled]
        assert looks == [(line.get_marker(), line.get_color()) for line in hollow]
        assert len({marker for marker, _ in looks}) == len({c for _, c in looks}) == 4


COLOUR_BLIND = {  # Machado, Oliveira and Fernandes 2009, severity 1; of linear RGB
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(colour: str, by: str) -> np.ndarray:
    """A colour in CIELAB, D65, as someone sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(COLOUR_BLIND[by]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ linear / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("by", COLOUR_BLIND)
def test_twelve_colours_differ_for_everyone_and_on_white(by: str) -> None:
    assert len(drawing.COLOURS) >= 12
    for one, other in combinations([*drawing.COLOURS, "#FFFFFF"], 2):
        assert np.linalg.norm(seen(one, by) - seen(other, by)) > 15, (one, other)


def test_no_two_methods_of_the_default_preset_look_alike() -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    rows = config["tables"][config["figures"]["table"]]["rows"]
    methods = list(dict.fromkeys(method for row in rows for method in row["methods"]))
    assert len(methods) >= 8
    figure = accuracy_asr(table({"DM Poison": 64}, tuple(methods)))
    drawn = [line for line in figure.axes[0].lines if line.get_marker() in drawing.MARKERS]
    looks = {(line.get_marker(), to_hex(line.get_color())) for line in drawn}
    assert len({marker for marker, _ in looks}) == len({colour for _, colour in looks})
    assert len(looks) == len(methods)


def test_nothing_to_draw_is_an_error() -> None:
    nothing = PoisonSet(
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
        pixels(0, 3, 8, 8),
    )
    with pytest.raises(figures.FigureError, match="no targets"):
        image_figures.targets([], NAMES)
    with pytest.raises(figures.FigureError, match="no poisons"):
        image_figures.poisons(train(), nothing, target(), 64)
    with pytest.raises(figures.FigureError, match="no condensed sets"):
        image_figures.synthetic({})
    with pytest.raises(figures.FigureError, match="no rows"):
        accuracy_asr(table({}, METHODS))
    with pytest.raises(figures.FigureError, match="RDM-DC has classes"):
        image_figures.synthetic({"DM": condensed(), "RDM-DC": condensed(NAMES[:2])})
    with pytest.raises(figures.FigureError, match="format gif; choose png or svg"):
        figures.rendered(Figure(), "gif", 60)


def test_poisons_of_another_label_are_an_error() -> None:
    wrong = poisoned(0, 1)
    wrong = PoisonSet(wrong.indices, wrong.labels + 1, wrong.pixels)
    with pytest.raises(RecordError, match="label differs"):
        image_figures.poisons(train(), wrong, target(), 64)


def test_architectures_have_panels_of_their_own():
    both = pd.concat(
        [table({"Direct": None}, ("DM",)).assign(architecture=a) for a in ("convnet", "mlp")]
    )
    titles = [axes.get_title() for axes in accuracy_asr(both).axes]
    assert [t for t in titles if t] == ["Direct, convnet", "Direct, mlp"]
