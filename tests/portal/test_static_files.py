"""Scripts and styles on the wire: compressed once, asked for again by their tag."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import tree_sitter_javascript
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from tree_sitter import Language, Node, Parser

from portal.static_files import FOR_EVER, STATIC, VERSION, CompressedFiles, version_of
from portal.static_files import packed as pack
from tests.portal.client import Browser

SCRIPT: Final = "// What it says.\nlet a = 1;\n" + "a += `  // no comment ${a}`.length;\n" * 50
SCRIPTS: Final = sorted(str(path.relative_to(STATIC)) for path in (STATIC / "js").rglob("*.js"))
JAVASCRIPT: Final = Parser(Language(tree_sitter_javascript.language()))


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    (tmp_path / "a.js").write_text(SCRIPT)
    (tmp_path / "a.png").write_bytes(b"\x89PNG" * 100)
    app = Starlette()
    app.mount("/", CompressedFiles(directory=tmp_path))
    return TestClient(app)


def test_script_is_sent_by_gzip_to_whoever_takes_it(client: TestClient, tmp_path: Path) -> None:
    packed = client.get("/a.js", headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.headers["content-type"].startswith("text/javascript")
    assert int(packed.headers["content-length"]) == len(pack(tmp_path / "a.js")) < len(gzip.compress(SCRIPT.encode()))
    assert "What it says" not in packed.text
    assert packed.text.count("`  // no comment ${a}`") == 50
    plain = client.get("/a.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == SCRIPT
    assert plain.headers["etag"] == packed.headers["etag"]


def test_what_the_browser_has_is_not_sent_again(client: TestClient, tmp_path: Path) -> None:
    tag = client.get("/a.js").headers["etag"]
    again = client.get("/a.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    (tmp_path / "a.js").write_text("let a=2;")
    changed = client.get("/a.js", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.text) == (200, "let a=2;")


def test_script_of_this_version_is_sent_from_memory_with_the_same_headers(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("let a = 1;\n" * 100)
    app = Starlette()
    app.mount("/static", CompressedFiles(directory=tmp_path, version="v-0123456789ab"))
    client = TestClient(app)
    first = client.get("/static/v-0123456789ab/a.js")
    (tmp_path / "a.js").unlink()  # whoever asks the disk again finds nothing
    again = client.get("/static/v-0123456789ab/a.js")
    assert (again.status_code, again.text, again.headers) == (200, first.text, first.headers)
    assert client.get("/static/v-0123456789ab/b.js").status_code == 404
    assert client.get("/static/v-0123456789ab/a.js", headers={"Accept-Encoding": "identity"}).status_code == 404
    assert client.get("/static/a.js").status_code == 404


def test_address_with_the_version_is_kept_for_ever_and_one_of_before_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("let a=1;")
    version = version_of(tmp_path)
    app = Starlette()
    app.mount("/static", CompressedFiles(directory=tmp_path, version=version))
    client = TestClient(app)
    now, before, plain = (client.get(f"/static/{part}a.js") for part in (f"{version}/", "v-0123456789ab/", ""))
    assert [one.text for one in (now, before, plain)] == ["let a=1;"] * 3
    assert now.headers["cache-control"] == FOR_EVER
    assert all("cache-control" not in one.headers for one in (before, plain))
    (tmp_path / "a.js").write_text("let a = 2;\n")
    assert version_of(tmp_path) != version


def test_pages_name_the_files_as_they_are(reader: Browser) -> None:
    page = reader.get("/worklist").text
    (address,) = re.findall(r'<script type="module" src="([^"]+/js/app\.js)">', page)
    assert address == f"/static/{VERSION}/js/app.js"
    assert reader.get(address).headers["cache-control"] == FOR_EVER
    assert not re.search(r'="/static/(?!v-)', page)


def test_images_are_sent_as_they_are(client: TestClient) -> None:
    answer = client.get("/a.png", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.content == b"\x89PNG" * 100


def _tokens(script: bytes) -> list[bytes]:
    """Return the tokens of a script, what stands in its texts among them, without its comments."""

    def leaves(node: Node) -> Iterator[bytes]:
        if node.type == "comment":
            return
        if not node.children:
            yield script[node.start_byte : node.end_byte]
        for child in node.children:
            yield from leaves(child)

    root = JAVASCRIPT.parse(script).root_node
    assert not root.has_error
    return [one for one in leaves(root) if one != b";"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_packing_changes_no_word_of_a_script(name: str) -> None:
    assert _tokens(gzip.decompress(pack(STATIC / name))) == _tokens((STATIC / name).read_bytes())


def test_text_in_a_template_within_another_would_be_changed(tmp_path: Path) -> None:
    """What the test above is for: the packer takes the inner one for code."""
    script = tmp_path / "a.js"
    script.write_text("const a = `x${b ? `, ${b}` : ''}`;\n")
    assert _tokens(gzip.decompress(pack(script))) != _tokens(script.read_bytes())
