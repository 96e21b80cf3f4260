"""Notebook 10 answers every exercise of the notebooks that it has a section for; that it runs is tested elsewhere."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SOLUTIONS = FOLDER / "10_solutions.ipynb"


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def exercises(path):
    """Numbers of the exercises of a notebook."""
    _, _, rest = prose(path).partition("## Exercises")
    part = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^(\d+)\. ", part, flags=re.MULTILINE)


def answered():
    """Numbers of the answers by the number of their notebook."""
    sections = re.split(r"^## Notebook (\d+)", prose(SOLUTIONS), flags=re.MULTILINE)
    return {
        int(number): re.findall(r"^\*\*(\d+)\. ", text, flags=re.MULTILINE)
        for number, text in zip(sections[1::2], sections[2::2], strict=True)
    }


@pytest.mark.parametrize("number", sorted(answered()))
def test_every_exercise_has_its_answer(number):
    (path,) = FOLDER.glob(f"{number:02d}_*.ipynb")
    assert exercises(path) and answered()[number] == exercises(path)


def test_every_notebook_has_its_section_and_names_its_solutions():
    assert set(range(10)) == set(answered())
    for number in range(1, 10):
        (path,) = FOLDER.glob(f"{number:02d}_*.ipynb")
        assert "(10_solutions.ipynb)" in prose(path)
