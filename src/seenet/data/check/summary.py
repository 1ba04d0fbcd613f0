"""Say an inspection in words, and as JSON."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from seenet.core.settings import DataSettings
from seenet.data.check.inspection import Finding, Inspection, SplitVerdict

LISTED = 3
"""Errors of a kind in a split that are printed; all are in the JSON and on the page."""


def as_json(inspection: Inspection, settings: DataSettings) -> dict[str, Any]:
    """Collect everything found.

    `splits` with their summaries, `errors`, `notes`, and `files` with a verdict each.
    """
    return {
        "data": settings.model_dump(mode="json"),
        "verdict": "wrong" if inspection.errors else "good",
        "error_count": len(inspection.errors),
        "note_count": len(inspection.notes),
        "splits": [split_summary(verdict) for verdict in inspection.splits],
        "errors": [vars(found) for found in inspection.errors],
        "notes": [vars(note) for note in inspection.notes],
        "files": [
            {"split": verdict.name, "key": key, "verdict": found} for verdict in inspection.splits for key, found in verdict.verdicts()
        ],
    }


def split_summary(verdict: SplitVerdict) -> dict[str, Any]:
    """Sum up a split: counts, what they mean for training, and what would mend it."""
    stats, colour = verdict.stats(), verdict.colour()
    found = Counter(what for _, what in verdict.verdicts())
    summary: dict[str, Any] = {
        "name": verdict.name,
        "which": verdict.which,
        "verdict": "wrong" if verdict.findings else "good",
        "pairs": len(verdict.pairs),
        "wrong_pairs": found["wrong"],
        "errors": dict(Counter(one.kind for one in verdict.findings)),
        "notes": dict(Counter(note.note for note in verdict.notes)),
        "cures": [cure._asdict() for cure in verdict.cures()],
        "mean": colour and colour[0],
        "std": colour and colour[1],
    }
    if stats is None:
        return summary
    weights = stats.median_frequency() if stats.pixels.any() else [0.0] * stats.labels.num_classes
    rows = zip(stats.labels.classes, stats.pixels.tolist(), stats.images.tolist(), weights, strict=True)
    return summary | {
        "classes": [
            {"id": label, "name": name, "pixels": pixels, "pictures": pictures, "median_frequency_weight": weight}
            for label, (name, pixels, pictures, weight) in enumerate(rows)
        ],
        "unused": [name for name, pixels in zip(stats.labels.classes, stats.pixels.tolist(), strict=True) if not pixels],
        "void_pixels": stats.void,
        "strange_ids": {label: {"pixels": pixels, "masks": masks} for label, (pixels, masks) in verdict.strange().items()},
        "sizes": [{"height": height, "width": width, "masks": count} for (height, width), count in stats.sizes.most_common()],
    }


def text(inspection: Inspection) -> str:
    """Say of each split what is wrong, what would mend it, what is noted, and what it holds."""
    return "\n\n".join([*(_split_text(verdict) for verdict in inspection.splits), *_lines(inspection.findings)])


def verdict_line(inspection: Inspection) -> str:
    """Say all of it in one line."""
    errors, notes = len(inspection.errors), len(inspection.notes)
    pairs = sum(len(verdict.pairs) for verdict in inspection.splits)
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(found.kind for found in inspection.errors).most_common())
    return f"{errors or 'no'} error{'' if errors == 1 else 's'} in {pairs} pairs{f' ({kinds})' if kinds else ''}, {notes or 'no'} notes"


def unused_line(summary: dict[str, Any]) -> str:
    """Say what to do about classes without a pixel; empty where there are none."""
    if not summary.get("unused"):
        return ""
    return f"no pixel of {', '.join(summary['unused'])}: they will not be learned from this split; take them out of `classes`, or add masks"


def _split_text(verdict: SplitVerdict) -> str:
    summary = split_summary(verdict)
    lines = [f"{verdict.name}: {summary['verdict']}, {summary['pairs']} pairs, {summary['wrong_pairs']} of them wrong"]
    for kind in dict.fromkeys(found.kind for found in verdict.findings):
        alike = [found for found in verdict.findings if found.kind == kind]
        lines += _lines(alike[:LISTED])
        if len(alike) > LISTED:
            lines.append(f"  {kind}: {len(alike) - LISTED} more; --out DIR writes a page of them, --json prints all")
    for cure in verdict.cures():
        pixels = f", {cure.pixels} pixels" if cure.pixels else ""
        lines.append(f"  to mend {cure.times} ({cure.kind}{pixels}): {cure.fix}")
    if summary["notes"]:
        lines.append("  notes, no errors: " + ", ".join(f"{note} {count}" for note, count in summary["notes"].items()))
    unused = unused_line(summary)
    lines += [f"  {unused}"] if unused else []
    if summary["mean"]:
        mean, std = (", ".join(f"{value:.4f}" for value in summary[part]) for part in ("mean", "std"))
        lines.append(f"  mean {mean}; standard deviation {std} (R, G, B of 0 to 1)")
    stats = verdict.stats()
    if stats is not None and stats.pixels.any():
        lines.append(stats.table())
    return "\n".join(lines)


def _lines(findings: Iterable[Finding]) -> list[str]:
    return [f"  {found.kind}: {found.message}" for found in findings]
