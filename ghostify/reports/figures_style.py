"""How all figures of a report look: one colour and marker per method, ink, SVG and PNG."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "CONTROL",
    "INK",
    "PUBLISHED",
    "Style",
    "drawing",
    "figure_of",
    "legend_beside",
    "panels",
    "png_of",
    "styles_of",
    "svg_of",
    "tidy",
]

INK = "#24292f"
"""Of text, axes and lines that belong to no method; in SVG it follows the colour of the page."""

CONTROL = "#7d8590"
"""Of the dense control, which is no contestant."""

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#b478f0", "#b43c96",
    "#96695a", "#f06978", "#695ad2", "#c3873c", "#8787b4",
)  # fmt: skip
"""Of the methods. Each stands out from white and from a dark page by at least 3 to 1; they lie as
far apart as can be for eyes that see no red, green or blue, and markers and dashes differ too."""

PUBLISHED = "d"
"""The marker of published points; it is hollow, and no method has it."""

_MARKERS = "os^vPX<>h*"
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.4, 1.4), (6, 1.6, 1.4, 1.6))
_FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_SCHEMES = (
    "svg:root{color:#1f2328;background:#fff}"
    "@media (prefers-color-scheme:dark){svg:root{color:#e6edf3;background:#0f1419}}"
)
_DPI = 150
_REFERENCE = re.compile(r'(?:url\(|href=")#([^)"]+)')
_FAMILY = re.compile(r"font-family: [^;]*; ?")
_LONG = re.compile(r"-?\d+\.\d{3,}")


@dataclass(frozen=True, slots=True)
class Style:
    """How one method is drawn, in every figure."""

    colour: str
    marker: str
    dash: tuple[float, ...] = ()  # on, off …; empty: solid


def styles_of(methods: Iterable[str], control: Iterable[str] = ()) -> dict[str, Style]:
    """Give each method a look of its own, by its place; controls are grey and take no colour.

    Of more methods than colours, those beyond share a colour with another dash and marker;
    figures then show as many at a time as there are colours.
    """
    grey = set(control)
    styles: dict[str, Style] = {}
    place = 0
    for method in dict.fromkeys(methods):
        if method in grey:
            styles[method] = Style(CONTROL, "D", (2.4, 1.2))
            continue
        turn = place // len(COLOURS)
        styles[method] = Style(
            COLOURS[place % len(COLOURS)],
            _MARKERS[(place + turn) % len(_MARKERS)],
            _DASHES[(place + turn) % len(_DASHES)],
        )
        place += 1
    return styles


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw and save inside this: matplotlib's own defaults and ours, not the user's."""
    import matplotlib as mpl
    from matplotlib import style

    ink = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color",
         "ytick.color", "hatch.color"), INK,
    )  # fmt: skip
    ours = {
        **ink,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "grid.color": INK,
        "grid.alpha": 0.14,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "ghostify",
        "text.parse_math": False,
    }
    with (
        style.context(ours, after_reset=True),
        mpl.rc_context({"backend": "agg"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a reader's font may have it
        yield


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, which no window will show."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def panels(count: int, *, width: float, height: float, beside: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels, at most two in a row, and room for a legend.

    Args:
        count: of panels, at least 1.
        width: of one, in inches.
        height: of one, in inches.
        beside: inches right of them all.
    """
    columns = min(2, count)
    rows = -(-count // columns)
    figure = figure_of(columns * width + beside, rows * height)
    figure.get_layout_engine().set(wspace=0.06, hspace=0.08)  # type: ignore[union-attr,call-arg]
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def tidy(axis: Axes, *, x: str, y: str, title: str = "") -> None:
    """Name the axes of a panel and leave its ticks without lines."""
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title)
    axis.tick_params(length=0)


def legend_beside(figure: Figure, handles: Iterable[tuple[str, Artist]]) -> None:
    """Put one legend right of all panels, each name once, where it can cover nothing."""
    once = dict(handles)
    figure.legend(
        list(once.values()), list(once), loc="outside right upper", borderaxespad=0,
        handlelength=2.2, labelspacing=0.55,
    )  # fmt: skip


def svg_of(figure: Figure, name: str, title: str) -> str:
    """Return a figure as SVG that stands alone or inside a page, the same each time.

    Its ink is the text colour of the page around it; alone, the file brings a light and a dark
    background of its own. Texts stay texts, and all ids begin with ``name``, so that several
    figures can stand in one page.
    """
    drawn = io.StringIO()
    undated = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(drawn, format="svg", metadata=undated)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(drawn.getvalue())
    for part in list(root):
        if part.find(f"{{{_SVG}}}style") is not None or part.tag.endswith("metadata"):
            root.remove(part)  # a rule for "*" would reach the page around it
    used = set(_REFERENCE.findall(drawn.getvalue()))
    for element in root.iter():
        _adapt(element, name, used)
    _thin_out(root)
    for side in ("width", "height"):
        root.set(side, root.get(side, "").removesuffix("pt"))
    root.attrib |= {
        "id": name, "role": "img", "aria-labelledby": f"{name}-title",
        "font-family": _FONT,
        "stroke-linejoin": "round", "stroke-linecap": "butt",
    }  # fmt: skip
    schemes = ElementTree.Element(f"{{{_SVG}}}style")
    schemes.text = _SCHEMES
    words = ElementTree.Element(f"{{{_SVG}}}title", {"id": f"{name}-title"})
    words.text = title
    root[:0] = [words, schemes]
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG on white, with a palette of 256 colours, which halves it."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(
            256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
    few.save(small, "png", optimize=True)
    return small.getvalue()


def _thin_out(element: ElementTree.Element) -> None:
    """Leave out what draws nothing: white space between elements, and empty groups."""
    if element.tag != f"{{{_SVG}}}text":
        element.text = None
    for child in list(element):
        _thin_out(child)
        child.tail = None
        if child.tag == f"{{{_SVG}}}g" and not len(child):
            element.remove(child)


def _adapt(element: ElementTree.Element, name: str, used: Container[str]) -> None:
    """Give one element's ids, references, ink and font the form that a page needs."""
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]  # turns nothing
    for key, value in element.attrib.items():
        if key == "id":
            value = f"{name}-{value}"
        elif key == f"{{{_XLINK}}}href":
            value = f"#{name}-{value.removeprefix('#')}"
        else:
            value = value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
        if key in ("d", "x", "y", "width", "height", "transform"):
            value = _LONG.sub(lambda number: f"{float(number[0]):.2f}", value)
            value = " ".join(value.split())
        if key == "style":
            value = _FAMILY.sub("", value)
        element.set(key, value)
    if element.tag == f"{{{_SVG}}}text" and "fill" not in element.get("style", ""):
        element.set("fill", "currentColor")
