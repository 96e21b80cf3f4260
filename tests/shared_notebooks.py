"""Small notebooks that tests write."""

import nbformat


def write_notebook(path, *cells, prose="# Title"):
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose), *code]), path)
    return path
