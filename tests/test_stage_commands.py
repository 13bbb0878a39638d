"""`rdmdc stage NAME` runs a stage of the workflow; a stage's name alone is no command."""

import pytest

from rdmdc.__main__ import STAGES, main


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "required: COMMAND"),
        (["stage"], "required: STAGE"),
        (["stage", "mend"], "invalid choice: 'mend'"),
        (["target", "--options", "{}"], "invalid choice: 'target'"),
        (["stage", "target", "--options", "{}", "--test", "x"], "required: --target"),
        (["stage", "target", "--options", "{", "--test", "x", "--target", "y"], "--options"),
    ],
)
def test_misuse(words, fault, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_itself(stage, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["stage", stage, "--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: rdmdc stage {stage} ") and "--options" in said


def test_a_fault_names_the_stage(tmp_path, capsys):
    options = ["--options", "{}", "--target", "x"]
    assert main(["stage", "target", *options, "--test", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("rdmdc stage target: ")
