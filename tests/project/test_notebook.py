"""The example notebook."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "aperture_photometry.ipynb"


@pytest.mark.slow
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook runs to its end, is stored without outputs, and shows counts and results."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = "".join(str(cell.outputs) for cell in cells)
    assert "<b>TodoList</b>" in shown
    assert "the aperture around pixel (#, #) is not on the image" in shown
