"""rdmdc verify finds whatever is not as it was saved, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from rdmdc.__main__ import main
from rdmdc.storage.provenance import Provenance
from rdmdc.storage.reading import LARGEST
from rdmdc.storage.writing import save_bytes

DATA, TABLE, FIGURE = (
    "results/data/train.safetensors",
    "results/table2.csv",
    "results/figures/a.svg",
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three artifacts in a row, the first made from a file outside; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar.parquet").write_bytes(b"bytes of images")
    path = tmp_path.relative_to(tmp_path)
    made_from = path / "cifar.parquet"
    for name, content in ((DATA, b"pixels" * 99), (TABLE, b"a,b\n1,2\n"), (FIGURE, b"<svg/>")):
        begun = Provenance.begin("a stage", {"seed": 0}, "c0de", [made_from])
        save_bytes(path / name, content, begun)
        made_from = path / name
    return tmp_path


def said(capsys, folder="results"):
    """The exit code, and the lines without the counts."""
    capsys.readouterr()
    code = main(["verify", str(folder)])
    out = capsys.readouterr()
    assert out.err == ""
    *lines, counts = out.out.splitlines()
    assert counts.endswith(f" artifacts, {len(lines)} findings")
    assert code == (1 if lines else 0)
    return lines


def test_all_is_well(project, capsys):
    assert said(capsys) == []
    main(["verify", "results"])
    assert capsys.readouterr().out == "3 artifacts, 0 findings\n"


def test_every_flipped_byte_is_found(project, capsys):
    """In artifacts and in what they were made from."""
    for path in [p for p in project.rglob("*") if p.is_file() and p.suffix != ".json"]:
        content = path.read_bytes()
        for at in range(0, len(content), 7):  # all of them once took 20 s
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            lines = said(capsys)
            assert any(path.name in line for line in lines), at
        path.write_bytes(content)
    assert said(capsys) == []


def test_every_other_value_in_a_sidecar_that_matters_is_found(project, capsys):
    path = project / f"{TABLE}.provenance.json"
    content = path.read_bytes()
    stated = json.loads(content)
    for key, value in stated.items():
        path.write_text(json.dumps({k: v for k, v in stated.items() if k != key}))
        assert any(f"{path.name}: damaged" in line for line in said(capsys)), key
        path.write_text(json.dumps(stated | {key: [value]}))
        assert any(f"{path.name}: damaged" in line for line in said(capsys)), key
    for change in ({"artifact": "b"}, {"bytes": 7}, {"sha256": WRONG}, {"inputs": {DATA: WRONG}}):
        path.write_text(json.dumps(stated | change))
        assert said(capsys), change
    path.write_text(json.dumps(stated | {"of_another_version": 1}))
    assert said(capsys) == []
    path.write_bytes(content)
    assert said(capsys) == []


def altered(path):
    path.write_bytes(path.read_bytes().replace(b"pixels", b"pixelS"))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def removed(path):
    path.unlink()


def linked(path):
    path.rename(path.with_name("elsewhere.provenance.json"))
    path.symlink_to("elsewhere.provenance.json")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


def enlarged(path):
    with open(path, "r+b") as file:
        file.truncate(LARGEST + 1)


def nested(path):
    path.write_bytes(b"[" * 100_000)


def rewritten(change):
    """A sidecar with another content."""

    def fault(path):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | change))

    return fault


SIDE = ".provenance.json"
INPUT = f"{TABLE}: its input {DATA}"
WRONG = "a" * 64


@pytest.mark.parametrize(
    ("name", "fault", "expected"),
    [
        (DATA, altered, [f"{DATA}: altered: .*; delete it and run snake", f"{INPUT} has changed"]),
        (DATA, truncated, [f"{DATA}: truncated: 593 bytes, not 594; del", f"{INPUT} has changed"]),
        (DATA, emptied, [f"{DATA}: truncated: 0 bytes", f"{INPUT} has changed since; mend that"]),
        (DATA, removed, [f"{DATA}{SIDE}: a sidecar without its.*; run", f"{INPUT} does not exist"]),
        (DATA, a_pipe, [f"{DATA}: a folder, pipe or device that", f"{INPUT} does not exist"]),
        (TABLE, truncated, [f"{FIGURE}: its input {TABLE} has changed", f"{TABLE}: truncated"]),
        (FIGURE, truncated, [f"{FIGURE}: truncated"]),
        ("cifar.parquet", truncated, [f"{DATA}: its input cifar.parquet has changed since"]),
        ("cifar.parquet", removed, [f"{DATA}: its input cifar.parquet does not exist .*; run"]),
        (FIGURE + SIDE, removed, [f"{FIGURE}: has no sidecar; delete it and run snakemake again"]),
        (FIGURE + SIDE, halved, [f"{FIGURE}{SIDE}: damaged .*; delete it and a.svg and run"]),
        (FIGURE + SIDE, emptied, [f"{FIGURE}{SIDE}: damaged .*; delete it and a.svg and run"]),
        (FIGURE + SIDE, enlarged, [f"{FIGURE}{SIDE}: damaged .*larger than 4194304 bytes"]),
        (FIGURE + SIDE, nested, [f"{FIGURE}{SIDE}: damaged .*recursion"]),
        (FIGURE + SIDE, a_pipe, [f"{FIGURE}{SIDE}: a folder, p", f"{FIGURE}: has no"]),
        (FIGURE + SIDE, linked, [f"{FIGURE}{SIDE}: a link", ".*/elsew", ".*/elsew"]),
        (FIGURE + SIDE, a_folder, [f"{FIGURE}: .*"]),
        (FIGURE + SIDE, rewritten({"artifact": "b.svg"}), [f"{FIGURE}{SIDE}: the sidecar of b"]),
        (FIGURE + SIDE, rewritten({"sha256": WRONG}), [f"{FIGURE}: altered"]),
        (FIGURE + SIDE, rewritten({"sha256": "a"}), [f"{FIGURE}{SIDE}: .*not 64 hex digits"]),
        (FIGURE + SIDE, rewritten({"bytes": "6"}), [f"{FIGURE}{SIDE}: .*bytes is '6', of"]),
        (FIGURE + SIDE, rewritten({"inputs": [TABLE]}), [f"{FIGURE}{SIDE}: damaged"]),
        (FIGURE + SIDE, rewritten({"inputs": {"/dev/zero": WRONG}}), [".*/dev/zero does not"]),
        (FIGURE + SIDE, rewritten({"inputs": {"a\0b": WRONG}}), [r".*a\\x00b does not exist"]),
        (FIGURE + SIDE, rewritten({"inputs": {"x\n\x1b[2J": WRONG}}), [r".*input x \\x1b\[2J "]),
    ],
)  # fmt: skip
def test_faults(project, capsys, name, fault, expected):
    fault(project / name)
    lines = said(capsys)
    assert len(lines) == len(expected)
    for line, pattern in zip(sorted(lines), expected, strict=True):
        assert re.match(pattern, line), line


def test_a_link_to_a_folder_is_not_passed_over(project, capsys):
    shutil.move("results/figures", "elsewhere")
    (project / "results/figures").symlink_to(project / "elsewhere")
    assert said(capsys) == [
        "results/figures: a link that is not looked into; replace it by the file itself, or mend"
        " its permissions"
    ]
    assert said(capsys, "results/figures/") == []


def test_what_is_no_artifact(project, capsys):
    for name in (
        "logs/data.log",
        "benchmarks/a/data.tsv",
        ".a.csv.swp",
        ".cache/a",
        ".b.checkpoint",
    ):
        path = project / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    assert said(capsys) == []
    (project / "results/logs/notes.txt").write_text("mine")
    (project / "results/b.log").write_text("mine")
    assert len(said(capsys)) == 2


def test_strange_names_and_a_deep_tree(project, capsys):
    (project / "results" / "a\nb\x1b[2J\udcff").write_text("?")
    (line,) = said(capsys)
    assert line.startswith(r"results/a b\x1b[2J\udcff: has no sidecar")
    folder = project / "results"
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python recurses
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        assert len(said(capsys)) == 1
    finally:
        subprocess.run(["rm", "-rf", folder / "d"], check=True)  # pytest would recurse


def test_nothing_heavy_is_imported(project):
    """It starts at once: hashing needs neither torch nor a reader of artifacts."""
    code = "import sys; from rdmdc.__main__ import main; main(['verify', 'results']);"
    code += "sys.exit(bool({'torch', 'pyarrow', 'numpy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=project).returncode == 0


@pytest.mark.parametrize("words", [["verify"], ["verify", "gone"], ["verify", "cifar.parquet"]])
def test_misuse(project, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "folder" in capsys.readouterr().err
