"""A bundle's verification as a table in the terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from seenet.export.run import ExportReport


def table(report: ExportReport) -> Group:
    """A row for each size that was run, and what all of them say together."""
    found = report.verification
    shown = Table(title=f"{report.card.precision} in {report.runtime}, beside the model", title_justify="left")
    for name in ("batch", "height", "width", "largest score", "largest difference", "same class"):
        shown.add_column(name, justify="right")
    for row in found.rows:
        share = f"{100 * row['agreeing'] / row['pixels']:.3f} %"
        shown.add_row(*(str(row[key]) for key in ("batch", "height", "width")), f"{row['largest']:.2f}", f"{row['difference']:.1e}", share)
    lines = [f"largest difference of a score {found.difference:.1e}, same class in {100 * found.agreement:.4f} % of the pixels"]
    if found.miou is None:
        lines.append("mIoU not compared: no labels; give --recipe")
    else:
        model, bundle = 100 * found.miou["model"], 100 * found.miou["bundle"]
        lines.append(f"mIoU on {found.miou['data']}, {found.miou['images']} pictures: {bundle:.3f} %, the model's {model:.3f} %")
    return Group(shown, *map(Text, lines))
