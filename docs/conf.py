"""The documentation's site: `make docs` builds it from the Markdown of this folder (docs/design/site.md)."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.evaluation.criteria import CRITERIA
from pipeline.training.methods import METHODS, load_recipe

project = "Early-exit experiments"
author = "The maintainers of early-exit-pipeline"
project_copyright = f"{author}, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # an included page begins at the level of the page around it

default_role = "code"  # docstrings have single backticks
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

TITLED = re.compile(r'^```(\w+) title="([^"]+)"$', re.MULTILINE)

SECTION = re.compile(r"(Args|Attributes|Returns|Raises):")


def classes(names: Iterable[tuple[str, str]]) -> str:
    """The API of classes, each below a heading of its name."""
    entry = "### `{}`\n\n```{{eval-rst}}\n.. autoclass:: {}\n   :no-members:\n```\n"
    return "\n".join(entry.format(name, path) for name, path in names)


def criteria() -> str:
    """Every criterion of the registry."""
    return classes((name, f"{cls.__module__}.{cls.__name__}") for name, cls in CRITERIA.items())


def recipes() -> str:
    """The recipe of every method."""
    found = {name: type(load_recipe(name)) for name in METHODS}
    return classes((name, f"{cls.__module__}.{cls.__name__}") for name, cls in found.items())


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Show the file that a block belongs to, which Markdown elsewhere leaves out; fill in what registries hold."""
    text = TITLED.sub(r"```{code-block} \1\n:caption: \2\n", source[0])
    for marker, fill in (("<!-- every criterion -->", criteria), ("<!-- every recipe -->", recipes)):
        text = text.replace(marker, fill()) if marker in text else text
    source[0] = text


def plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: bars and stars are no markup; what is indented before the arguments is a formula."""
    out: list[str] = []
    formula = ended = False
    for line in lines:
        ended = ended or SECTION.fullmatch(line) is not None
        indented = line.startswith("    ") and not ended
        if indented and not formula:
            out += ["", "::", ""]
        if not indented and formula and line:
            out.append("")
        formula = indented or (formula and not line)
        out.append(line if indented else re.sub(r"([|*])", r"\\\1", line))
    lines[:] = out
    if what in ("attribute", "property"):
        app.env.temp_data.setdefault("docstrings", {})[name] = out


def whole(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon for an attribute's type."""
    lines[:] = app.env.temp_data.get("docstrings", {}).get(name, lines)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain, priority=100)  # before Napoleon
    app.connect("autodoc-process-docstring", whole, priority=900)
    app.connect("source-read", complete)
