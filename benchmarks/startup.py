"""Line 7: start-up time of commands, each a process, interleaved."""

import statistics
import subprocess
import sys
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.measuring import interleaved, spread

PHOTO = next((ROOT / "src" / "seenet" / "photos").glob("*.jpg"))
COMMANDS = {
    "pass": ["-c", "pass"],
    "help": ["-m", "seenet", "--help"],
    "import": ["-c", "import seenet"],
    "libraries": ["-c", "import torch, timm"],
    "predict": [
        "-m",
        "seenet",
        "predict",
        "camvid-lite0",
        str(PHOTO),
        "--overwrite",
        "--out",
        "OUT",
    ],
}


def measure(out: str) -> dict[str, Any]:
    """Return seconds of each command and of a forward pass over a photograph; ratios by rounds."""
    import seenet
    from seenet.core.images import read_image

    net, picture = seenet.load("camvid-lite0", "cpu"), read_image(PHOTO)
    works = {
        name: lambda words=words: _run([out if word == "OUT" else word for word in words])
        for name, words in COMMANDS.items()
    }
    found = interleaved({**works, "forward": lambda: net.mask(picture)}, seconds=30, most=7)
    seconds = found["seconds"]
    whole = [
        libraries + forward
        for libraries, forward in zip(seconds["libraries"], seconds["forward"], strict=True)
    ]
    over = {"help": seconds["pass"], "import": seconds["pass"], "predict": whole}
    return {
        "values": {
            f"{name} start-up": statistics.median(
                a / b for a, b in zip(seconds[name], base, strict=True)
            )
            for name, base in over.items()
        },
        "seconds": {name: spread(times) for name, times in seconds.items()},
        "rounds": len(seconds["pass"]),
        "others": found["others"],
    }


def _run(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
