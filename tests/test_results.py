"""docs/results.md says what the committed result files say."""

import importlib.util
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def test_the_tables_are_generated_from_the_committed_files() -> None:
    spec = importlib.util.spec_from_file_location("tables", RESULTS / "tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.generated() in tables.PAGE.read_text(encoding="utf-8"), (
        "run python docs/results/tables.py"
    )
