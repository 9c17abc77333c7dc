"""The check of the built pages finds what is broken, and nothing else."""

from pathlib import Path

import pytest

from tools.check_site import faults

SOUND = """<html><head><link rel="stylesheet" href="style.css"><link rel="search" href="search.html"></head>
<body><h1 id="top">A</h1><a href="#top">up</a> <a href="sub/b.html#there">b</a> <a href="https://example.org/x">x</a>
<img src="data:image/png;base64,AA=="></body></html>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(SOUND)
    (tmp_path / "sub/b.html").write_text('<p id="there"><a href="../index.html">a</a></p>')
    (tmp_path / "style.css").touch()
    return tmp_path


def test_a_sound_site_has_no_fault(site: Path) -> None:
    assert list(faults(site)) == []


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ('<a href="c.html">c</a>', "c.html: no such file"),
        ('<a href="sub/b.html#here">b</a>', "sub/b.html#here: no such place on the page"),
        ('<a href="#down">d</a>', "#down: no such place on the page"),
        (
            '<script src="https://cdn.example.org/a.js"></script>',
            "https://cdn.example.org/a.js: comes from another host",
        ),
        ('<link rel="stylesheet" href="//fonts.example.org/a.css">', "//fonts.example.org/a.css: comes from another"),
        ('<img src="missing.svg">', "missing.svg: no such file"),
        ('<a href="http://example.org">e</a>', "http://example.org: no https address"),
        ('<a href="https://examp le.org">e</a>', "no https address"),
    ],
)
def test_what_is_broken_is_named_with_its_page(site: Path, broken: str, says: str) -> None:
    (site / "index.html").write_text(SOUND.replace("</body>", f"{broken}</body>"))
    (fault,) = faults(site)
    assert fault.startswith("index.html: ")
    assert says in fault


def test_no_page_is_a_fault(tmp_path: Path) -> None:
    assert list(faults(tmp_path)) == [f"{tmp_path}: no page; run `make docs`"]
