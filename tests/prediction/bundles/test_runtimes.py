"""What a runtime raises becomes one line, or too little memory where it says that."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError
from seenet.prediction.bundles.runtimes import _told


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 108000000 bytes of memory\n", MemoryError),
        ("Status Message: std::bad_alloc", MemoryError),
        ("Output 1 of node Add is not allocated", DataError),
        ("Failed to allocate required number of vector registers", DataError),
    ],
)
def test_memory_is_told_from_other_refusals(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, _told(Path("a.onnx")):
        raise RuntimeError(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.onnx: the runtime refuses it") == (kind is DataError)
