"""YAML of recipes: read, or refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from seenet.core.errors import UsageError
from seenet.core.recipe_files import load_recipe, read_yaml, refuse_code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 2,\n  c: 3}", "found c in line 2 and again in line 3, expected it once"),
        ("a: {1: 1, 0x1: 2}", "found 0x1 in line 1 and again in line 1"),
        ("a:\n- {b: 1, b: 2}", "found b in line 2 and again in line 2"),
        ("a: 2026-02-30", "not valid YAML (day is out of range for month)"),
        ("a: " + "1" * 5000, "not valid YAML (Exceeds the limit"),
        ("[" * 3000, "not valid YAML (maximum recursion depth"),
        ("a: [", "not valid YAML (while parsing"),
    ],
)
def test_wrong_yaml_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_yaml(text, "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: {message}") and "\n" not in str(caught.value)


X = {"b": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x {b: 1}\nc: {b: 2}\nd: [*x, *x]", {"a": X, "c": {"b": 2}, "d": [X, X]}),
        (
            "a: &x {b: 1}\nc: &y {<<: *x, b: 2}\ne: {<<: *x, <<: *y, b: 3}",
            {"a": X, "c": {"b": 2}, "e": {"b": 3}},
        ),
        ("{1: a, '1': b}", {1: "a", "1": "b"}),
        ("", None),
    ],
)
def test_keys_that_only_look_repeated(text: str, expected: Any) -> None:
    assert read_yaml(text, "mine.yaml") == expected


def test_recipes_and_overrides_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {steps: 1}\ntraining: {batch: 1}\n")
    with pytest.raises(UsageError, match="found training in line 1 and again in line 2"):
        load_recipe(path)
    with pytest.raises(UsageError, match=r"^description=2026-02-30: not valid YAML"):
        load_recipe("shapes", ["description=2026-02-30"])


@pytest.mark.parametrize("setting", ["data.kind", "transforms.custom", "loss.function"])
def test_code_counts_where_the_command_line_names_it(setting: str) -> None:
    """The recipe alone may have come along with somebody's model."""
    found = load_recipe("shapes", [f"{setting}=theirs:f"])
    section, _, key = setting.partition(".")
    for given in ([], [f"{setting}=other:f"], ["training.steps=3"]):
        with pytest.raises(UsageError) as caught:
            refuse_code(found, given, "run/recipe.yaml")
        text = str(caught.value)
        assert text.startswith(f"run/recipe.yaml: {setting}=theirs:f is code") and "\n" not in text
        assert f"repeat {setting}=theirs:f on the command line" in text
        assert ("does without" in text) == (setting != "data.kind")
    refuse_code(found, [f"{setting}=theirs:f"], "run/recipe.yaml")
    refuse_code(found, [f"{section}={{{key}: 'theirs:f'}}"], "run/recipe.yaml")
    refuse_code(load_recipe("shapes"), [], "run/recipe.yaml")
    if setting != "data.kind":
        refuse_code(found, [], "run/recipe.yaml", ["data.kind"])
