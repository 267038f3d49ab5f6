"""A table that can be printed, or stand in a Markdown document."""

import dataclasses


@dataclasses.dataclass
class Table:
    """The first and the last column of `rows` begin at the left; those between are figures."""
    title: str
    header: list
    rows: list

    def text(self):
        widths = [max(len(row[i]) for row in [self.header, *self.rows]) for i in range(len(self.header))]
        lines = [self.title + ":"]
        for row in [self.header, *self.rows]:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1]))]
            lines.append("  ".join([*cells, " " + row[-1]]).rstrip())
        return "\n".join(lines)

    def markdown(self):
        marks = ["---", *["---:"] * (len(self.header) - 2), "---"]
        rows = "\n".join("| " + " | ".join(row) + " |" for row in [self.header, marks, *self.rows])
        return f"**{self.title}**\n\n{rows}"
