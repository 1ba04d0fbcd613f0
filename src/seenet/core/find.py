"""A model by name: a run folder, a file, or one that comes with the package."""

from importlib import resources
from pathlib import Path

from seenet.core.errors import DataError, nearest


def bundled_models() -> dict[str, Path]:
    """Models that come with the package, by name."""
    folder = Path(str(resources.files("seenet") / "models"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """The model file of a run folder, a .safetensors file or a bundled name; DataError where there is none."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return path / "model.safetensors"
        raise DataError(f"{path}: a folder without model.safetensors; expected a finished run (seenet train ... --out {path})")
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    raise DataError(
        f"{name}: no such run, model file or bundled model; {nearest(str(name), bundled) if bundled else 'no model is bundled'}"
    )
