"""The book builds from the notebooks as they are, and reads well from disk with the network refused."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATIENCE = 180_000
"""Milliseconds that a page may take on a busy machine."""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the built book; any warning of the builder fails."""
    folder = tmp_path_factory.mktemp("a book")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "doctrees"]
    done = subprocess.run([*command, "-c", ROOT / "book", ROOT, folder / "html"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(book):
    """Every page, parsed."""
    return {path: BeautifulSoup(path.read_bytes(), "html.parser") for path in sorted(book.rglob("*.html"))}


def local_targets(page: Path, soup: BeautifulSoup):
    """Files on disk that a page links to or loads, with the place meant inside them."""
    for tag in soup.find_all(["a", "img", "link", "script", "source"]):
        target = tag.get("href") or tag.get("src")
        if target and not target.startswith(("http://", "https://", "mailto:", "data:")):
            name, place = urldefrag(re.sub(r"\?v=\w+", "", target))
            yield (page.parent / unquote(name)).resolve() if name else page, unquote(place)


def test_every_notebook_is_a_page_that_the_first_page_leads_to(book, pages):
    linked = {path for path, _ in local_targets(book / "index.html", pages[book / "index.html"])}
    assert {book / "notebooks" / f"{path.stem}.html" for path in NOTEBOOKS} <= linked


def test_no_link_is_broken(book, pages):
    places = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in pages.items()}
    for page, soup in pages.items():
        for path, place in local_targets(page, soup):
            assert path.is_file(), f"{page.name} links to {path}"
            assert not place or place in places[path], f"{page.name} links to {path.name}#{place}"


def test_pages_show_what_notebooks_show(book, pages):
    for path in NOTEBOOKS:
        soup = pages[book / "notebooks" / f"{path.stem}.html"]
        # Of a widget the still, and not the view, which needs a script that is not here.
        assert not soup.find_all("script", type=re.compile("jupyter.widget-view"))
        assert soup.select(".cell_input") and soup.select(".cell_output img")
        # A Markdown table that was not read as one is printed with its bars.
        assert "| ---" not in soup.get_text() and "|---" not in soup.get_text()


def test_figures_are_legible_on_dark_pages(book):
    figures = sorted((book / "_images").glob("*"))
    assert len(figures) > len(NOTEBOOKS)
    for path in figures:
        with Image.open(path) as image:
            assert "A" not in image.mode or image.getchannel("A").getextrema()[0] == 255, f"{path.name} is see-through"


def open_page(context, address):
    """A loaded page, equations drawn, and everything that went wrong on the way."""
    page, trouble = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    local = ("file:", "data:", "blob:")
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on("request", lambda request: request.url.startswith(local) or trouble.append(request.url))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda line: line.type in ("error", "warning") and trouble.append(line.text))
    page.goto(address)
    page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => true)")
    return page, trouble


CONTRAST = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ink = light(getComputedStyle(document.querySelector("article")).color);
  return [paper, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
}"""
"""How light the page is, and the contrast of its text as WCAG 2 defines it."""


def test_every_page_opens_in_a_browser_with_the_network_refused(book, pages, chromium):
    context = chromium.new_context(offline=True)
    for path, soup in pages.items():
        page, trouble = open_page(context, path.as_uri())
        assert page.locator("mjx-container").count() >= len(soup.select(".math"))
        assert page.locator("mjx-merror").count() == 0, path.name
        assert all(page.eval_on_selector_all("article img", "images => images.map(image => image.naturalWidth)"))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            paper, contrast = page.evaluate(CONTRAST)
            assert (paper > 0.9 if scheme == "light" else paper < 0.1) and contrast > 7, (path.name, scheme)
        assert not trouble, f"{path.name}: {trouble}"
        page.close()
    context.close()


def test_search_finds_a_word_and_leads_to_it(book, chromium):
    context = chromium.new_context(offline=True)
    page, trouble = open_page(context, (book / "index.html").as_uri())
    page.fill("input[name=q]", "photographs")
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("#search-results li a")
    page.click("#search-results li a")
    page.wait_for_url("**/notebooks/**")
    assert "photographs" in page.inner_text("article").lower()
    assert not trouble
    context.close()
