"""A small condensed set, made once for each file of tests that asks for it."""

from types import SimpleNamespace

import pytest
from owndata_forms import folder
from test_own_data_audit import NAMES, arrays

from rdmdc.__main__ import main
from rdmdc.owndata import choices, verdicts

ARGUMENTS = ["--ipc", "2", "--iterations", "3", "--width", "16", "--cores", "1"]


@pytest.fixture(scope="module")
def quick():
    """Few networks and epochs: what the set is worth is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verdicts.SCREEN, "networks", 2)
        patch.setitem(verdicts.SCREEN, "others", 60)
        patch.setitem(choices.EVALUATE, "epochs", 2)
        patch.setitem(choices.EVALUATE, "networks", {"convnet": 2})
        yield


@pytest.fixture(scope="module")
def made(quick, tmp_path_factory):
    """A set, condensed once from a folder with poisons in one class."""
    path = tmp_path_factory.mktemp("own")
    pixels, labels, _ = arrays()
    data = folder(path / "data", pixels, labels, NAMES)
    words = ["condense", str(data), "-o", str(path / "set"), *ARGUMENTS, "--license", "cc0-1.0"]
    assert main(words) == 0
    return SimpleNamespace(data=data, set=path / "set", work=path / "set.work", words=words)
