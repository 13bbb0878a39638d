"""Folders as people have them: each image comes out right, or one line says what to do."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdmdc.datasets import image_list
from rdmdc.datasets.split import DatasetError
from rdmdc.datasets.upright import header, upright
from rdmdc.owndata.class_folders import classes
from rdmdc.owndata.findings import Faults
from rdmdc.owndata.survey import Wanted, surveyed
from rdmdc.sources.own_data import Options, own_data


def picture(seed=0, size=(8, 8), mode="RGB"):
    channels = {"RGB": (3,), "RGBA": (4,), "CMYK": (4,), "L": ()}[mode]
    shape = (*size[::-1], *channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels, mode) if mode == "CMYK" else Image.fromarray(pixels)


@pytest.fixture
def data(tmp_path):
    """Two classes of three images each."""
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            picture(10 * number + index).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


def survey(data, skip=False, **options):
    """What the child finds, and the list that it writes."""
    import json
    from dataclasses import asdict

    wanted = Wanted(str(data), None, 0.0, skip, None, None)
    out = data.parent / "images.parquet"
    found = json.loads(surveyed({**asdict(wanted), **options}, str(out)))
    return found, image_list.load(out)


def decoded(data):
    """The images of the training split by the path of their file."""
    train, _ = own_data(Options(images=str(data.parent / "images.parquet")))
    images = train.images(np.ones(len(train.labels), dtype=bool))
    return {place: pixels for _, place, pixels in images}


# --- single images ---------------------------------------------------------------------------


def test_images_come_out_as_they_look(data):
    rgb, grey = picture(50), picture(51, mode="L")
    rgba, cmyk = picture(52, mode="RGBA"), picture(53, mode="CMYK")
    deep = np.random.default_rng(54).integers(0, 65536, (8, 8), dtype=np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    wide = picture(55, (12, 8))
    folder = data / "ant"
    rgb.save(folder / "rgb.png")
    grey.save(folder / "grey.png")
    rgba.save(folder / "rgba.png")
    cmyk.save(folder / "cmyk.tif")
    Image.fromarray(deep).save(folder / "deep.png")
    wide.save(folder / "turned.png", exif=turned)
    found, _ = survey(data)
    images = {Path(place).name: pixels for place, pixels in decoded(data).items()}
    assert found["color"] == "rgb" and found["size"] == 32 and "8×12" in found["sizes"]
    assert np.array_equal(images["rgb.png"], np.asarray(rgb))
    assert np.array_equal(images["grey.png"], np.asarray(grey))
    over_white = Image.alpha_composite(Image.new("RGBA", (8, 8), "white"), rgba).convert("RGB")
    assert np.array_equal(images["rgba.png"], np.asarray(over_white))
    assert np.array_equal(images["cmyk.tif"], np.asarray(cmyk.convert("RGB")))
    assert np.abs(images["deep.png"] - deep / 257).max() <= 0.51
    assert np.array_equal(images["turned.png"], np.asarray(wide.transpose(Image.ROTATE_270)))


def test_a_folder_of_grey_images_stays_grey(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        picture(1, mode="L").save(tmp_path / "data" / name / "0.png")
    assert survey(tmp_path / "data")[0]["color"] == "grey"


def test_what_has_more_than_16_bits_is_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="mode F, more than 16 bits"):
        upright((tmp_path / "x.tif").read_bytes())


def test_a_header_tells_the_size_once_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 8
    picture(1, (12, 8)).save(tmp_path / "x.jpg", exif=turned)
    assert header((tmp_path / "x.jpg").read_bytes()) == ((8, 12), False)


# --- faults ----------------------------------------------------------------------------------


def truncated(folder):
    picture(1, (64, 64)).save(folder / "whole.jpg", quality=95)
    content = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "broken.jpg").write_bytes(content[: len(content) // 2])


def text(folder):
    (folder / "notes.txt").write_text("bees are insects")


def loop(folder):
    (folder / "loop.png").symlink_to(folder / "loop.png")


def upwards(folder):
    (folder / "up").symlink_to(folder.parent)


def pipe(folder):
    os.mkfifo(folder / "pipe.png")


def bomb(folder):
    """A PNG whose header claims 60 000 × 60 000 pixels."""

    def chunk(kind, body):
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b""))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + start + body + chunk(b"IEND", b""))


def unspeakable(folder):
    picture(1).save(folder / "x.png")
    (folder / "x.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))


def empty_file(folder):
    (folder / "nothing.png").write_bytes(b"")


FAULTS = [
    (text, "notes.txt: no image that can be decoded .*replace or remove it"),
    (loop, "loop.png: cannot be read .*symbolic links"),
    (upwards, "up: a folder where images should be; move its images up"),
    (pipe, "pipe.png: no image .*not a regular file"),
    (bomb, "bomb.png: no image .*"),
    (unspeakable, "its name is not valid UTF-8; rename it"),
    (empty_file, "nothing.png: no image that can be decoded"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_is_one_line_or_left_out(data, fault, said):
    fault(data / "ant")
    with pytest.raises(DatasetError, match=said) as raised:
        survey(data)
    assert "--skip-broken" in str(raised.value) and "\n" not in str(raised.value)
    found, listed = survey(data, skip=True)
    assert len(found["faults"]) == 1 and len(listed.files) == 6 == len(decoded(data))


def test_a_truncated_jpeg(data):
    """Its header is whole, so that only decoding shows it."""
    truncated(data / "ant")
    found, _ = survey(data, skip=True)
    assert len(found["faults"]) == 1 and "truncated" in found["faults"][0][1]
    survey(data)
    with pytest.raises(DatasetError, match=r"broken.jpg: undecodable .*truncated.*--skip-broken"):
        decoded(data)


def test_hidden_files_and_what_desktops_leave(data):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (data / "ant" / name).write_text("clutter")
    (data / ".git").mkdir()
    (data / "__MACOSX").mkdir()
    (data / "README.md").write_text("beside the classes, where it does no harm")
    assert len(survey(data)[1].files) == 6


def test_names_in_any_script(data):
    (data / "蜂 🐝").mkdir()
    picture(9).save(data / "蜂 🐝" / "första bilden.png")
    found, listed = survey(data)
    assert found["class_names"] == ["ant", "bee", "蜂 🐝"] and "första" in listed.files[-1]
    assert len(decoded(data)) == 7


def test_a_class_without_images(data):
    (data / "cat").mkdir()
    with pytest.raises(DatasetError, match="class 'cat': it has no images; add some or remove it"):
        survey(data)
    found, listed = survey(data, skip=True)
    assert found["class_names"] == ["ant", "bee"] == list(listed.class_names)


def test_one_class_only(data):
    for file in (data / "bee").iterdir():
        file.unlink()
    (data / "bee").rmdir()
    with pytest.raises(DatasetError, match="only one class, 'ant'; a class is judged by what sets"):
        survey(data)


def test_no_classes(data):
    with pytest.raises(DatasetError, match="no class folders; put the images of each class into"):
        survey(data / "ant")


def test_a_link_to_the_folder_itself(data):
    (data / "again").symlink_to(data)
    with pytest.raises(DatasetError, match="again: a link to a folder that holds it; remove it"):
        survey(data)
    faults = Faults(True)
    assert classes(data, faults) == ["ant", "bee"] and len(faults.found) == 1


def test_splits_in_folders_of_their_own(data, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    data.rename(both / "train")
    (both / "test" / "bee").mkdir(parents=True)
    picture(7).save(both / "test" / "bee" / "7.png")
    found, listed = survey(both)
    assert (found["train"], found["test"]) == ([3, 3], [0, 1]) and listed.test.sum() == 1


def test_a_share_is_held_out_of_each_class(data):
    found, listed = survey(data, held_out=0.34)
    assert (found["train"], found["test"]) == ([2, 2], [1, 1])
    assert "held out at random" in found["test_from"]
    again = survey(data, held_out=0.34)[1]
    assert again.files == listed.files


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_file_that_changes_after_it_was_listed(data, change):
    survey(data)
    path = data / "ant" / "1.png"
    picture(99).save(path) if change == "edited" else path.unlink()
    with pytest.raises(DatasetError, match=r"1\.png: gone or changed since the list"):
        decoded(data)


def test_an_unchanged_list_keeps_its_time(data):
    survey(data)
    path = data.parent / "images.parquet"
    os.utime(path, (1, 1))
    survey(data)
    assert path.stat().st_mtime == 1


def test_nothing_there_and_strange_files(tmp_path):
    with pytest.raises(DatasetError, match="no such file or folder; name a folder of class"):
        survey(tmp_path / "nothing")
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(DatasetError, match="not a data set that is known here; name a folder"):
        survey(tmp_path / "x.csv")
