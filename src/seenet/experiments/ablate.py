"""`seenet ablate`: train every row with every seed, and say what the difference is and what it costs (Table 1, or any grid)."""

import json
from typing import Any

from seenet.core.errors import DataError, PartialError
from seenet.core.files import replacing, write_text
from seenet.experiments.outcome import outcome
from seenet.experiments.plan import Plan
from seenet.experiments.runner import run_all, slots
from seenet.experiments.state import RESULTS, check_folder, state
from seenet.experiments.table import as_csv, markdown, plot


def states(plan: Plan) -> list[dict[str, Any]]:
    """Each run and how far it is; nothing is written. UsageError where a folder holds a run of other settings."""
    check_folder(plan)
    return [{"run": run.name, "state": state(run)} for run in plan.runs]


def ablate(plan: Plan, *, device: str = "auto", command: str | None = None) -> dict[str, Any]:
    """Train what is missing and write OUT/results.json, table.md, table.csv and plot.png, anew after each run; returns the results.

    Raises UsageError where a folder holds a run of other settings; DataError where OUT is a file; PartialError where runs failed, the
    others being done; Stopped after a signal. The same command goes on in each case.
    """
    check_folder(plan)
    if plan.out.exists() and not plan.out.is_dir():
        raise DataError(f"{plan.out}: a file, expected a folder or nothing; give another --out")
    places = slots(device)
    plan.out.mkdir(parents=True, exist_ok=True)
    _write(plan, {}, command)
    failed = run_all(plan.runs, plan.out, places, lambda: _write(plan, {}, command))
    result = _write(plan, failed, command)
    if failed:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(failed.items())[:3])
        raise PartialError(
            f"{plan.out}: {len(failed)} of {len(plan.runs)} runs failed, the others are done: {named}; the same command tries them again"
        )
    return result


def _write(plan: Plan, failed: dict[str, str], command: str | None) -> dict[str, Any]:
    result = outcome(plan, failed=failed, command=command)
    # First, since by it the others are known as written here.
    write_text(plan.out / RESULTS, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_text(plan.out / "table.md", markdown(result))
    write_text(plan.out / "table.csv", as_csv(result))
    with replacing(plan.out / "plot.png") as temporary:
        temporary.write_bytes(plot(result))
    return result
