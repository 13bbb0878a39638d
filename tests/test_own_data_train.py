"""`rdmdc train SET`: a network whose accuracy is of real images only, and a loader without us."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import torch
from owndata_forms import FORMS, folder
from owndata_set import made as made
from owndata_set import quick as quick
from PIL import Image
from test_own_data_audit import NAMES, arrays

from rdmdc.__main__ import main
from rdmdc.owndata import confusion, opening

DOCS = Path(__file__).parents[1] / "docs/own-data.md"


def held_out(path, form="folder", counts=(30, 20, 40), names=NAMES):
    """Real images in a form, and their pixels and labels."""
    pixels, labels, _ = arrays(poisoned=False, counts=counts)
    return FORMS[form](path, pixels, labels, names), pixels, labels


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_accuracy_is_counted_on_the_images_that_are_named(made, tmp_path, capsys, form):
    data, pixels, labels = held_out(tmp_path / "test", form)
    out = tmp_path / "network"
    assert main(["train", str(made.set), "--test", str(data), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    counts = pd.read_csv(out / "confusion.csv", index_col=0)
    assert list(counts.index) == list(counts.columns) == NAMES
    assert counts.sum(axis=1).tolist() == [30, 20, 40]
    right = int(np.trace(counts.to_numpy()))
    assert f"accuracy: {right / 90:.1%} ({right} of 90 real images; one network)" in said
    assert re.search(rf"  2 cat é +{' +'.join(map(str, counts.iloc[2]))}\n", said)
    with Image.open(out / "confusion.png") as figure:
        assert figure.size[0] > 100
    own = _plain(out, made.set)
    with torch.no_grad():
        predicted = own(_normalised(pixels, made.set)).argmax(1)
    assert (predicted == torch.tensor(labels)).sum() == right


def test_the_first_network_of_the_card_again(made, tmp_path):
    """On the images that were held out: the same draws, so the same accuracy."""
    from rdmdc.datasets import image_list

    listed = image_list.load(made.work / "images.parquet")
    for index in listed.part(True):
        file = Path(listed.files[index])
        (tmp_path / "test" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / file.parent.name / file.name).symlink_to(file)
    words = ["train", str(made.set), "--test", str(tmp_path / "test")]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    counts = pd.read_csv(tmp_path / "out/confusion.csv", index_col=0).to_numpy()
    card = json.loads((made.set / "provenance.json").read_text())["accuracies"]["exact"][0]
    assert np.trace(counts) / counts.sum() == card


def test_no_accuracy_of_what_it_was_trained_on(made, tmp_path, capsys):
    assert main(["train", str(made.set), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "no accuracy: name real images" in said and "%" not in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights.safetensors"]


def test_it_lies_beside_the_set(made, capsys):
    """Inside, it would break the set's signature."""
    before = sorted(made.set.rglob("*"))
    assert main(["train", str(made.set)]) == 0
    assert (made.set.parent / "set.network/weights.safetensors").is_file()
    assert sorted(made.set.rglob("*")) == before


def test_the_test_split_of_data_with_splits(made, tmp_path, capsys):
    held_out(tmp_path / "both/train")
    held_out(tmp_path / "both/test", counts=(5, 6, 7))
    words = ["train", str(made.set), "--test", str(tmp_path / "both"), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    assert "of 18 real images" in capsys.readouterr().out


def test_what_is_broken_is_listed(made, tmp_path, capsys):
    held_out(tmp_path / "test", counts=(5, 6, 7))
    (tmp_path / "test/ant/notes.txt").write_text("bees are insects")
    words = ["train", str(made.set), "--test", str(tmp_path / "test"), "-o", str(tmp_path / "out")]
    assert main(words) == 1 and "--skip-broken" in capsys.readouterr().err
    assert main([*words, "--skip-broken"]) == 0
    said = capsys.readouterr().out
    assert "ant/notes.txt: no image that can be decoded" in said and "of 18 real images" in said


def strange(path):
    held_out(path, names=["ant", "bee", "dog"])


def missing(path):
    pixels, labels, _ = arrays(poisoned=False, counts=(5, 6, 7))
    folder(path, pixels[:11], labels[:11], NAMES)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (strange, "class 'dog' is not one of the set's, ant, bee, cat é; rename or remove it"),
        (missing, "no images of class 'cat é', which the set has; add some"),
    ],
)
def test_other_classes(made, tmp_path, capsys, make, fault):
    make(tmp_path / "test")
    words = ["train", str(made.set), "--test", str(tmp_path / "test"), "-o", str(tmp_path / "out")]
    assert main(words) == 1
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(made, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["train", str(made.set), "-o", str(tmp_path)]) == 1
    assert main(["train", str(made.set), "-o", str(made.set)]) == 1
    assert capsys.readouterr().err.count("holds other files; name a new folder by -o") == 2


@pytest.mark.parametrize("name", ["set.safetensors", "preset.yaml"])
def test_a_damaged_set(made, tmp_path, capsys, name):
    for file in ("set.safetensors", "preset.yaml"):
        (tmp_path / file).write_bytes((made.set / file).read_bytes())
    (tmp_path / name).write_bytes(b"[1, 2")
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert f"{name}: damaged, or not of a condensed set" in capsys.readouterr().err


def test_what_is_no_set(tmp_path, capsys):
    assert main(["train", str(tmp_path)]) == 1
    assert "no condensed set, it has no set.safetensors" in capsys.readouterr().err


def test_many_classes_are_told_by_their_mistakes():
    counts = np.eye(20, dtype=int) * 5
    counts[3, 7] = 4
    said = list(confusion.told(counts, [f"c{number}" for number in range(20)]))
    assert said == [
        "accuracy: 96.2% (100 of 104 real images; one network)",
        "the commonest mistakes:",
        "  4 of 9 of 'c3' are taken for 'c7'",
    ]
    assert confusion.figure(counts, ["x"] * 20) and confusion.figure(np.eye(60), ["x"] * 60)


# --- without this package --------------------------------------------------------------------


def snippets():
    """The Python code of the page, by its first comment."""
    code = re.findall(r"```python\n(# .*?)```", DOCS.read_text(), re.DOTALL)
    return {text.split("\n")[0].lstrip("# "): text for text in code}


def _plain(out, set_folder):
    """The network of the weights, made by the page's code alone."""
    (text,) = (code for title, code in snippets().items() if "the network" in title)
    scope = {}
    code = text.replace("small.network", str(out))
    exec(code, scope)
    return scope["network"]


def _normalised(pixels, set_folder):
    made = opening.opened(set_folder)
    return made.normalisation.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_the_loader_needs_nothing_of_ours(made, tmp_path):
    """The page's code runs beside a set, in a process that cannot import this package."""
    (text,) = (code for title, code in snippets().items() if "a loader" in title)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20 and "rdmdc" not in text
    (tmp_path / "small").symlink_to(made.set)
    code = "import sys; sys.modules['rdmdc'] = None\n" + text + PRINTED
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    with safetensors.safe_open(made.set / "set.safetensors", "pt") as file:
        inputs, labels = file.get_tensor("inputs"), file.get_tensor("labels")
    assert said["classes"] == NAMES and said["labels"] == labels.tolist()
    assert said["first"] == pytest.approx(float(inputs[0, 0, 0, 0]))
    assert said["black"] == pytest.approx(
        float(_normalised(np.zeros((1, 8, 8, 3), np.uint8), made.set)[0, 0, 0, 0])
    )


PRINTED = """
print(json.dumps({
    "classes": small.class_names,
    "labels": [label for _, label in small],
    "first": float(small[0][0][0, 0, 0]),
    "black": float(small.normalise(torch.zeros(3, 8, 8))[0, 0, 0]),
}))
"""
