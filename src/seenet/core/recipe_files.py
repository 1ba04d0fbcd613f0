"""Read recipes: YAML by name or path, with `key=value` overrides such as `training.steps=100`.

In a recipe with stages an override holds for all of them, `stages.NAME.training.steps=100` for one.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.files import read_text
from seenet.core.settings import Recipe

CODE = ("data.kind", "transforms.custom", "loss.function")
"""Settings that may name code of the user's own; so does `model.factory`, but model files too."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files("seenet.recipes").iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(name: str | Path | Recipe, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `key=value` overrides.

    Args:
        name: name of a bundled recipe, path of a YAML file, or a recipe.
        overrides: settings to change.

    Raises:
        UsageError: an unknown name, key or value.
        DataError: the file cannot be read.
    """
    if isinstance(name, Recipe):
        return parse_recipe(dump(name), "settings", overrides) if overrides else name
    path, names = Path(name), recipe_names()
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise DataError(
                f"{path}: no such recipe file; expected a YAML file or one of {', '.join(names)}"
            )
        text = read_text(path)
    elif str(name) in names:
        text = resources.files("seenet.recipes").joinpath(f"{name}.yaml").read_text("utf-8")
    elif (path / "recipe.yaml").is_file():
        raise UsageError(
            f"{name}: a run, expected a recipe; "
            f"to resume it: seenet train {path}/recipe.yaml --out {path} --resume"
        )
    else:
        raise UsageError(
            f"{name}: unknown recipe; {nearest(str(name), names)}, or the path of a .yaml file"
        )
    return parse_recipe(text, str(name), overrides or [])


def parse_recipe(text: str, source: str, overrides: list[str]) -> Recipe:
    """Validate the text of a recipe with overrides.

    Args:
        text: YAML.
        source: its name, for errors.
        overrides: settings to change, `key=value`.

    Raises:
        UsageError: an unknown key or a wrong value.
    """
    values = read_yaml(text, source)
    if not isinstance(values, dict):
        raise UsageError(
            f"{source}: found {type(values).__name__}, "
            "expected a mapping with data, transforms and training"
        )
    if isinstance(values.get("stages"), dict):
        # A stage that changes nothing may be written as its name alone.
        values["stages"] = {
            str(name): {} if stage is None else stage for name, stage in values["stages"].items()
        }
    # A stage's own override wins, whatever its place on the command line.
    for override in sorted(overrides, key=lambda override: override.startswith("stages.")):
        _reset_in_stages(values, override)
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {explain(error, Recipe)}") from None
    stage_recipes(recipe, source)
    return recipe


def stage_recipes(recipe: Recipe, source: str = "stages") -> dict[str, Recipe]:
    """Return the complete recipe of each stage, in order; empty if there are no stages.

    Raises:
        UsageError: a wrong setting of a stage; `source` names the recipe.
    """
    common = recipe.model_dump(mode="json", exclude={"stages"})
    stages: dict[str, Recipe] = {}
    for name, stage in recipe.stages.items():
        if stages and "start_from" in _section(stage, "training"):
            raise UsageError(
                f"{source}: stages.{name}.training.start_from: "
                "a stage starts from the one before; leave it out"
            )
        values = {
            key: {**_section(common, key), **value} if isinstance(value, dict) else value
            for key, value in stage.items()
        }
        try:
            stages[name] = Recipe.model_validate({**common, **values})
        except ValidationError as error:
            raise UsageError(f"{source}: stages.{name}.{explain(error, Recipe)}") from None
        if stages[name].stages:
            raise UsageError(f"{source}: stages.{name}.stages: a stage has no stages of its own")
    return stages


def _section(values: Any, name: str) -> dict[str, Any]:
    """Return the mapping `name` inside `values`; empty if there is none."""
    section = values.get(name) if isinstance(values, dict) else None
    return section if isinstance(section, dict) else {}


def _reset_in_stages(values: dict[str, Any], override: str) -> None:
    """Remove from every stage the setting that an override changes for all of them.

    Raises:
        UsageError: an override for a stage that does not exist.
    """
    stages = _section(values, "stages")
    path = override.partition("=")[0].split(".")
    if path[0] == "stages":
        if len(path) < 3 or path[1] not in stages:
            known = f"its stages: {', '.join(stages)}" if stages else "this recipe has no stages"
            raise UsageError(f"{override}: expected stages.NAME.KEY=VALUE; {known}")
        return
    for stage in stages:
        section = _section(stages, stage)
        for name in path[:-1]:
            section = _section(section, name)
        section.pop(path[-1], None)


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(
            f"{override}: found no '=', expected key=value, for example training.steps=100"
        )
    *sections, last = key.split(".")
    for section in sections:
        nested = values.setdefault(section, {})
        if not isinstance(nested, dict):
            raise UsageError(f"{override}: {section} is a value, not a section")
        values = nested
    values[last] = read_yaml(text, override)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem that pydantic found, in one line.

    For an unknown key of `model` it has the nearest name.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown setting; {_nearest_setting(first['loc'], model)}"
    if first["type"] == "missing":
        return f"{where}: missing; it has no default"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    return f"{where}: found {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _nearest_setting(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return the sections that have a setting of this name, else the nearest names beside it."""
    *path, name = map(str, location)
    sections = {
        key: list(field.annotation.model_fields)
        for key, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    homes = [f"{section}.{name}" for section, fields in sections.items() if name in fields]
    if homes:
        return f"nearest: {', '.join(homes)}"
    return nearest(name, sections[path[0]] if path else model.model_fields)


def refuse_code(
    recipe: Recipe, overrides: Sequence[str], source: str | Path, settings: Sequence[str] = CODE
) -> None:
    """Refuse code that nothing but the recipe beside a model names; like the model, that may come
    from anyone.

    Args:
        recipe: with the overrides applied.
        overrides: what the command line says.
        source: names the recipe in the error.
        settings: those of `CODE` that would be run.

    Raises:
        UsageError: one of them names code, and no override does.
    """
    given = parse_options(list(overrides))
    for setting in settings:
        section, _, key = setting.partition(".")
        name = getattr(getattr(recipe, section), key)
        is_code = name is not None and (setting != "data.kind" or ":" in name)
        if is_code and _section(given, section).get(key) != name:
            without = "" if setting == "data.kind" else f"; {setting}=null does without"
            raise UsageError(
                f"{source}: {setting}={name[:80]} is code, which a recipe beside a model may not "
                f"choose to run: if you have it and trust it, repeat {setting}={name[:80]} on the "
                f"command line, or name the recipe{without}"
            )


def dump(recipe: Recipe) -> str:
    """Return a resolved recipe as YAML that `load_recipe` reads back to the same settings."""
    values = recipe.model_dump(mode="json", exclude=None if recipe.stages else {"stages"})
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def parse_options(settings: list[str]) -> dict[str, Any]:
    """Parse `key=value` settings, whose values are YAML, to a dictionary."""
    values: dict[str, Any] = {}
    for setting in settings:
        _apply(values, setting)
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """Loader that refuses a mapping with a repeated key; YAML would keep the last value."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            # Compare values, not text: 1 and 0x1 are the same key, 1 and "1" are not.
            value, line = self.construct_object(key), key.start_mark.line + 1
            if value in lines:
                raise UsageError(
                    f"found {key.value} in line {lines[value]} and again in line {line}, "
                    "expected it once"
                )
            lines[value] = line
        return node


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML.

    Args:
        text: YAML.
        source: its name, for errors.

    Raises:
        UsageError: invalid YAML, an impossible date, or a repeated key.
    """
    try:
        return _UniqueKeyLoader(text).get_single_data()
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
    # ValueError: 2026-02-30, or a number of 5,000 digits. RecursionError: thousands of brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{source}: not valid YAML ({reason})") from None
