"""The four sources against PIL, pandas and numpy, and every fault of a data set."""

import hashlib
import io
import json
import os
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rdmdc.datasets import normalisation
from rdmdc.datasets.decoding import load
from rdmdc.datasets.preparing import prepare
from rdmdc.datasets.split import DatasetError
from rdmdc.errors import InputError
from rdmdc.options import OptionError
from rdmdc.sources import parquet
from rdmdc.storage.images import load_images, save_images
from rdmdc.storage.provenance import Provenance

DATA = Path(os.environ.get("RDMDC_TEST_DATA", "../shared/data"))
COMMON = {
    "classes": None,
    "per_class": None,
    "size": None,
    "color": "rgb",
    "normalisation": "training_split",
}
LABELS = [2, 0, 1, 0, 2, 1, 0, 2]  # of the small training split; the test split has 0, 1, 2


def image(seed, size=(6, 6), mode="RGB"):
    """A random image of the mode."""
    channels = {"RGB": 3, "RGBA": 4, "L": None, "LA": 2}[mode]
    shape = size[::-1] if channels is None else (*size[::-1], channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels, mode) if mode == "LA" else Image.fromarray(pixels)


def encoded(picture, kind="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def table(images, labels, metadata=None, binary=False, **columns):
    rows = images if binary else [{"bytes": b, "path": None} for b in images]
    kind = pa.binary() if binary else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(rows, kind), "label": pa.array(labels), **columns}
    return pa.table(columns).replace_schema_metadata(metadata)


@pytest.fixture
def files(tmp_path):
    """Writes a training and a test file, the small ones unless told otherwise; the options."""

    def write(train=None, test=None, **options):
        small = {"train": LABELS, "test": [0, 1, 2]}
        paths = {}
        for part, given in (("train", train), ("test", test)):
            labels = small[part]
            if given is None:
                given = table([encoded(image(i)) for i in range(len(labels))], labels)
            paths[part] = str(tmp_path / f"{part}.parquet")
            pq.write_table(given, paths[part])
        columns = {"image_column": "image", "label_column": "label", "class_names": None}
        return {"source": "parquet", **paths, **columns, **COMMON, **options}

    return write


@pytest.fixture
def tree(tmp_path):
    """Makes class folders of PNGs from {part: {class: number}}; the options."""

    def make(counts=None, **options):
        counts = counts or {"train": {"bird": 3, "cat": 2}, "test": {"bird": 1, "cat": 2}}
        for part, classes in counts.items():
            (tmp_path / part).mkdir()
            for name, count in classes.items():
                (tmp_path / part / name).mkdir()
                for i in range(count):
                    image(100 * ord(name[0]) + i).save(tmp_path / part / name / f"{i}.png")
        paths = {part: str(tmp_path / part) for part in ("train", "test")}
        return {"source": "folder", "layout": "class_folders", **paths, **COMMON, **options}

    return make


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Tiny ImageNet's layout with two classes; the options."""
    for wnid in ("n02", "n01"):
        folder = tmp_path / "train" / wnid
        (folder / "images").mkdir(parents=True)
        (folder / f"{wnid}_boxes.txt").write_text("a box\n")
        for i in range(2):
            image(i + int(wnid[1:])).save(folder / "images" / f"{wnid}_{i}.JPEG")
    (tmp_path / "val" / "images").mkdir(parents=True)
    for i in range(3):
        image(10 + i).save(tmp_path / "val" / "images" / f"val_{i}.JPEG")
    lines = ["val_2.JPEG\tn02\t0\t0\t5\t5", "val_0.JPEG\tn01\t0\t0\t5\t5", "val_1.JPEG\tn02\t1\t1"]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    paths = {"train": str(tmp_path / "train"), "test": str(tmp_path / "val")}
    return {"source": "folder", "layout": "tiny_imagenet", **paths, **COMMON}


def reference(path, column="image", color="RGB", size=None):
    """Pixels (N, C, H, W) and labels of a Parquet file, by pandas and PIL, sorted by class."""
    frame = pd.read_parquet(path)
    order = sorted(range(len(frame)), key=lambda row: frame["label"][row])
    pixels = []
    for row in order:
        picture = Image.open(io.BytesIO(frame[column][row]["bytes"])).convert(color)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS) if size else picture
        pixels.append(np.atleast_3d(np.array(picture)).transpose(2, 0, 1))
    return np.stack(pixels), frame["label"].to_numpy()[order]


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["rgb", "grey"])
@pytest.mark.parametrize("size", [None, 4, 9])
def test_parquet_equals_pandas_and_pil(files, color, size):
    options = files(color=color, size=size)
    for split, part in zip(load(options), ("train", "test"), strict=True):
        pixels, labels = reference(
            options[part], color={"rgb": "RGB", "grey": "L"}[color], size=size
        )
        np.testing.assert_array_equal(split.pixels.numpy(), pixels)
        np.testing.assert_array_equal(split.labels.numpy(), labels)
        assert split.class_names == ("0", "1", "2")


def test_normalisation_is_the_training_splits(files):
    options = files()
    train, test = load(options)
    values = reference(options["train"])[0].astype(np.float64) / 255
    assert train.normalisation.mean == pytest.approx(values.mean((0, 2, 3)), abs=1e-12)
    assert train.normalisation.std == pytest.approx(values.std((0, 2, 3)), abs=1e-12)
    assert test.normalisation == train.normalisation


def test_normalisation_over_several_batches(files, monkeypatch):
    whole = load(files())[0]
    for module in (normalisation, parquet):
        monkeypatch.setattr(module, "BATCH", 3)
    parts = load(files())[0]
    assert parts.normalisation == whole.normalisation
    assert torch.equal(parts.pixels, whole.pixels)


def test_normalisation_as_configured(files):
    wanted = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    for split in load(files(normalisation=wanted)):
        assert split.normalisation.mean == (0.1, 0.2, 0.3)
        assert split.normalisation.std == (0.4, 0.5, 0.6)


def test_several_files_row_groups_and_binary_images(files, tmp_path):
    """Split over two files with small row groups and plain binary, the data are the same."""
    options = files()
    whole = load(options)
    content = pq.read_table(options["train"])
    plain = content.set_column(0, "image", pa.compute.struct_field(content["image"], "bytes"))
    parts = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    pq.write_table(plain.slice(0, 5), parts[0], row_group_size=2)
    pq.write_table(plain.slice(5), parts[1], row_group_size=2)
    split = load({**options, "train": parts})
    assert torch.equal(split[0].pixels, whole[0].pixels)
    assert torch.equal(split[0].labels, whole[0].labels)


def test_classes_and_per_class(files):
    """Classes are renumbered in the order given; the first so many rows of each are kept."""
    options = files(classes=["2", "0"], per_class={"train": 2, "test": None})
    train, test = load(options)
    assert train.class_names == test.class_names == ("2", "0")
    assert train.labels.tolist() == [0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    for pixels, row in zip(train.pixels, [0, 4, 1, 3], strict=True):
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), np.array(image(row)))


def test_only_what_is_kept_is_decoded(files):
    images = [encoded(image(i)) if label == 1 else b"junk" for i, label in enumerate(LABELS)]
    options = files(train=table(images, LABELS), classes=["1"])
    assert load(options)[0].counts().tolist() == [2]


def hub(names):
    feature = {"names": names, "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}


@pytest.mark.parametrize(
    ("metadata", "given", "names"),
    [
        ({"class_names": '["a", "b", "c"]'}, None, ("a", "b", "c")),
        (hub(["a", "b", "c"]), None, ("a", "b", "c")),
        (hub(["a", "b", "c"]), ["x", "y", "z"], ("x", "y", "z")),
        (
            {"huggingface": '{"info": {"features": {"label": {"dtype": "int64"}}}}'},
            None,
            tuple("012"),
        ),
    ],
)
def test_class_names_of_parquet(files, metadata, given, names):
    content = table([encoded(image(i)) for i in range(8)], LABELS, metadata)
    assert load(files(train=content, class_names=given))[1].class_names == names


def test_transparent_images_are_composed_over_white(files):
    pictures = [image(0, mode="RGBA"), image(1, mode="LA"), image(2, mode="L"), image(3)]
    palette = image(4).quantize(8)
    palette.info["transparency"] = 0
    content = table([encoded(p) for p in [*pictures, palette]], [0] * 5)
    train = load(files(train=content, test=content))[0]
    for picture, pixels in zip([*pictures, palette], train.pixels.numpy(), strict=True):
        buffer = Image.open(io.BytesIO(encoded(picture))).convert("RGBA")
        rgba = np.array(buffer, np.float64).transpose(2, 0, 1)
        alpha = rgba[3] / 255
        assert np.abs(pixels - (rgba[:3] * alpha + 255 * (1 - alpha))).max() <= 1


def test_images_that_are_not_square(files):
    content = table([encoded(image(i, size=(7, 5))) for i in range(2)], [0, 1])
    assert load(files(train=content, test=content))[0].pixels.shape == (2, 3, 5, 7)


def test_class_folders(tree, tmp_path):
    options = tree()
    (tmp_path / "train" / ".DS_Store").write_text("hidden")
    (tmp_path / "train" / "cat" / ".hidden").write_text("hidden")
    train, test = load(options)
    assert train.class_names == test.class_names == ("bird", "cat")
    assert train.counts().tolist() == [3, 2] and test.counts().tolist() == [1, 2]
    for pixels, name in zip(
        train.pixels, ["bird/0", "bird/1", "bird/2", "cat/0", "cat/1"], strict=True
    ):
        there = np.array(Image.open(tmp_path / "train" / f"{name}.png"))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), there)


def test_tiny_imagenets_layout(tiny_imagenet, tmp_path):
    train, test = load(tiny_imagenet)
    assert train.class_names == ("n01", "n02") and train.counts().tolist() == [2, 2]
    assert test.labels.tolist() == [0, 1, 1]
    for pixels, number in zip(test.pixels, [0, 2, 1], strict=True):  # n02 in the file's order
        there = np.array(Image.open(tmp_path / "val" / "images" / f"val_{number}.JPEG"))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), there)


# --- torchvision -----------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    def urlopen(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)


def idx(path, values):
    """A file in MNIST's format."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + values.tobytes())


def test_torchvision_grey(tmp_path, offline):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8)[::-1] % 10
    for part in ("train", "t10k"):
        idx(raw / f"{part}-images-idx3-ubyte", pixels)
        idx(raw / f"{part}-labels-idx1-ubyte", labels)
    options = {"source": "torchvision", "name": "FashionMNIST", "root": str(tmp_path), **COMMON}
    train, test = load({**options, "color": "grey"})
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(train.pixels.numpy()[:, 0], pixels[order])
    assert test.class_names[0] == "T-shirt/top" and test.counts().tolist() == [2] * 10
    assert load(options)[0].pixels.shape == (20, 3, 28, 28)


def cifar(tmp_path, monkeypatch):
    """A CIFAR-10 of 20 images a file, with its md5s made known to torchvision."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    rng = np.random.default_rng(0)
    batches = {
        name: {
            "data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": [i % 10 for i in range(20)],
        }
        for name in ("data_batch_1", "test_batch")
    }
    md5s = {name: write(name, content) for name, content in batches.items()}
    names = [f"class {i}" for i in range(10)]
    md5 = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5s["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5s["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5})
    options = {"source": "torchvision", "name": "CIFAR10", "root": str(tmp_path), **COMMON}
    return options, batches, folder


def test_torchvision_cifar(tmp_path, monkeypatch, offline):
    options, batches, _ = cifar(tmp_path, monkeypatch)
    train, test = load(options)
    order = np.argsort(batches["data_batch_1"]["labels"], kind="stable")
    pixels = batches["data_batch_1"]["data"][order].reshape(20, 3, 32, 32)
    np.testing.assert_array_equal(train.pixels.numpy(), pixels)
    assert test.class_names[9] == "class 9" and test.counts().tolist() == [2] * 10


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_a_pickle_of_another_md5_is_not_loaded(tmp_path, monkeypatch, offline):
    options, _, folder = cifar(tmp_path, monkeypatch)
    marker = str(tmp_path / "ran")
    content = pickle.dumps(Bomb(marker))
    pickle.loads(content).close()
    assert Path(marker).exists()  # the bomb works
    Path(marker).unlink()
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DatasetError, match=r"not whole in .* cannot be downloaded"):
        load(options)
    assert not Path(marker).exists()


@pytest.mark.parametrize(
    ("name", "archive", "below"),
    [
        ("CIFAR10", "cifar-10-python.tar.gz", ""),
        ("CIFAR100", "cifar-100-python.tar.gz", ""),
        ("MNIST", "train-images-idx3-ubyte.gz", "MNIST/raw"),
    ],
)
def test_torchvision_offline_says_what_to_do(tmp_path, offline, name, archive, below):
    options = {"source": "torchvision", "name": name, "root": str(tmp_path), **COMMON}
    with pytest.raises(DatasetError) as caught:
        load(options)
    for part in (name, archive, str(tmp_path / below), "dataset.source: parquet"):
        assert part in str(caught.value)


def test_torchvision_unknown_name(tmp_path):
    with pytest.raises(
        OptionError, match=r"dataset\.name: 'ImageNet' must be text, one of CIFAR10"
    ):
        load({"source": "torchvision", "name": "ImageNet", "root": str(tmp_path), **COMMON})


# --- faults ----------------------------------------------------------------------------------


def test_missing_file(files, tmp_path):
    with pytest.raises(DatasetError, match=r"gone.parquet: no such file; mend dataset.test"):
        load(files() | {"test": str(tmp_path / "gone.parquet")})


def test_truncated_file(files):
    options = files()
    path = Path(options["train"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"train.parquet: truncated or damaged"):
        load(options)


def test_damaged_footer(files):
    options = files()
    path = Path(options["train"])
    path.write_bytes(path.read_bytes().replace(b"label", b"l\xc2bel"))
    with pytest.raises(DatasetError, match=r"train.parquet: truncated or damaged"):
        load(options)


def test_a_file_that_arrow_finds_no_thread_to_read_is_not_called_damaged(files, monkeypatch):
    def opened(*_, **__):
        raise pa.ArrowException(
            "Unknown error: Failed to launch worker thread: Resource temporarily unavailable"
        )

    monkeypatch.setattr(pq, "ParquetFile", opened)
    with pytest.raises(DatasetError, match=r"train.parquet: could not start a thread.*ulimit -u"):
        load(files())


def test_file_that_is_not_parquet(files):
    options = files()
    Path(options["test"]).write_text("image,label\n")
    with pytest.raises(DatasetError, match=r"test.parquet: not a Parquet file"):
        load(options)


@pytest.mark.parametrize("key", ["image_column", "label_column"])
def test_wrong_columns(files, key):
    with pytest.raises(DatasetError, match=rf"no column 'img'; set dataset.{key}.*image, label"):
        load(files(**{key: "img"}))


def test_columns_of_another_type(files):
    with pytest.raises(DatasetError, match="'label' is int64, not struct<bytes, path> or binary"):
        load(files(image_column="label"))
    words = table([encoded(image(0))], ["cat"])
    with pytest.raises(DatasetError, match="'label' is string, not integer"):
        load(files(train=words))


@pytest.mark.parametrize("content", [b"", b"junk", encoded(image(0))[:60]])
def test_undecodable_image_in_parquet(files, content):
    images = [encoded(image(i)) for i in range(8)]
    images[5] = content
    with pytest.raises(DatasetError, match=r"train.parquet row 5: undecodable image"):
        load(files(train=table(images, LABELS)))


def test_eps_is_not_opened(files):
    """PIL would hand it to Ghostscript, which runs programs."""
    content = table([encoded(image(0), "EPS")], [0])
    with pytest.raises(DatasetError, match=r"row 0: undecodable image \(none of PNG, JPEG"):
        load(files(train=content, test=content))


def test_rows_are_counted_within_the_file(files, tmp_path):
    options = files()
    bad = table([encoded(image(0)), b"junk"], [0, 0])
    pq.write_table(bad, tmp_path / "more.parquet")
    with pytest.raises(DatasetError, match=r"more.parquet row 1: undecodable"):
        load({**options, "train": [options["train"], str(tmp_path / "more.parquet")]})


@pytest.mark.parametrize("binary", [True, False])
def test_image_without_bytes(files, binary):
    content = table([encoded(image(0)), None], [0, 0], binary=binary)
    with pytest.raises(DatasetError, match=r"row 1: no image bytes in column 'image'"):
        load(files(train=content, test=content))


def test_decompression_bomb(files, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # PIL warns above, raises above twice
    with pytest.raises(DatasetError, match=r"row 0: undecodable image .*decompression bomb"):
        load(files())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(DatasetError, match=r"row 0: undecodable image .*decompression bomb"):
        load(files())


def test_sixteen_bits(files):
    deep = Image.fromarray(np.full((6, 6), 40000, np.uint16))
    content = table([encoded(deep)], [0])
    with pytest.raises(DatasetError, match=r"row 0: .*more than 8 bits"):
        load(files(train=content, test=content))


def test_mixed_sizes(files):
    sizes = [(6, 6), (6, 6), (8, 6)]
    content = table([encoded(image(i, size)) for i, size in enumerate(sizes)], [0, 1, 2])
    with pytest.raises(
        DatasetError, match=r"row 2: the image is 8×6, others are 6×6.*dataset.size"
    ):
        load(files(train=content))
    assert load(files(train=content, size=6))[0].pixels.shape == (3, 3, 6, 6)


def test_splits_of_different_sizes(files):
    content = table([encoded(image(i, (5, 5))) for i in range(3)], [0, 1, 2])
    with pytest.raises(DatasetError, match=r"6×6 in .*5×5 in .*dataset.size"):
        load(files(test=content))


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("part", ["train", "test"])
def test_label_outside_the_classes(files, label, part):
    content = table([encoded(image(i)) for i in range(4)], [0, 1, 2, label])
    names = None if part == "test" else ["a", "b", "c"]
    with pytest.raises(DatasetError, match=rf"{part}.parquet row 3: label {label} is outside 0..2"):
        load(files(**{part: content}, class_names=names))


def test_null_label(files):
    content = table([encoded(image(i)) for i in range(3)], [0, None, 2])
    with pytest.raises(DatasetError, match=r"row 1: the label is null"):
        load(files(train=content))


def test_class_without_images(files):
    content = table([encoded(image(i)) for i in range(2)], [0, 2])
    with pytest.raises(DatasetError, match=r"test.parquet: no images of class '1'"):
        load(files(test=content))
    assert load(files(test=content, classes=["0", "2"]))[1].counts().tolist() == [1, 1]


def test_file_without_rows(files):
    content = table([], pa.array([], pa.int64()))
    with pytest.raises(DatasetError, match=r"train.parquet: holds no images"):
        load(files(train=content, test=content))


def test_unknown_and_repeated_classes(files):
    with pytest.raises(DatasetError, match=r"dataset.classes: .* no class 'dog'; it has 0, 1, 2"):
        load(files(classes=["0", "dog"]))
    with pytest.raises(DatasetError, match=r"dataset.classes: 0 appears more than once"):
        load(files(classes=["0", "0"]))
    with pytest.raises(InputError, match=r"dataset.class_names: 'a' is listed twice"):
        load(files(class_names=["a", "a", "b"]))
    content = table([encoded(image(0))], [0], {"class_names": '["a", "a"]'})
    with pytest.raises(DatasetError, match=r"the class names of .*: a appears more than once"):
        load(files(train=content, test=content))


def test_file_listed_twice(files):
    options = files()
    with pytest.raises(InputError, match=r"dataset.train: .*train.parquet"):
        load({**options, "train": [options["train"]] * 2})


def test_too_few_images_for_per_class(files):
    with pytest.raises(DatasetError, match=r"per_class.train is 3, but .* 2 images of class '1'"):
        load(files(per_class={"train": 3, "test": None}))


def test_class_names_that_disagree(files):
    train, test = (
        table([encoded(image(i)) for i in range(3)], [0, 1, 2], {"class_names": json.dumps(names)})
        for names in (["a", "b", "c"], ["b", "a", "c"])
    )
    with pytest.raises(DatasetError, match=r"test.parquet: its classes \(b, a, c\) are not those"):
        load(files(train=train, test=test))


@pytest.mark.parametrize(
    "metadata", [{"class_names": "cat, dog"}, {"class_names": '"abc"'}, {"huggingface": "{}"}]
)
def test_metadata_that_name_no_classes(files, metadata):
    content = table([encoded(image(i)) for i in range(3)], [0, 1, 2], metadata)
    with pytest.raises(DatasetError, match=r"do not name the classes .* set dataset.class_names"):
        load(files(train=content))


@pytest.mark.parametrize(
    ("mean", "std", "fault"),
    [
        ([0.5], [0.2], r"normalisation.mean has 1 entries, images have 3 channels"),
        ([0.5] * 3, [0.2], r"normalisation.std has 1 entries, images have 3 channels"),
        ([0.5] * 3, [0.2, 0, 0.2], r"normalisation.std: .* must be positive"),
        ([0.5, float("nan"), 0.5], [0.2] * 3, r"normalisation.mean: .* must be finite"),
    ],
)
def test_normalisation_that_does_not_fit(files, mean, std, fault):
    with pytest.raises(DatasetError, match=fault):
        load(files(normalisation={"mean": mean, "std": std}))


def test_constant_images(files):
    black = encoded(Image.new("RGB", (6, 6), (9, 9, 9)))
    content = table([black] * 3, [0, 1, 2])
    with pytest.raises(DatasetError, match=r"train.parquet: channel 0 .* its std is 0"):
        load(files(train=content))
    given = {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert load(files(train=content, normalisation=given))[0].pixels.unique().tolist() == [9]


@pytest.mark.parametrize("part", ["train", "test"])
def test_missing_and_empty_folders(tree, tmp_path, part):
    options = tree()
    with pytest.raises(DatasetError, match=r"gone: not a folder that can be read"):
        load({**options, part: str(tmp_path / "gone")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: holds no class folders"):
        load({**options, part: str(tmp_path / "empty")})


def test_empty_class_folder(tree):
    counts = {"train": {"bird": 2, "cat": 0}, "test": {"bird": 1, "cat": 1}}
    with pytest.raises(DatasetError, match=r"train: no images of class 'cat'"):
        load(tree(counts))


def test_class_folder_missing_in_a_split(tree, tmp_path):
    options = tree({"train": {"a": 2, "b": 2}, "test": {"b": 1}})
    with pytest.raises(DatasetError, match=r"test: no images of class 'a'"):
        load(options)
    with pytest.raises(DatasetError, match=r"class 'a' is not in .*test"):
        load({**options, "train": options["test"], "test": options["train"]})


def test_what_is_no_image_in_a_class_folder(tree, tmp_path):
    options = tree()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("a cat")
    with pytest.raises(DatasetError, match=r"cat/notes.txt: undecodable image"):
        load(options)


def test_tiny_imagenet_read_as_class_folders(tiny_imagenet):
    with pytest.raises(DatasetError, match=r"n01/images: a folder where .* dataset.layout"):
        load({**tiny_imagenet, "layout": "class_folders", "test": tiny_imagenet["train"]})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("val_9.JPEG\tn01\t0\t0\t5\t5", r"line 4: no image 'val_9.JPEG' in .*val/images"),
        ("../val_annotations.txt\tn01", r"line 4: no image '../val_annotations.txt'"),
        ("val_3.JPEG\tn07\t0\t0\t5\t5", r"line 4: class 'n07' is not in .*train"),
        ("val_3.JPEG", r"line 4: class '' is not in .*train"),
        ("val_0.JPEG\tn01\t0\t0\t5\t5", r"line 4: image 'val_0.JPEG' is named again"),
        ("", r"val_3.JPEG: not in .*val_annotations.txt"),
    ],
)
def test_annotations_that_do_not_fit(tiny_imagenet, tmp_path, line, fault):
    image(3).save(tmp_path / "val" / "images" / "val_3.JPEG")
    with open(tmp_path / "val" / "val_annotations.txt", "a") as file:
        file.write(line)
    with pytest.raises(DatasetError, match=fault):
        load(tiny_imagenet)


def test_missing_annotations(tiny_imagenet):
    with pytest.raises(DatasetError, match=r"val_annotations.txt: cannot be read .* dataset.test"):
        load({**tiny_imagenet, "test": tiny_imagenet["train"]})


def test_unknown_embedded_name():
    with pytest.raises(DatasetError, match="no embedded data set 'emojis'; there are: emoji"):
        load({"source": "embedded", "name": "emojis", **COMMON})


# --- in a child ------------------------------------------------------------------------------

BEGUN = Provenance("data", {}, "c0de", {}, 0.0)


def test_a_child_prepares_what_is_loaded_here(files, tmp_path):
    options, paths = files(), [tmp_path / "out" / part for part in ("train", "test")]
    prepare(options, *paths, BEGUN)
    for path, wanted in zip(paths, load(options), strict=True):
        found = load_images(path)
        assert torch.equal(found.pixels, wanted.pixels) and torch.equal(found.labels, wanted.labels)
        assert (found.class_names, found.normalisation) == (
            wanted.class_names,
            wanted.normalisation,
        )
        again = tmp_path / "again"
        save_images(again, wanted, BEGUN)
        assert again.read_bytes() == path.read_bytes()


def test_a_fault_in_the_child_is_told_here_and_leaves_nothing(files, tmp_path):
    content = table([encoded(image(0)), b"junk"], [0, 0])
    options = files(train=content, test=content)
    with pytest.raises(DatasetError, match=r"train.parquet row 1: undecodable image"):
        prepare(options, tmp_path / "out" / "train", tmp_path / "out" / "test", BEGUN)
    assert not (tmp_path / "out").exists()


def test_more_pixels_than_the_limit_are_no_fault(files, tmp_path, monkeypatch):
    """Memory for the pixels that are kept, whose number the labels tell, comes on top."""
    monkeypatch.setattr("rdmdc.datasets.preparing.MEGABYTES", 300)
    prepare(files(size=3500), tmp_path / "train", tmp_path / "test", BEGUN)
    assert (tmp_path / "train").stat().st_size > 8 * 3 * 3500 * 3500


def test_a_source_that_does_not_exist(files):
    with pytest.raises(InputError, match=r"dataset\.source: no source is named 'parket'; did you"):
        load(files() | {"source": "parket"})
    with pytest.raises(OptionError, match=r"dataset: unknown option 'image_colum'; did you mean"):
        load(files(image_colum="img"))


# --- real data -------------------------------------------------------------------------------


def test_embedded_emoji():
    train, test = load({"source": "embedded", "name": "emoji", **COMMON})
    assert len(train.class_names) == 7 and train.class_names == test.class_names
    assert min(train.counts()) > 0 and min(test.counts()) > 0
    assert train.pixels.shape[1:] == test.pixels.shape[1:] == (3, 32, 32)
    seen = {pixels.numpy().tobytes() for pixels in train.pixels}
    assert not any(pixels.numpy().tobytes() in seen for pixels in test.pixels)


def real(name, column, **options):
    paths = {part: str(DATA / f"{name}-{suffix}.parquet") for part, suffix in options.pop("files")}
    for path in paths.values():
        if not Path(path).is_file():
            pytest.skip(f"no {path}; set RDMDC_TEST_DATA to the folder that holds it")
    columns = {"image_column": column, "label_column": "label", "class_names": None}
    return {"source": "parquet", **paths, **columns, **COMMON, **options}


def test_cifar10():
    """Counts, CIFAR-10's published per-channel moments, and the first images of a class."""
    files = [("train", "train"), ("test", "test")]
    options = real("cifar10", "img", files=files, per_class={"train": 300, "test": None})
    train, test = load(options)
    assert train.counts().tolist() == [300] * 10 and test.counts().tolist() == [1000] * 10
    assert train.pixels.shape[1:] == (3, 32, 32)
    assert train.normalisation.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert train.normalisation.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)
    np.testing.assert_array_equal(test.pixels.numpy(), reference(options["test"], "img")[0])


def test_tiny_imagenet_parquet():
    files = [("train", "train"), ("test", "valid")]
    wanted = {"classes": ["199", "7"], "per_class": {"train": 20, "test": None}}
    options = real("tiny-imagenet-32", "image", files=files, **wanted)
    train, test = load(options)
    assert train.counts().tolist() == [20, 20] and test.counts().tolist() == [50, 50]
    frame = pd.read_parquet(options["test"])
    rows = [*frame.index[frame["label"] == 199], *frame.index[frame["label"] == 7]]
    for pixels, row in zip(test.pixels, rows, strict=True):
        picture = Image.open(io.BytesIO(frame["image"][row]["bytes"])).convert("RGB")
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), np.array(picture))


def test_a_folder_s_fingerprint_changes_with_any_file(tmp_path):
    from rdmdc.sources.folder import Options, fingerprint

    for part in ("train", "test"):
        (tmp_path / part / "ant").mkdir(parents=True)
        (tmp_path / part / "ant" / "1.png").write_bytes(b"one")
    options = Options(str(tmp_path / "train"), str(tmp_path / "test"), "class_folders")
    prints = [fingerprint(options), fingerprint(options)]
    (tmp_path / "test" / "ant" / "2.png").write_bytes(b"two")
    prints.append(fingerprint(options))
    (tmp_path / "train" / "ant" / "1.png").write_bytes(b"other")
    prints.append(fingerprint(options))
    (tmp_path / "train" / "ant" / "1.png").unlink()
    prints.append(fingerprint(options))
    assert prints[0] == prints[1]
    assert len(set(prints[1:])) == 4
