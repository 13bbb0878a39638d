"""Make the 'emoji' dataset: 32x32 drawings of emoji, labelled by their Unicode group.

Needs npm on the PATH and the Python packages pillow, pyarrow and resvg-py (0.5.0 was used):

    python scripts/make_emoji.py --out rdmdc/data
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

# artist: (npm package, version, sha256 of the tarball that `npm pack` gives)
PACKAGES = {
    "noto": (
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
    "twemoji": (
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    ),
    "fluent": (
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "emojione": (
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
}
# Not used: Flags and Component are no kind of thing to recognise, Activities is too small.
CLASSES = [
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
]
# EmojiOne's names for the cricket bat and the upwards triangle mean other emoji elsewhere.
MISNAMED = {"cricket", "up-button"}


def fetch(artist):
    """Return the files of an artist's npm package, as a dict from path to bytes."""
    package, version, sha256 = PACKAGES[artist]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{version}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        data = next(Path(folder).glob("*.tgz")).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(f"{package}@{version}: the tarball is not the one recorded here")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            m.name.removeprefix("package/"): tar.extractfile(m).read()
            for m in tar
            if m.isfile() and "/sheets" not in m.name
        }


def code(points):
    """Normalise a code point string such as '261D-FE0F': lower case, no variation selector."""
    return "-".join(p for p in points.lower().split("-") if p != "fe0f")


def choose_test(groups):
    """Choose a sixth of each group's emoji, by the hash of their code points."""
    test = set()
    for group in CLASSES:
        members = sorted(
            (c for c in groups if groups[c] == group),
            key=lambda c: hashlib.sha256(c.encode()).hexdigest(),
        )
        test.update(members[: len(members) // 6])
    return test


def match_names(icons, emoji, cldr):
    """Map code points to icons by name: the CLDR name (`cldr`: code points to name) or Unicode's.

    A name counts only if it means one emoji, and an emoji only if it gets one drawing.
    """
    meanings, found = defaultdict(set), defaultdict(dict)
    for points, name in cldr.items():
        meanings[name].add(points)
    for entry in emoji:
        name = re.sub(r"[^a-z0-9]+", "-", entry["name"].lower()).strip("-")
        meanings[name].add(code(entry["unified"]))
    for name in sorted({*icons["icons"], *icons["aliases"]} - MISNAMED):
        if len(meanings[name]) == 1:
            found[next(iter(meanings[name]))].setdefault(svg(icons, name), name)
    return {c: next(iter(drawn.values())) for c, drawn in found.items() if len(drawn) == 1}


def svg(icons, name):
    """Return a square icon as an SVG document; an alias may mirror its parent."""
    mirror = False
    while name not in icons["icons"]:
        alias = icons["aliases"][name]
        mirror, name = mirror != alias.get("hFlip", False), alias["parent"]
    icon = {**icons, **icons["icons"][name]}
    flip = f' transform="translate({icon["width"]} 0) scale(-1 1)"' if mirror else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {icon["width"]} {icon["height"]}"><g{flip}>{icon["body"]}</g></svg>'
    )


def drawings(artist, files, emoji, cldr):
    """Return a dict from code points to the artist's drawing, as a 64x64 PNG."""
    if "emoji.json" in files:
        vendor = PACKAGES[artist][0].rsplit("-", 1)[1]
        return {
            code(e["unified"]): files[f"img/{vendor}/64/{e['image']}"]
            for e in emoji
            if e[f"has_img_{vendor}"]
        }
    icons = json.loads(files["icons.json"])
    names = cldr if artist == "fluent" else match_names(icons, emoji, cldr)
    return {
        c: bytes(resvg_py.svg_to_bytes(svg_string=svg(icons, name), width=64, height=64))
        for c, name in names.items()
    }


def prepare(png, step):
    """Compose a drawing over white, resize it to 32x32, round its values to multiples of step."""
    drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", drawing.size, "white")
    small = Image.alpha_composite(white, drawing).convert("RGB").resize((32, 32), Image.LANCZOS)
    return small.point([(v + step // 2) // step * step for v in range(256)] * 3)


def encode(image):
    """Return the image as a lossless WebP file."""
    out = io.BytesIO()
    image.save(out, "webp", lossless=True, quality=100, method=6)
    return out.getvalue()


def write(rows, path):
    """Write (label, name, bytes) rows as a parquet file, in order."""
    rows = sorted(rows)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", pa.int64())], metadata={"class_names": json.dumps(CLASSES)}
    )
    columns = [[{"bytes": data, "path": name} for _, name, data in rows], [r[0] for r in rows]]
    table = pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def main():
    """Download the artists' packages and write emoji-train.parquet and emoji-test.parquet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--artists", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument(
        "--step",
        type=int,
        default=3,
        help="a divisor of 255: round pixel values to its multiples, for space",
    )
    args = parser.parse_args()

    # Fluent is fetched in any case, for it alone tells the CLDR names of emoji.
    files = {a: fetch(a) for a in {"noto", "fluent", *args.artists}}
    emoji = json.loads(files["noto"]["emoji.json"])
    cldr = {code(p): name for p, name in json.loads(files["fluent"]["chars.json"]).items()}
    groups = {code(e["unified"]): e["category"] for e in emoji if e["category"] in CLASSES}
    test, seen, rows = choose_test(groups), set(), {"train": [], "test": []}
    for artist in args.artists:
        for points, png in sorted(drawings(artist, files[artist], emoji, cldr).items()):
            if points not in groups:
                continue
            image = prepare(png, args.step)
            # Twemoji draws many families alike, and a twin must not be in both splits.
            if image.tobytes() in seen or image.convert("L").getextrema()[0] > 240:
                print(f"left out, blank or a copy: {artist}/{points}")
                continue
            seen.add(image.tobytes())
            row = (CLASSES.index(groups[points]), f"{artist}/{points}.webp", encode(image))
            rows["test" if points in test else "train"].append(row)
    args.out.mkdir(parents=True, exist_ok=True)
    for split, members in rows.items():
        write(members, args.out / f"emoji-{split}.parquet")
        print(f"{split}: {len(members)} drawings")


if __name__ == "__main__":
    main()
