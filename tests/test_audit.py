"""`make audit`: packages that cannot be looked up are not reported as safe."""

import json
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
FOUND = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("packages", "err", "code", "report"),
    [
        (None, "ConnectionError: Failed to establish a new connection", 0, "not run"),
        (None, "Name or service not known: could not resolve host", 0, "not run"),
        ([SKIPPED], "", 0, "not run"),
        ([CLEAN, SKIPPED], "", 0, "1 packages checked, 0 known vulnerabilities\nnot checked: b"),
        ([CLEAN, FOUND], "", 1, "c 2: CVE-1, fixed in 3"),
        (None, "a traceback", 1, ""),
    ],
)
def test_verdicts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[object] | None,
    err: str,
    code: int,
    report: str,
) -> None:
    stdout = "" if packages is None else json.dumps({"dependencies": packages})
    done = SimpleNamespace(stdout=stdout, stderr=err)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    audit = runpy.run_path(str(REQUIREMENTS / "audit.py"))
    assert audit["main"](REQUIREMENTS / "linux-x86_64.txt") == code
    assert report in capsys.readouterr().out
