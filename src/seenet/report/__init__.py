"""Pages for people: the report of a run, and galleries of pictures with their masks."""
