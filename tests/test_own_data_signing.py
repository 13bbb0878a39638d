"""A signed set: whatever is not as it was signed is refused, with the reason."""

import subprocess

import pytest

from rdmdc.__main__ import main

pytest.importorskip("model_signing")


def pair(folder, name):
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    curve = ["-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    subprocess.run(["openssl", "ecparam", *curve], check=True, capture_output=True)
    words = ["-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(["openssl", "ec", *words], check=True, capture_output=True)
    return private, public


@pytest.fixture
def signed(tmp_path):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "set.safetensors").write_bytes(b"values")
    (folder / "images/0.png").write_bytes(b"a picture")
    private, public = pair(tmp_path, "mine")
    assert main(["sign", str(folder), "--key", str(private)]) == 0
    return folder, private, public


def verify(folder, key):
    return main(["verify-set", str(folder), "--key", str(key)])


def test_what_is_as_it_was_signed(signed, capsys):
    folder, private, public = signed
    assert verify(folder, public) == 0
    assert "as it was signed by the owner of" in capsys.readouterr().out
    assert main(["sign", str(folder), "--key", str(private)]) == 0
    assert verify(folder, public) == 0


def test_a_path_that_is_relative(signed, monkeypatch):
    folder, private, public = signed
    monkeypatch.chdir(folder.parent)
    assert main(["sign", "set", "--key", private.name]) == 0
    assert main(["verify-set", "set", "--key", public.name]) == 0


def changed(folder):
    (folder / "set.safetensors").write_bytes(b"valueS")


def added(folder):
    (folder / "images/1.png").write_bytes(b"another")


def removed(folder):
    (folder / "images/0.png").unlink()


def hidden(folder):
    (folder / ".git").mkdir()
    (folder / ".git/hook").write_bytes(b"another")


def truncated(folder):
    path = folder / "set.sig"
    path.write_bytes(path.read_bytes()[:100])


def without(folder):
    (folder / "set.sig").unlink()


@pytest.mark.parametrize("tamper", [changed, added, removed, hidden, truncated, without])
def test_tampering(signed, capsys, tamper):
    folder, _, public = signed
    tamper(folder)
    assert verify(folder, public) == 1
    said = capsys.readouterr().err
    assert said.startswith("rdmdc verify-set: ") and said.count("\n") == 1
    fault = {
        "changed": "set.safetensors",
        "added": "1.png",
        "removed": "0.png",
        "hidden": "hook",
        "without": "the set is not signed",
    }
    assert fault.get(tamper.__name__, "not what was signed") in said


def test_another_key(signed, tmp_path, capsys):
    folder, private, _ = signed
    _, other = pair(tmp_path, "other")
    assert verify(folder, other) == 1
    assert verify(folder, private) == 1
    assert verify(folder, tmp_path / "nothing.pem") == 1
    assert "nothing.pem: no such file" in capsys.readouterr().err


def test_what_is_no_set(tmp_path, capsys):
    private, _ = pair(tmp_path, "mine")
    assert main(["sign", str(tmp_path), "--key", str(private)]) == 1
    assert "it has no set.safetensors" in capsys.readouterr().err
