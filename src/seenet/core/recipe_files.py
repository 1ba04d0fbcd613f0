"""Recipes as text: YAML, by name from `seenet/recipes` or by path; `key=value` overrides any of it (`training.steps=100`).

In a recipe with stages a setting holds for all of them; `stages.NAME.training.steps=100` for one.
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
    """List the recipes that come with the package, by name."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files("seenet.recipes").iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(name: str | Path | Recipe, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by name or path, or take one that is read, and apply `key=value` overrides.

    Raises UsageError for an unknown name, key or value, DataError for a file that cannot be read.
    """
    if isinstance(name, Recipe):
        return parse_recipe(dump(name), "settings", overrides) if overrides else name
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise DataError(
                f"{path}: no such recipe file; expected a YAML file or one of {', '.join(recipe_names())}"
            )
        text = read_text(path)
    elif str(name) in recipe_names():
        text = (
            resources.files("seenet.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        )
    elif (path / "recipe.yaml").is_file():
        raise UsageError(
            f"{name}: a run, expected a recipe; to go on with it: seenet train {path}/recipe.yaml --out {path} --resume"
        )
    else:
        raise UsageError(
            f"{name}: unknown recipe; {nearest(str(name), recipe_names())}, or the path of a .yaml file"
        )
    return parse_recipe(text, str(name), overrides or [])


def parse_recipe(text: str, source: str, overrides: list[str]) -> Recipe:
    """Validate a recipe's text; `source` names it in errors."""
    values = read_yaml(text, source)
    if not isinstance(values, dict):
        raise UsageError(
            f"{source}: found {type(values).__name__}, expected a mapping with data, transforms and training"
        )
    if isinstance(values.get("stages"), dict):
        # A stage that changes nothing is written as its name alone.
        values["stages"] = {
            str(name): {} if part is None else part for name, part in values["stages"].items()
        }
    # The last word about a stage is its own setting, wherever it stands on the command line.
    for override in sorted(overrides, key=lambda override: override.startswith("stages.")):
        _apply_to_stages(values, override)
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {explain(error, Recipe)}") from None
    stage_recipes(recipe, source)
    return recipe


def stage_recipes(recipe: Recipe, source: str = "stages") -> dict[str, Recipe]:
    """Resolve each stage of a recipe to a recipe of its own, in order; empty where it has none. UsageError: a setting of a stage."""
    common = recipe.model_dump(mode="json", exclude={"stages"})
    stages: dict[str, Recipe] = {}
    for name, part in recipe.stages.items():
        if stages and "start_from" in _section(part, "training"):
            raise UsageError(
                f"{source}: stages.{name}.training.start_from: a stage starts from the one before; leave it out"
            )
        values = {
            key: {**_section(common, key), **value} if isinstance(value, dict) else value
            for key, value in part.items()
        }
        try:
            stages[name] = Recipe.model_validate({**common, **values})
        except ValidationError as error:
            raise UsageError(f"{source}: stages.{name}.{explain(error, Recipe)}") from None
        if stages[name].stages:
            raise UsageError(f"{source}: stages.{name}.stages: a stage has no stages of its own")
    return stages


def _section(part: dict[str, Any], name: str) -> dict[str, Any]:
    found = part.get(name)
    return found if isinstance(found, dict) else {}


def _apply_to_stages(values: dict[str, Any], override: str) -> None:
    """Refuse a stage that is not there; take out of every stage what the setting now says for all."""
    stages = values.get("stages") or {}
    path = override.partition("=")[0].split(".")
    if path[0] == "stages":
        if len(path) < 3 or not isinstance(stages, dict) or path[1] not in stages:
            names = (
                f"its stages: {', '.join(stages)}"
                if isinstance(stages, dict) and stages
                else "this recipe has no stages"
            )
            raise UsageError(f"{override}: expected stages.NAME.KEY=VALUE; {names}")
        return
    for here in stages.values() if isinstance(stages, dict) else []:
        for section in path[:-1]:
            here = _section(here, section) if isinstance(here, dict) else {}
        if isinstance(here, dict):
            here.pop(path[-1], None)


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(
            f"{override}: found no '=', expected key=value, for example training.steps=100"
        )
    *sections, last = key.split(".")
    here = values
    for section in sections:
        nested = here.setdefault(section, {})
        if not isinstance(nested, dict):
            raise UsageError(f"{override}: {section} is a value, not a section")
        here = nested
    here[last] = read_yaml(text, override)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first of pydantic's complaints in one line, with the nearest name for an unknown key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown setting; {_nearest_setting(str(first['loc'][-1]), first['loc'][:-1], model)}"
    if first["type"] == "missing":
        return f"{where}: missing; it has no default"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    return f"{where}: found {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _nearest_setting(name: str, path: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Where the name is known in another section, that; else the nearest of its own."""
    sections = {key: _fields(model, (key,)) for key in model.model_fields}
    homes = [
        f"{section}.{name}"
        for section, fields in sections.items()
        if name in fields and fields != list(model.model_fields)
    ]
    return f"nearest: {', '.join(homes)}" if homes else nearest(name, _fields(model, path))


def _fields(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            break
        model = field.annotation
    return list(model.model_fields)


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
    """Write the resolved recipe as YAML that `load_recipe` reads back to the same settings."""
    values = recipe.model_dump(mode="json", exclude=None if recipe.stages else {"stages"})
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def parse_options(settings: list[str]) -> dict[str, Any]:
    """Parse `key=value` settings alone, values read as YAML."""
    values: dict[str, Any] = {}
    for setting in settings:
        _apply(values, setting)
    return values


def read_yaml(text: str, source: str) -> Any:
    """Read the values of a YAML text, whose `source` stands in errors.

    UsageError: not valid YAML, a date that is none, or a key that stands twice in one mapping, of which YAML keeps the last in silence.
    """
    try:
        loader = yaml.SafeLoader(text)
        top = loader.get_single_node()
        if top is None:
            return None
        _refuse_repeated(loader, top, source)
        return loader.construct_document(top)
    # Of values such as 2026-02-30, or numbers of 5,000 digits; of brackets by the thousand.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{source}: not valid YAML ({' '.join(str(error).split())[:200]})"
        ) from None


def _refuse_repeated(loader: yaml.SafeLoader, top: yaml.Node, source: str) -> None:
    # An alias leads to a node that is there already.
    seen: set[int] = set()
    nodes = [top]
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[Any, int] = {}
            for key, value in node.value:
                nodes.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                    continue
                # 1 and 0x1 are one key, 1 and "1" are two.
                name, line = loader.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    raise UsageError(
                        f"{source}: found {key.value} in line {lines[name]} and again in line {line}, expected it once"
                    )
                lines[name] = line
