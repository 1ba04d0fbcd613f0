"""The table of data sets."""

from seenet.core.settings import DataSettings
from seenet.data import KINDS


def test_recipes_know_every_data_set_and_no_other() -> None:
    named, own = DataSettings.model_json_schema()["properties"]["kind"]["anyOf"]
    assert named["enum"] == list(KINDS)
    assert (own["type"], own["pattern"]) == ("string", ":")
