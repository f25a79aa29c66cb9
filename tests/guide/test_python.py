"""The page on Python and its notebook: all of their code runs, and shows what they say it shows."""

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.guide.manual import FOLDER, blocks

PAGE, NOTEBOOK = FOLDER / "python.md", FOLDER / "python.ipynb"


@pytest.mark.slow
def test_the_code_of_the_page_is_one_script_that_runs(tmp_path):
    (tmp_path / "page.py").write_text("\n".join(blocks(PAGE, "python")))
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "timing stages" in done.stdout
    assert "--pipeline-model-parallel-size 8" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"report.json", "predicted.json", "profile.json"}


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)  # what is kept in the package has not been run
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, startup_timeout=300, resources=place).execute()
    told = [output for cell in code for output in cell.outputs]
    assert [output for output in told if output.output_type not in ("execute_result", "stream")] == []
    assert [output.text for output in told if output.get("name") == "stderr"] == []
    tables = [output.data["text/html"] for output in told if "text/html" in output.get("data", {})]
    assert len(tables) == 3  # of the run, of pandas, of the prediction
    assert "<b>" in tables[0]
    assert "tokens/s" in tables[0]
