"""Croissant metadata of a condensed set (MLCommons Croissant 1.0), for dataset search engines."""

from __future__ import annotations

from typing import Any

from rdmdc import __version__
from rdmdc.records import SyntheticSet

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def described(name: str, licence: str, made: SyntheticSet, digest: str) -> dict[str, Any]:
    """The metadata of a set whose table ``data/train.parquet`` has that sha256."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": (
            f"{made.ipc} synthetic images of each of {len(made.class_names)} classes, condensed"
            " from a larger data set"
        ),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": licence,
        "version": "1.0.0",
        "creator": {"@type": "sc:Organization", "name": f"rdmdc {__version__}"},
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "table",
                "name": "table",
                "contentUrl": "data/train.parquet",
                "encodingFormat": "application/x-parquet",
                "sha256": digest,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "train",
                "name": "train",
                "field": [
                    _field("image", "sc:ImageObject", "image", {"jsonPath": "bytes"}),
                    _field("label", "sc:Integer", "label", None),
                ],
            }
        ],
    }


def _field(name: str, kind: str, column: str, transform: dict[str, str] | None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": "table"}, "extract": {"column": column}}
    if transform is not None:
        source["transform"] = transform
    return {
        "@type": "cr:Field",
        "@id": f"train/{name}",
        "name": name,
        "dataType": kind,
        "source": source,
    }
