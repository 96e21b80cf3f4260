"""The book: the notebooks as committed, as pages that open from disk with no network. `make html` builds it."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

project = "Learned degradations for super-resolution"
author = "The course's authors"
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["figures", "**/.ipynb_checkpoints"]

# Pages show what the published run printed and drew. Nothing is executed, and nothing is asked of the network:
# widgets would need scripts from elsewhere, and each has a still picture beside it.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
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
copybutton_exclude = ".linenos, .gp, .go"

MATHJAX = Path(*find_spec("sphinx-mathjax-offline").submodule_search_locations) / "static" / "mathjax"
mathjax_path = "mathjax/tex-chtml-full.js"
# The menu would load parts that are not copied.
mathjax3_config = {"options": {"enableMenu": False}}


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put the two megabytes of MathJax that pages use beside them: one script and its fonts."""
    if error is None and app.builder.format == "html":
        target = app.outdir / "_static" / "mathjax"
        fonts = Path("output", "chtml", "fonts", "woff-v2")
        shutil.copytree(MATHJAX / fonts, target / fonts, dirs_exist_ok=True)
        shutil.copyfile(MATHJAX / "tex-chtml-full.js", target / "tex-chtml-full.js")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("build-finished", copy_mathjax)
