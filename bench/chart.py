"""Line charts as SVG, for the page: what each server costs as something grows. No script, no font, no dependency."""

from html import escape
from math import log10

WIDTH, LEFT, RIGHT = 900, 80, 40
PANEL, HEIGHT, HEAD, ABOVE = 300, 190, 20, 54
COLOURS = ("#2563eb", "#9ca3af", "#dc2626", "#059669", "#d97706")
STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#374151}"
    ".t{font-size:13px;font-weight:600;fill:#111827}.e{text-anchor:end}.m{text-anchor:middle}"
    ".g{stroke:#e5e7eb}.a{stroke:#9ca3af}polyline{fill:none;stroke-width:2;stroke-linejoin:round}"
)


def step_of(high):
    """A round number that fits four to nine times below `high`."""
    power = 10 ** int(log10(high / 4) // 1)
    return max(step for step in (power, 2 * power, 5 * power) if step <= high / 4)


def panel(top, title, x_title, y_title, lines):
    """`lines` is a list of (name, [(x, y), ...]); x is drawn by its logarithm, y from nothing up."""
    xs = [x for _, points in lines for x, _ in points]
    low, high = min(xs), max(xs)
    highest = max(y for _, points in lines for _, y in points)
    step = step_of(highest)
    ceiling = step * (highest // step + 1)
    wide, top, bottom = WIDTH - LEFT - RIGHT, top + ABOVE, top + ABOVE + HEIGHT
    place_x = lambda x: LEFT + wide * log10(x / low) / (log10(high / low) or 1)
    place_y = lambda y: bottom - HEIGHT * y / ceiling
    out = [f'<text class="t" x="20" y="{top - 34}">{escape(title)}</text>',
           f'<text x="{LEFT}" y="{top - 8}">{escape(y_title)}</text>']
    for mark in range(round(ceiling / step) + 1):
        y = place_y(mark * step)
        out.append(f'<path class="g" d="M{LEFT} {y:.1f}h{wide}"/>'
                   f'<text class="e" x="{LEFT - 8}" y="{y + 4:.1f}">{mark * step:g}</text>')
    for x in sorted(set(xs)):
        out.append(f'<path class="a" d="M{place_x(x):.1f} {bottom}v5"/>'
                   f'<text class="m" x="{place_x(x):.1f}" y="{bottom + 19}">{x:,}</text>')
    out.append(f'<text class="m" x="{LEFT + wide / 2}" y="{bottom + 37}">{escape(x_title)}</text>')
    right = WIDTH - RIGHT
    for (name, points), colour in reversed(list(zip(lines, COLOURS))):
        out.append(f'<text class="e" x="{right}" y="{top - 34}" style="fill:{colour};font-weight:600">{escape(name)}</text>')
        right -= 14 + 7 * len(name)
        places = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
        out.append(f'<g stroke="{colour}" fill="{colour}"><polyline points="{places}"/>')
        out += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3"><title>{escape(name)}, {x:,}: {y:.3g}</title></circle>'
                for x, y in points]
        out.append("</g>")
    return out


def chart(title, panels):
    """`panels` is a list of the arguments of `panel` behind the first."""
    height = HEAD + PANEL * len(panels)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
           f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
           f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>']
    for number, one in enumerate(panels):
        out += panel(HEAD + PANEL * number, *one)
    return "\n".join([*out, "</svg>"]) + "\n"
