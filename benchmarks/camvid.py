"""Find CamVid for the benchmarks."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import ROOT

MISSING = "there is no CamVid in data/CamVid"


def camvid() -> Path | None:
    """Return `data/CamVid`, or CamVid of the shared folder, unpacked once; None without either."""
    own, unpacked = ROOT / "data" / "CamVid", ROOT / "build" / "bench" / "data"
    script = Path(os.environ.get("SEENET_SHARED") or ROOT.parent / "shared") / "data" / "unpack.py"
    if own.is_dir():
        return own
    if not (unpacked / "CamVid").is_dir() and script.is_file():
        subprocess.run(
            [sys.executable, str(script), str(unpacked)], check=True, capture_output=True
        )
    return unpacked / "CamVid" if (unpacked / "CamVid").is_dir() else None
