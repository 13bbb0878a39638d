"""MkDocs hook: README and its companions become pages, and links into the repository resolve.

The documents are written to be read in the repository. A link there is relative to its document
and may name any file of the repository. In the site a link to a document leads to its page, and
every other file that is linked is copied below ``files/``.
"""

import os.path
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "config/README.md": "presets.md",
    "rdmdc/datasets/emoji/README.md": "emoji.md",
}
"""Documents outside docs/ and the pages that they become."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)")
"""The path in a Markdown link, unless it is an address or a place on the same page."""

CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents outside docs/, and every file that a document links to."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    documents = [file for file in files if file.is_documentation_page()]
    for document in documents:
        here = PurePosixPath(source_of(document.src_uri))
        for target in LINK.findall(CODE.sub("", document.content_string)):
            path = joined(here, target)
            uri = uri_of(path)
            if files.get_file_from_path(uri) is None and (ROOT / path).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a document at the pages and files of the site."""
    here = PurePosixPath(source_of(page.file.src_uri))
    folder = PurePosixPath(page.file.src_uri).parent

    def moved(match: re.Match[str]) -> str:
        return os.path.relpath(uri_of(joined(here, match[1])), folder)

    return LINK.sub(moved, markdown)


def source_of(uri: str) -> str:
    """A page's document, as a path in the repository."""
    return {page: source for source, page in PAGES.items()}.get(uri, f"docs/{uri}")


def uri_of(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"


def joined(document: PurePosixPath, target: str) -> str:
    """A link's target as a path in the repository."""
    return os.path.normpath(document.parent / target)
