"""Options: every bad one is told in one line that names the field, the value and what would fit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rdmdc.options import OptionError, Rate, build, fields, option


@dataclass(frozen=True)
class Training:
    epochs: int = option("passes over the data", at_least=0)


@dataclass(frozen=True)
class Options:
    drop: Rate = option("share to drop")
    networks: int = option("random networks", at_least=1, at_most=9)
    ridge: float = option("weight of the ridge", above=0, below=1)
    exact: bool = option("without rounding")
    start: str = option("where it starts", choices=("noise", "real"))
    names: tuple[str, ...] = option("operations", choices=("crop", "flip"))
    batch: int | None = option("images at once; null is all", at_least=2, unit="images")
    poisons: int | Rate = option("a number, or a share")
    training: Training = option("how a network is trained")


GOOD = {
    "drop": "3/10",
    "networks": 3,
    "ridge": 0.5,
    "exact": True,
    "start": "noise",
    "names": ["crop", "flip"],
    "batch": None,
    "poisons": 4,
    "training": {"epochs": 2},
}


def test_good_options_become_a_record():
    made = build(Options, GOOD, "here")
    assert made == Options(
        "3/10", 3, 0.5, True, "noise", ("crop", "flip"), None, 4, Training(epochs=2)
    )


def test_a_whole_number_is_a_float_too():
    class_ = dataclass(frozen=True)(
        type("One", (), {"__annotations__": {"rate": float}, "rate": option("a rate")})
    )
    made = build(class_, {"rate": 2}, "here")
    assert made.rate == 2.0
    assert isinstance(made.rate, float)


BAD = {  # what is given, and what the line must name beside the field
    "unknown, with the nearest": ({"netwroks": 3}, ["'netwroks'", "did you mean networks?"]),
    "unknown, like none": ({"zzz": 3}, ["'zzz'", "options: drop, networks, ridge"]),
    "wrong type": (
        {"networks": "three"},
        ["here.networks", "'three'", "whole number", "at least 1"],
    ),
    "a float for a whole number": ({"networks": 3.0}, ["here.networks", "3.0", "whole number"]),
    "a bool for a whole number": ({"networks": True}, ["here.networks", "True", "whole number"]),
    "a bool for a number": ({"ridge": True}, ["here.ridge", "True", "number", "above 0"]),
    "a number for a bool": ({"exact": 1}, ["here.exact", "1", "true or false"]),
    "text for a bool": ({"exact": "yes"}, ["here.exact", "'yes'", "true or false"]),
    "nothing where it must be": ({"networks": None}, ["here.networks", "None", "whole number"]),
    "not a number": ({"ridge": float("nan")}, ["here.ridge", "nan", "above 0"]),
    "infinite": ({"ridge": float("inf")}, ["here.ridge", "inf", "below 1"]),
    "too small": ({"networks": 0}, ["here.networks", "0", "at least 1"]),
    "too large": ({"networks": 10}, ["here.networks", "10", "at most 9"]),
    "at an open bound": ({"ridge": 0}, ["here.ridge", "0", "above 0"]),
    "at the other open bound": ({"ridge": 1}, ["here.ridge", "1", "below 1"]),
    "too small, where null would do": ({"batch": 1}, ["here.batch", "1", "at least 2"]),
    "none of the choices": ({"start": "zeros"}, ["here.start", "'zeros'", "one of noise, real"]),
    "a rate as a float": ({"drop": 0.3}, ["here.drop", "0.3", 'such as "3/10"']),
    "a rate as a number": ({"drop": 1}, ["here.drop", "1", 'such as "3/10"']),
    "a rate above one": ({"drop": "3/2"}, ["here.drop", "'3/2'", "0..1"]),
    "a rate below zero": ({"drop": "-1/10"}, ["here.drop", "'-1/10'", "0..1"]),
    "no rate at all": ({"drop": "a third"}, ["here.drop", "'a third'", "3/10"]),
    "neither a number nor a rate": ({"poisons": 0.1}, ["here.poisons", "0.1", "3/10", "number"]),
    "a list for text": ({"start": ["noise"]}, ["here.start", "['noise']", "text", "noise, real"]),
    "text for a list": ({"names": "crop"}, ["here.names", "'crop'", "list"]),
    "twice in a list": ({"names": ["crop", "crop"]}, ["here.names", "'crop'", "twice", "remove"]),
    "a bad element": ({"names": ["crop", "blur"]}, ["here.names", "'blur'", "one of crop, flip"]),
    "a wrong element": ({"names": [3]}, ["here.names", "3", "text"]),
    "no section": ({"training": 3}, ["here.training", "3", "section", "epochs"]),
    "a bad option in a section": ({"training": {"epochs": -1}}, ["here.training.epochs", "-1"]),
    "an unknown option in a section": (
        {"training": {"epochs": 1, "epoch": 1}},
        ["here.training", "'epoch'", "did you mean epochs?"],
    ),
}


@pytest.mark.parametrize(("change", "named"), BAD.values(), ids=BAD)
def test_a_bad_option_is_told_in_one_line(change, named):
    with pytest.raises(OptionError) as caught:
        build(Options, {**GOOD, **change}, "here")
    message = str(caught.value)
    assert message.startswith("here")
    assert "\n" not in message
    for words in named:
        assert words in message, message


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_option_is_told_with_its_meaning(name):
    given = {key: value for key, value in GOOD.items() if key != name}
    text = fields(Options)[name][1]["text"]
    with pytest.raises(OptionError, match=f"^here: option '{name}' is missing: {text}"):
        build(Options, given, "here")


def test_a_plugin_without_options_takes_none():
    assert build(None, {}, "here") is None
    with pytest.raises(OptionError, match=r"^here: unknown option 'drop' \(options: none\)"):
        build(None, {"drop": "1/10"}, "here")


def test_keys_of_yaml_need_not_be_text():
    with pytest.raises(OptionError, match=r"^here: unknown option 3 "):
        build(Options, {**GOOD, 3: 4}, "here")
