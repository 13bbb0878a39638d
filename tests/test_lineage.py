"""The lineage has each file once, and none that is not what its artifacts were made from."""

import re
from pathlib import Path

import pytest

from rdmdc.errors import ArtifactError
from rdmdc.reporting import lineage
from rdmdc.storage.provenance import Provenance, sha256, sidecar_of
from rdmdc.storage.writing import save_bytes

IMAGES, SCORES, TABLE = Path("cifar.parquet"), Path("results/a.parquet"), Path("results/t.csv")
FIGURE = Path("results/f.svg")


def save(path, written, *made_from, **options):
    save_bytes(path, written, Provenance.begin("a stage", options, "c0de", made_from))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A table and a figure of the same scores, those of the data set's own file and of another."""
    monkeypatch.chdir(tmp_path)
    IMAGES.write_bytes(b"images")
    save(SCORES, b"scores", IMAGES, content={"emoji.parquet": "e" * 64})
    save(TABLE, b"<&>", SCORES)
    save(FIGURE, b"figure", SCORES)


def test_each_file_is_there_once(project):
    origins = lineage.lineage([TABLE, FIGURE, TABLE])
    assert len({origin.path for origin in origins}) == len(origins)
    assert [origin.path for origin in origins[:2]] == [str(IMAGES), "emoji.parquet"]
    digests = {origin.path: origin.sha256 for origin in origins}
    assert digests.pop("emoji.parquet") == "e" * 64
    assert digests == {str(path): sha256(path) for path in (IMAGES, SCORES, TABLE, FIGURE)}
    assert [origin.made is not None for origin in origins] == [False, False, True, True, True]


def test_an_artifact_that_was_made_again_otherwise_is_an_error(project):
    save(SCORES, b"other scores", IMAGES)
    with pytest.raises(ArtifactError, match=r"a\.parquet: not what its artifacts were made from"):
        lineage.lineage([TABLE])


def test_a_damaged_or_missing_sidecar_is_an_error(project):
    sidecar = sidecar_of(SCORES)
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"seconds"', b'"sekunds"'))
    with pytest.raises(ArtifactError, match=r"a\.parquet"):
        lineage.lineage([TABLE])
    sidecar_of(FIGURE).unlink()
    with pytest.raises(ArtifactError, match=r"f\.svg"):
        lineage.lineage([FIGURE])


def test_the_page_has_a_row_for_each(project):
    origins = lineage.lineage([TABLE, FIGURE])
    page = lineage.html(origins, "a<b")
    rows = [re.findall("<td>([^<]*)</td>", row) for row in page.split("<tr>")[1:]]
    assert [(row[0], row[-1]) for row in rows] == [(o.path, o.sha256) for o in origins]
    assert "<h1>Provenance of preset a&lt;b</h1>" in page
    assert "3 artifacts of 0.0 MB; 2 files without a sidecar" in page


def test_what_sidecars_say_is_escaped(project):
    """A sidecar may come from a stranger."""
    hostile = Path("results/<script>alert(1)<a.csv")
    save_bytes(hostile, b"a", Provenance.begin("<script>x", {}, "<img src=x>", []))
    page = lineage.html(lineage.lineage([hostile]), "smoke")
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;a.csv" in page
