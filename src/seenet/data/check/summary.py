"""Format an inspection as text and as JSON."""

from collections import Counter
from typing import Any

from seenet.core.settings import DataSettings
from seenet.data.check.inspection import Inspection, SplitVerdict

LISTED = 3
"""Errors of a kind that are printed per split; JSON and page have all."""


def as_json(inspection: Inspection, settings: DataSettings) -> dict[str, Any]:
    """Return the settings and everything that was found as JSON values.

    `verdict` is `wrong` if there is any error, else `good`: notes and doubts do not count.
    """
    return {
        "data": settings.model_dump(mode="json"),
        "verdict": "wrong" if inspection.errors else "good",
        "error_count": len(inspection.errors),
        "note_count": len(inspection.notes),
        "doubts": inspection.doubts(),
        "splits": [split_summary(verdict) for verdict in inspection.splits],
        "errors": [vars(finding) for finding in inspection.errors],
        "notes": [vars(note) for note in inspection.notes],
        "files": [
            {"split": verdict.name, "key": key, "verdict": found}
            for verdict in inspection.splits
            for key, found in verdict.verdicts()
        ],
    }


def split_summary(verdict: SplitVerdict) -> dict[str, Any]:
    """Return counts of a split, class weights, normalisation, and fixes of its errors."""
    stats, colour = verdict.stats, verdict.colour()
    found = Counter(what for _, what in verdict.verdicts())
    summary: dict[str, Any] = {
        "name": verdict.name,
        "which": verdict.which,
        "verdict": "wrong" if verdict.findings else "good",
        "pairs": len(verdict.pairs),
        "wrong_pairs": found["wrong"],
        "errors": dict(Counter(finding.kind for finding in verdict.findings)),
        "notes": dict(Counter(note.note for note in verdict.notes)),
        "cures": [cure._asdict() for cure in verdict.cures()],
        "mean": colour and colour[0],
        "std": colour and colour[1],
    }
    if stats is None:
        return summary
    weights = stats.median_frequency() if stats.pixels.any() else [0.0] * stats.labels.num_classes
    pixels_of, images_of = stats.pixels.tolist(), stats.images.tolist()
    rows = list(zip(stats.labels.classes, pixels_of, images_of, weights, strict=True))
    return summary | {
        "classes": [
            {
                "id": label,
                "name": name,
                "pixels": pixels,
                "pictures": images,
                "median_frequency_weight": weight,
            }
            for label, (name, pixels, images, weight) in enumerate(rows)
        ],
        "unused": [name for name, pixels, _, _ in rows if not pixels],
        "void_pixels": stats.void,
        "strange_ids": {
            label: {"pixels": pixels, "masks": masks}
            for label, (pixels, masks) in verdict.strange().items()
        },
        "sizes": [
            {"height": height, "width": width, "masks": count}
            for (height, width), count in stats.sizes.most_common()
        ],
    }


def text(inspection: Inspection) -> str:
    """Format errors, fixes, notes and counts of each split."""
    outside = [f"  {finding.kind}: {finding.message}" for finding in inspection.findings]
    outside += [f"  doubtful: {doubt}" for doubt in inspection.doubts()]
    return "\n\n".join([*map(_split_text, inspection.splits), *outside])


def verdict_line(inspection: Inspection) -> str:
    """Return the whole verdict in one line."""
    errors, notes = len(inspection.errors), len(inspection.notes)
    pairs = sum(len(verdict.pairs) for verdict in inspection.splits)
    kinds = ", ".join(
        f"{kind} {count}"
        for kind, count in Counter(found.kind for found in inspection.errors).most_common()
    )
    plural, listed = "" if errors == 1 else "s", f" ({kinds})" if kinds else ""
    return f"{errors or 'no'} error{plural} in {pairs} pairs{listed}, {notes or 'no'} notes"


def unused_line(summary: dict[str, Any]) -> str:
    """Return a warning about classes without a pixel; empty if there are none."""
    if not summary.get("unused"):
        return ""
    return (
        f"no pixel of {', '.join(summary['unused'])}: this split does not teach them; "
        "take them out of `classes`, or add masks"
    )


def _split_text(verdict: SplitVerdict) -> str:
    summary = split_summary(verdict)
    lines = [
        f"{verdict.name}: {summary['verdict']}, {summary['pairs']} pairs, "
        f"{summary['wrong_pairs']} of them wrong"
    ]
    for kind, count in summary["errors"].items():
        messages = [finding.message for finding in verdict.findings if finding.kind == kind]
        lines += [f"  {kind}: {message}" for message in messages[:LISTED]]
        if count > LISTED:
            more = "--out DIR writes a page of them, --json prints all"
            lines.append(f"  {kind}: {count - LISTED} more; {more}")
    for cure in verdict.cures():
        pixels = f", {cure.pixels} pixels" if cure.pixels else ""
        lines.append(f"  to fix {cure.times} ({cure.kind}{pixels}): {cure.fix}")
    if summary["notes"]:
        notes = ", ".join(f"{note} {count}" for note, count in summary["notes"].items())
        lines.append(f"  notes, no errors: {notes}")
    if unused := unused_line(summary):
        lines.append(f"  {unused}")
    if summary["mean"]:
        mean, std = (
            ", ".join(f"{value:.4f}" for value in summary[part]) for part in ("mean", "std")
        )
        lines.append(f"  mean {mean}; standard deviation {std} (R, G, B of 0 to 1)")
    stats = verdict.stats
    if stats is not None and stats.pixels.any():
        lines.append(stats.table())
    return "\n".join(lines)
