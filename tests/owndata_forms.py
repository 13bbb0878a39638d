"""One small data set in every form that people bring: arrays to folders, files and tables."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path, pixels, labels, names):
    """Images (N, H, W, 3) as <class>/<number>.png."""
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        place = path / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04d}.png")
    return path


def _table(pixels, labels, names):
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png(image), "path": None} for image in pixels]
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(labels, pa.int64())})
    said = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": said})


def parquet(path, pixels, labels, names):
    path.mkdir(parents=True)
    pq.write_table(_table(pixels, labels, names), path / "train.parquet", row_group_size=50)
    return path / "train.parquet"


def arrow(path, pixels, labels, names):
    """As `datasets.Dataset.save_to_disk` lays it out."""
    path.mkdir(parents=True)
    table = _table(pixels, labels, names)
    with pa.ipc.new_stream(str(path / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    files = [{"filename": "data-00000-of-00001.arrow"}]
    state = {
        "_data_files": files,
        "_fingerprint": "f00d",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (path / "state.json").write_text(json.dumps(state))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    features["label"]["names"] = names
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))
    return path


def npz(path, pixels, labels, names):
    path.mkdir(parents=True)
    where = path / "data.npz"
    np.savez(where, images=pixels, labels=np.asarray(labels), class_names=np.asarray(names))
    return where


FORMS = {form.__name__: form for form in (folder, parquet, arrow, npz)}
