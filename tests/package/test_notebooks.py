"""The notebooks run from their text form, in a kernel, in an empty folder beside the plans."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.extended
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.py"))


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages
def test_a_notebook_runs(notebook: Path, root: Path, tmp_path: Path) -> None:
    import jupytext
    import nbclient

    (tmp_path / "plans").symlink_to(root / "plans")
    found = jupytext.read(notebook)
    nbclient.NotebookClient(
        found, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert any(cell.get("outputs") for cell in found.cells)
