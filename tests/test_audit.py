"""`make audit`: what cannot be looked up is not called safe."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
FOUND = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("out", "err", "code", "said"),
    [
        (
            "",
            "ConnectionError: Failed to establish a new connection",
            0,
            "not run: the advisory service cannot be reached",
        ),
        ("", "Name or service not known: could not resolve host", 0, "not run"),
        ([SKIPPED], "", 0, "not run: the advisory service answered for none"),
        ([CLEAN, SKIPPED], "", 0, "1 packages checked, 0 known vulnerabilities\nnot checked: b"),
        ([CLEAN, FOUND], "", 1, "c 2: CVE-1, fixed in 3"),
        ("", "a traceback", 1, ""),
    ],
)
def test_verdicts(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str | list[object],
    err: str,
    code: int,
    said: str,
) -> None:
    stdout = json.dumps({"dependencies": out}) if isinstance(out, list) else out
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=stdout, stderr=err)
    )
    assert audit.main(ROOT / "requirements" / "linux-x86_64.txt") == code
    assert said in capsys.readouterr().out
