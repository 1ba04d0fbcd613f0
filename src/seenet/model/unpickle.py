"""Import pickled weights: a child process reads them and rewrites them as .safetensors.

The child runs `python -m seenet.model.unpickle IN OUT` and reads with `weights_only=True`; the
process that calls `import_pickle` never unpickles anything.
"""

import sys
import zipfile
from pathlib import Path

from seenet.core.child import REFUSED, refuse, run_module
from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.processor import limit_memory

MAX_BYTES = 4 * 2**30
MEMORY_BYTES = 6 * 2**30
"""Memory limit of the child, in addition to four times the size of the file."""
TIMEOUT_SECONDS = 600
_KEYS_AROUND_A_STATE = ("state_dict", "model", "model_state", "net", "module", "weights")


def import_pickle(source: Path, destination: Path) -> int:
    """Rewrite the tensors of a .pth file as .safetensors and return their number.

    Raises:
        DataError: `source` is missing, larger than 4 GiB or holds more than tensors in plain
            containers, or `destination` exists.
    """
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected a .pth or .pt file of weights")
    if (size := source.stat().st_size) > MAX_BYTES:
        raise DataError(
            f"{source}: {size} bytes, expected at most {MAX_BYTES}; is it a file of weights?"
        )
    if destination.exists():
        raise DataError(f"{destination}: exists already; give another name or remove it first")
    if destination.suffix != ".safetensors":
        raise DataError(
            f"{destination}: found suffix {destination.suffix!r}, expected .safetensors"
        )
    with replacing(destination) as temporary:
        try:
            ended = run_module("seenet.model.unpickle", source, temporary, timeout=TIMEOUT_SECONDS)
        except TimeoutError:
            raise DataError(
                f"{source}: not read within {TIMEOUT_SECONDS} s; is it a file of weights?"
            ) from None
        if ended.code:
            refused = ended.code == REFUSED and ended.message
            reason = ended.message if refused else f"the reader ended with {ended.how}"
            raise DataError(f"{source}: {reason}; expected a state dict of tensors")
        return int(ended.output.split()[-1])


def main() -> None:
    import torch
    from safetensors.torch import save_file

    source, destination = sys.argv[1:]
    file_size = Path(source).stat().st_size
    limit_memory(MEMORY_BYTES + 4 * file_size)
    try:
        # torch writes its archives without compression; a compressed one may unpack to any size.
        if zipfile.is_zipfile(source) and any(
            entry.compress_type for entry in zipfile.ZipFile(source).infolist()
        ):
            refuse("a compressed archive, which torch does not write")
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds; refuse whatever it refuses
        refuse(str(error).splitlines()[0][:200])
    while isinstance(state, dict) and (
        outer := next((k for k in _KEYS_AROUND_A_STATE if isinstance(state.get(k), dict)), None)
    ):
        state = state[outer]
    if not isinstance(state, dict):
        refuse(f"holds a {type(state).__name__}")
    if not state:
        refuse("holds no tensors")
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, torch.Tensor)):
            refuse(f"entry {str(key)[:80]!r} is not a tensor")
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > 2 * file_size + 2**20:
        refuse(f"tensors of {size} bytes in a file of {file_size}")
    tensors = {
        # DataParallel and DDP put this prefix in front of every name.
        key.removeprefix("module."): value.detach().clone().contiguous()
        for key, value in state.items()
    }
    save_file(tensors, destination)
    print(len(tensors))


if __name__ == "__main__":
    main()
