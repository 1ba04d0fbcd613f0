"""`seenet` that also notes which masks each rank looks at before the first step: `python -m tests.training.scanning FOLDER train ...`."""

import os
import sys
from pathlib import Path

from seenet.cli import main
from seenet.data.check import scan
from seenet.data.check.scan import Pair
from seenet.data.split import Split


def note(folder: Path) -> None:
    """Append SPLIT KEY to FOLDER/scanned-RANK.txt for each pair that is read in the scan."""
    read = scan.read_pair

    def noting(split: Split, index: int) -> Pair:
        with (folder / f"scanned-{os.environ['RANK']}.txt").open("a") as file:
            file.write(f"{split.name} {split.key(index)}\n")
        return read(split, index)

    scan.read_pair = noting


if __name__ == "__main__":
    note(Path(sys.argv[1]))
    main(sys.argv[2:])
