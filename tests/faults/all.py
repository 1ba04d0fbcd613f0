"""Every fault, in the order of the table."""

from tests.faults import checkpoints, data, files, numbers, resume, stopping, using
from tests.faults.fault import Fault

EVERY = [
    *resume.FAULTS,
    *stopping.FAULTS,
    *numbers.FAULTS,
    *checkpoints.FAULTS,
    *files.FAULTS,
    *data.FAULTS,
    *using.FAULTS,
]
ORDER = "TCDEPXZB"
FAULTS: list[Fault] = sorted(EVERY, key=lambda fault: ORDER.index(fault.id[0]))
"""By bar; those of one letter as they stand in their files."""
