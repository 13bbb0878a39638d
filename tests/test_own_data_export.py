"""`rdmdc export SET`: what others open, and what was there before stays."""

import os
import subprocess
import sys
from pathlib import Path

import hub
import numpy as np
import pytest
import torch
from owndata_set import made as made
from owndata_set import quick as quick
from PIL import Image
from test_own_data_audit import NAMES

from rdmdc.__main__ import main
from rdmdc.owndata import opening, pictures
from rdmdc.records import Normalisation, SyntheticSet


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_class_folders(made, tmp_path, capsys):
    datasets = pytest.importorskip("torchvision.datasets")
    out = tmp_path / "out"
    assert main(["export", str(made.set), "--to", "folder", "-o", str(out)]) == 0
    assert "6 images in folders of 3 classes" in capsys.readouterr().out
    opened = datasets.ImageFolder(out)
    assert opened.classes == NAMES and opened.targets == [0, 0, 1, 1, 2, 2]
    wanted = [path.read_bytes() for path in sorted(made.set.rglob("images/*/*"))]
    assert [Path(path).read_bytes() for path, _ in opened.samples] == wanted
    assert main(["export", str(made.set), "--to", "folder", "-o", str(out), "--replace"]) == 1
    assert "exists already; name a new folder, or empty this one" in capsys.readouterr().err


def test_names_that_no_folder_can_have(tmp_path):
    names = ("a/b", "..", "a-b", "ö")
    normalisation = Normalisation((0.5,), (0.2,))
    made = SyntheticSet(torch.zeros(4, 1, 8, 8), torch.arange(4), names, normalisation)
    pictures.write_class_folders(tmp_path / "x", made, pictures.quantised(made))
    found = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert found == ["a-b 0", "a-b 2", "class 1", "ö"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_npz(made, tmp_path, capsys):
    out = tmp_path / "new/set.npz"
    words = ["export", str(made.set), "--to", "npz", "-o", str(out)]
    assert main(words) == 0
    exact = opening.opened(made.set)
    with np.load(out, allow_pickle=False) as file:
        assert np.array_equal(file["inputs"], exact.inputs.numpy())
        assert file["class_names"].tolist() == NAMES and file["labels"].tolist() == [
            0,
            0,
            1,
            1,
            2,
            2,
        ]
        first = file["images"][0]
    with Image.open(min(made.set.rglob("images/*/*"))) as image:
        assert np.array_equal(first, np.asarray(image))
    before = out.read_bytes()
    assert main(words) == 1
    assert "exists already; name another, or replace it by --replace" in capsys.readouterr().err
    out.write_bytes(b"else")
    assert main([*words, "--replace"]) == 0 and out.read_bytes() == before


def test_an_npz_is_data_again(made, tmp_path):
    """The form that rdmdc itself reads."""
    from test_own_data_messy import survey

    out = tmp_path / "set.npz"
    assert main(["export", str(made.set), "--to", "npz", "-o", str(out)]) == 0
    found, _ = survey(out)
    assert found["class_names"] == NAMES and found["train"] == [2, 2, 2]


# --- the hub ---------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path_factory, monkeypatch):
    pytest.importorskip("huggingface_hub")
    with hub.running() as running:
        monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def push(there, folder, *words, token="hf_mine"):
    """Call the command with the hub at the stand-in, as a person would: by the environment."""
    env = {**os.environ, "HF_ENDPOINT": there.endpoint, "HF_TOKEN": token}
    call = ["export", str(folder), "--to", "huggingface", "-o", "me/small", *words]
    code = "import sys; from rdmdc.__main__ import main; sys.exit(main(sys.argv[1:]))"
    run = [sys.executable, "-c", code, *call]
    return subprocess.run(run, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def small(made, tmp_path):
    """Two files of the set: what is pushed is not read."""
    for name in ("set.safetensors", "README.md"):
        (tmp_path / name).write_bytes((made.set / name).read_bytes())
    return tmp_path


def test_a_new_data_set(there, made):
    done = push(there, made.set)
    assert done.returncode == 0, done.stderr
    assert "datasets/me/small: 13 files" in done.stdout
    pushed = there.repositories["me/small"]
    assert {k: v for k, v in pushed.items() if k != ".gitattributes"} == files_of(made.set)
    assert there.private == {"me/small": True}
    assert there.commits == [("me/small", "Condensed set, by rdmdc export")]


def test_an_existing_card_stays(there, small):
    there.repositories["me/small"] = {"README.md": b"years of work", "old.csv": b"1"}
    done = push(there, small)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "the data set on the hub exists already" in done.stderr
    assert there.repositories["me/small"]["README.md"] == b"years of work" and not there.commits
    assert push(there, small, "--replace").returncode == 0
    assert there.repositories["me/small"] == files_of(small)


def test_an_empty_data_set_is_filled(there, small):
    there.repositories["me/small"] = {".gitattributes": b"x"}
    assert push(there, small, "--public").returncode == 0
    assert there.repositories["me/small"] == {**files_of(small), ".gitattributes": b"x"}


def test_not_logged_in(there, small):
    done = push(there, small, token="hf_other")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "are you logged in (hf auth login, or HF_TOKEN)?" in done.stderr
    assert not there.repositories


def test_no_hub_there(there, small):
    there.shutdown()
    there.server_close()
    done = push(there, small)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "cannot be pushed" in done.stderr


def test_what_is_no_set(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--to", "npz", "-o", "x.npz"]) == 1
    assert "no condensed set, it has no set.safetensors" in capsys.readouterr().err
    assert not Path("x.npz").exists()
