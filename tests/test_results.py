"""docs/results.md agrees with the committed result files."""

import runpy
from pathlib import Path


def test_the_tables_are_generated_from_the_committed_files() -> None:
    tables = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "results" / "tables.py"))
    page = tables["PAGE"].read_text(encoding="utf-8")
    assert tables["generated"]() in page, "run python docs/results/tables.py"
