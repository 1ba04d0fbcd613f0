"""seenet schema"""


def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    import json

    from seenet.core.settings import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=1))
