"""The table, for the terminal and as docs/faults.md, from the rows alone."""

from collections.abc import Sequence
from typing import Any

from tests.faults.results import verdict

HEAD = """# Fault injection

`make test-faults TABLE=1` writes this page and [faults.json](faults.json). The code of each fault
is in `tests/faults/`.

- Each try injects one fault: a kill, a full disk, a flipped byte, a hostile file.
- A row is met if every try passed.
- `B` rows are the known-bad baseline: a plain `torch.save` loop goes through the same tries. It
  must fail some of them.
- Seconds are wall-clock time.
"""


def text(rows: Sequence[dict[str, Any]]) -> str:
    """Fault, tries, passed, seconds, verdict, in columns."""
    lines = [("fault", "tries", "passed", "seconds", "verdict")]
    lines += [
        (
            row["fault"],
            f"{row['tries']}/{row['planned']}",
            str(row["passed"]),
            f"{row['seconds']:.0f}",
            verdict(row),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The page: machines and commits, the table, the situations of the tries, and every failure."""
    machines = sorted({machine for row in rows for machine in row["machines"]})
    commits = sorted({commit for row in rows for commit in row["commits"]})
    parts = [HEAD, "Machine: " + "; ".join(machines) + ".", "", f"Commits: {', '.join(commits)}."]
    parts += [
        "",
        "| fault | what is done | tries | passed | seconds | verdict |",
        "|---|---|---|---|---|---|",
    ]
    parts += [
        f"| {row['fault']} | {row['what']} | {row['tries']} | {row['passed']} | {row['seconds']:.0f} | {verdict(row)} |"
        for row in rows
    ]
    noted = [
        f"- {row['fault']}: " + ", ".join(f"{note} {count}" for note, count in row["notes"].items())
        for row in rows
        if row["notes"]
    ]
    if noted:
        parts += [
            "",
            "## Situations",
            "",
            "How often each situation occurred in the tries:",
            "",
            *noted,
        ]
    wrong = [f"- {row['fault']}, {error}" for row in rows for error in row["errors"]]
    if wrong:
        parts += ["", "## Failures", "", *wrong]
    return "\n".join(parts) + "\n"
