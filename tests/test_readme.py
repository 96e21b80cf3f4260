"""README.md says what the repository says: its tables, its commands, its links, in the order of a first screen."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from sr_utils.headline import headline_source, headline_table
from sr_utils.publish import END, START, running_time

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def between(start: str, end: str) -> str:
    return README.partition(start)[2].partition(end)[0].strip()


def test_headline_table_is_that_of_the_metrics():
    assert between(START, END) == f"{headline_table(ROOT / 'figures')}\n\n{headline_source(ROOT / 'figures')}"


def test_course_table_has_every_notebook_with_its_measured_time():
    table = between("<!-- course:start -->", "<!-- course:end -->")
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    links = [re.search(r"\((notebooks/.*)\)", name)[1] for name, *_ in rows[2:]]
    assert links == [f"notebooks/{path.name}" for path in NOTEBOOKS], "README.md needs one row a notebook, in order"
    for path, (_, question, time, gpu) in zip(NOTEBOOKS, rows[2:], strict=True):
        assert question.endswith("?")
        assert time == running_time(path.read_text(encoding="utf-8")), f"README.md states another time for {path.name}"
        assert gpu in ("no", "yes", "helps")


def test_the_first_screen_comes_first():
    marks = ("![", START, "make report", "make test", "<!-- course:start -->", "\n## ")
    places = [README.index(mark) for mark in marks]
    assert places == sorted(places)
    assert README[: places[0]].count(".") <= 1, "one sentence before the picture"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)(?=[\s`,.]*(?:[A-Z]+=|#|`|\n))", text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page} names make {target}"
    for command in set(re.findall(r"-m sr_utils\.cli ([a-z_-]+)", text)):
        done = subprocess.run([sys.executable, "-m", "sr_utils.cli", command, "--help"], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, command


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", re.sub(r"`[^`]*`|\$[^$]*\$", "", text))


def heading_names(text: str) -> set[str]:
    """Names by which code hosts and the book link to headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "data" / "README.md", *NOTEBOOKS]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(page):
    text = prose(page)
    for link in links(text):
        if link.startswith("http"):
            assert re.fullmatch(r"https?://[\w.-]+\.\w+(/\S*)?", link), link
            continue
        name, _, place = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        assert not place or place in heading_names(prose(target)), f"{page.name} links to {link}: no such heading"


def test_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    for work in citation["references"]:
        assert {"type", "title", "authors"} <= work.keys() and work["url"].startswith("https://")
    titles = " ".join(work["title"] for work in citation["references"])
    assert all(name in titles for name in ("DeFlow", "ESRGAN", "Perceptual Metric"))
