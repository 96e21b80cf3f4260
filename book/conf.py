"""The book: README and the notebooks as committed, as pages that open from disk with no network.

`make html` builds it from the repository's root. A new notebook joins by itself.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

project = "Learned degradations for super-resolution"
language = "en"
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "data/README.md", "notebooks/*.ipynb", "app/widgets.ipynb"]
exclude_patterns = [".*", "build", "runs"]
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton"]

# Pages show what the published run printed and drew. Nothing is executed, and nothing is asked of the network:
# widgets would need scripts from elsewhere, so of what an output offers, their still is taken before their view.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", kind, 5) for kind in ("image/png", "image/jpeg")]
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False
# A browser refuses to read summaries from files on disk; the search itself works there.
html_show_search_summary = False

MATHJAX = Path(*find_spec("sphinx-mathjax-offline").submodule_search_locations) / "static" / "mathjax"
mathjax_path = "mathjax/tex-chtml-full.js"
# The menu would load parts that are not copied.
mathjax3_config = {"options": {"enableMenu": False}}

CONTENTS = """

```{toctree}
:caption: The course
:glob:
:hidden:

notebooks/*
```

```{toctree}
:caption: Beside it
:hidden:

app/widgets
data/README
CONTRIBUTING
```
"""


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page, which code hosts show as well, the contents that only a book can read."""
    if page == root_doc:
        source[0] += CONTENTS


def finish(app: Sphinx, error: Exception | None) -> None:
    """Call the first page index.html, and put what pages use of MathJax, one script and its fonts, beside them."""
    if error is None and app.builder.format == "html":
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")
        target = app.outdir / "_static" / "mathjax"
        fonts = Path("output", "chtml", "fonts", "woff-v2")
        shutil.copytree(MATHJAX / fonts, target / fonts, dirs_exist_ok=True)
        shutil.copyfile(MATHJAX / "tex-chtml-full.js", target / "tex-chtml-full.js")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", finish)
