"""Run a notebook's cells in order as one program, without Jupyter, of which nothing is installed.

``python -m tests.notebook examples/story.ipynb`` writes what they have printed into the notebook.
"""

import contextlib
import io
import json
import sys
from pathlib import Path


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cells(notebook, name):
    """Return what each code cell prints."""
    namespace, printed = {"__name__": name}, []
    for number, cell in enumerate(code_cells(notebook)):
        code = compile("".join(cell["source"]), f"{name}, cell {number}", "exec")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, namespace)
        printed.append(output.getvalue())
    return printed


def main(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for number, (cell, text) in enumerate(
        zip(code_cells(notebook), run_cells(notebook, path.stem), strict=True), start=1
    ):
        lines = text.splitlines(keepends=True)
        cell["execution_count"] = number
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}]
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
