"""The ratios to native as a picture, SVG: one group of bars for each workload, native as a line."""

import html

WIDTH, LEFT, RIGHT, TOP = 760, 190, 60, 58
BAR, GAP, GROUP = 9, 2, 28
SERIES = {"ratio_primary": "primary alone", "ratio_replica": "primary with one replica"}
END = 1.5  # of the axis, at most; longer bars are cut there, and their figure says how long they are
# Readable on white and on black: the page's own background shows through.
STYLE = """
  text { font: 12px sans-serif; fill: #24292f }
  .small { font-size: 10px }
  .axis { stroke: #8b949e; stroke-width: 1; stroke-opacity: 0.35 }
  .native { stroke: #24292f; stroke-width: 1.5 }
  .ratio_primary { fill: #3b82d6 }
  .ratio_replica { fill: #e08a2e }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .native { stroke: #e6edf3 } }
"""


def text(x, y, content, anchor="start", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(content)}</text>'


def bars(name, entry, y, scale, end):
    parts = [text(LEFT - 8, y + BAR + 5, name, "end")]
    for row, key in enumerate(SERIES):
        ratio = entry[key]
        top = y + row * (BAR + GAP)
        width = scale * min(ratio, end)
        parts.append(f'<rect class="{key}" x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}">'
                     f"<title>{html.escape(name)}, {SERIES[key]}: {ratio:.2f}</title></rect>")
        parts.append(text(LEFT + width + 4, top + BAR - 0.5, f"{ratio:.2f}", kind="small"))
    return parts


def legend():
    parts = [text(LEFT, 14, "speed as a ratio to the same work on the disk below, outside the mount")]
    for number, (key, title) in enumerate(SERIES.items()):
        x = LEFT + 130 * number
        parts.append(f'<rect class="{key}" x="{x}" y="23" width="{BAR}" height="{BAR}"/>')
        parts.append(text(x + BAR + 5, 32, title))
    return parts


def svg(summary):
    """Of all entries that have both ratios."""
    compared = {name: entry for name, entry in summary.items() if all(key in entry for key in SERIES)}
    end = min(END, max([1.0, *(entry[key] for entry in compared.values() for key in SERIES)]) * 1.05)
    scale = (WIDTH - LEFT - RIGHT) / end
    height = TOP + GROUP * len(compared) + 12
    parts = legend()
    for tick in (0, 0.25, 0.5, 0.75, 1):
        kind = "native" if tick == 1 else "axis"
        x = LEFT + scale * tick
        parts.append(f'<line class="{kind}" x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{height - 8}"/>')
        parts.append(text(x, TOP - 8, "native" if tick == 1 else f"{tick:g}", "middle", "small"))
    for number, (name, entry) in enumerate(compared.items()):
        parts += bars(name, entry, TOP + 4 + GROUP * number, scale, end)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-label="Speed of echofs as ratios to native">\n<style>{STYLE}</style>\n'
            + "\n".join(parts) + "\n</svg>\n")
