"""Import pickled weights: read in a child process with `weights_only=True`, rewrite as .safetensors.

`import_pickle` runs this file as `python -m seenet.model.unpickle IN OUT`; the process that calls
it never unpickles anything.
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
"""Of the reader, besides several times the file."""
TIMEOUT_SECONDS = 600
_KEYS_AROUND_A_STATE = ("state_dict", "model", "model_state", "net", "module", "weights")


def import_pickle(source: Path, destination: Path) -> int:
    """Rewrite the tensors of a .pth file as .safetensors and return their number.

    Raises DataError: no such file, more than 4 GiB, anything in it besides tensors in plain
    containers, or a destination that exists.
    """
    if not source.is_file():
        raise DataError(f"{source}: no such file; expected a .pth or .pt file of weights")
    if source.stat().st_size > MAX_BYTES:
        raise DataError(f"{source}: {source.stat().st_size} bytes, expected at most {MAX_BYTES}; is it a file of weights?")
    if destination.exists():
        raise DataError(f"{destination}: exists already; give another name or remove it first")
    if destination.suffix != ".safetensors":
        raise DataError(f"{destination}: found suffix {destination.suffix!r}, expected .safetensors")
    with replacing(destination) as temporary:
        try:
            ended = run_module("seenet.model.unpickle", source, temporary, timeout=TIMEOUT_SECONDS)
        except TimeoutError:
            raise DataError(f"{source}: not read within {TIMEOUT_SECONDS} s; is it a file of weights?") from None
        if ended.code:
            refused = ended.code == REFUSED and ended.message
            reason = ended.message if refused else f"the reader ended with {ended.how}"
            raise DataError(f"{source}: {reason}; expected a state dict of tensors")
        return int(ended.output.split()[-1])


def main() -> None:
    import torch
    from safetensors.torch import save_file

    source, destination = sys.argv[1:]
    limit_memory(MEMORY_BYTES + 4 * Path(source).stat().st_size)
    try:
        # torch writes its archives unpacked; what is packed may unpack to any size.
        if zipfile.is_zipfile(source) and any(entry.compress_type for entry in zipfile.ZipFile(source).infolist()):
            refuse("a compressed archive, which torch does not write")
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds; whatever it refuses, we refuse
        refuse(str(error).splitlines()[0][:200])
    while isinstance(found, dict) and (around := next((key for key in _KEYS_AROUND_A_STATE if isinstance(found.get(key), dict)), None)):
        found = found[around]
    if not isinstance(found, dict):
        refuse(f"holds a {type(found).__name__}")
    foreign = [key for key, value in found.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]
    if foreign or not found:
        refuse(f"entry {str(foreign[0])[:80]!r} is not a tensor" if foreign else "holds no tensors")
    size = sum(value.numel() * value.element_size() for value in found.values())
    if size > 2 * Path(source).stat().st_size + 2**20:
        refuse(f"tensors of {size} bytes in a file of {Path(source).stat().st_size}")
    # DataParallel and DDP put this in front of every name.
    state = {key.removeprefix("module."): value.detach().clone().contiguous() for key, value in found.items()}
    save_file(state, destination)
    print(len(state))


if __name__ == "__main__":
    main()
