"""Signs of states and keys of charts as inline SVG. A state is a shape and a word; its colour is the third sign.

The content security policy forbids `style` attributes: colours come from the classes of the style sheet.
"""

from collections.abc import Mapping

from markupsafe import Markup

_SHAPES: Mapping[str, str] = {
    "critical": '<path class="f-current" d="M6 .6 11.8 11.2H.2z"/>',
    "warning": '<path class="f-current" d="M6 0l6 6-6 6-6-6z"/>',
    "acknowledged": '<path class="s-current f-none" stroke-width="1.5" d="M6 .9 11.1 6 6 11.1.9 6z"/>'
    '<path class="s-current f-none" stroke-width="1.3" d="M4.1 6l1.4 1.4 2.5-2.6"/>',
    "well": '<circle class="s-current f-none" stroke-width="1.3" cx="6" cy="6" r="5.2"/>'
    '<path class="s-current f-none" stroke-width="1.5" d="M3.5 6.2l1.8 1.8 3.3-3.8"/>',
    "learning": '<circle class="s-current f-none" stroke-width="1.3" cx="6" cy="6" r="5.2"/>'
    '<path class="f-current" d="M6 .8a5.2 5.2 0 0 0 0 10.4z"/>',
    "unknown": '<circle class="s-current f-none" stroke-width="1.4" stroke-dasharray="2.2 1.9" cx="6" cy="6" r="5.1"/>',
    "resolved": '<path class="s-current f-none" stroke-width="1.6" d="M1.5 6.4l3 3 6-6.8"/>',
    "message": '<path class="s-current f-none" stroke-width="1.2" d="M.8 2.2h10.4v7.6H.8zl5.2 4.4 5.2-4.4"/>',
    "person": '<circle class="f-current" cx="6" cy="3.2" r="2.6"/>'
    '<path class="f-current" d="M1 11.6a5 5 0 0 1 10 0z"/>',
    "due": '<path class="s-current f-none" stroke-width="1.2" stroke-dasharray="2 2" d="M6 .5v11"/>',
}
_KEYS: Mapping[str, str] = {
    "bar": '<path class="f-data" d="M1 5h3v7H1zM6 2h3v10H6zM11 7h3v5h-3z"/>',
    "hot": '<path class="f-critical" d="M1 4h3v6H1zM6 1h3v9H6zM11 3h3v7h-3zM0 11h15v1.6H0z"/>',
    "cap": '<path class="f-data" d="M5 5h5v7H5zM5 1h5v2H5z"/>',
    "none": '<path class="s-unknown" d="M2 11.5h1M7 11.5h1M12 11.5h1" stroke-width="2"/>',
    "line": '<path class="s-ink" stroke-dasharray="2 2" d="M0 6.5h15"/>',
    "ink": '<path class="s-ink" stroke-width="1.5" d="M0 6h15"/>',
    "data": '<path class="s-data" stroke-width="2" d="M0 6h15"/>',
    "data2": '<path class="s-data2" stroke-width="2" d="M0 6h15"/>',
    "dot": '<circle class="f-ink" cx="7.5" cy="6" r="2"/>',
    "limit": '<path class="f-critical" fill-opacity="0.3" d="M0 2h15v8H0z"/>'
    '<path class="s-critical" stroke-width="1.5" stroke-dasharray="5 2" d="M0 6h15"/>',
    "fires": '<path class="s-critical" stroke-width="1.5" stroke-dasharray="5 2" d="M0 6h15"/>',
    "warning_line": '<path class="s-warning" stroke-width="2" d="M0 6h15"/>',
    "tick": '<path class="s-critical" stroke-width="2" d="M7.5 0v13"/>',
    "band": '<path class="f-tint" d="M0 2h15v8H0z"/>',
    "fill": '<path class="f-data" d="M0 2h15v9H0z"/>',
    "fill2": '<path class="f-data2" d="M0 2h15v9H0z"/>',
    "outline": '<path class="s-ink f-none" stroke-width="1.2" d="M.6 2.6h13.8v8H.6z"/>',
    "h1": '<path class="f-h1" d="M0 1h15v11H0z"/>',
    "h2": '<path class="f-h2" d="M0 1h15v11H0z"/>',
    "h3": '<path class="f-h3" d="M0 1h15v11H0z"/>',
    "h4": '<path class="s-critical f-none" stroke-width="2" d="M1 1.5h13v10H1z"/>',
    "reference": '<path class="s-data" stroke-width="2" stroke-dasharray="3 2" d="M0 6h15"/>',
}


def svg(inner: str, box: str, **attributes: object) -> Markup:
    """Return a drawing that screen readers skip; a text or table beside it says the same."""
    extra = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return Markup(f'<svg viewBox="{box}" aria-hidden="true" focusable="false"{extra}>{inner}</svg>')  # noqa: S704 - numbers and names of this package


def icon(name: str) -> Markup:
    """Return the sign of a state."""
    return svg(_SHAPES[name], "0 0 12 12", width=12, height=12)


def state(name: str, words: str) -> Markup:
    """Return a state as its sign and words."""
    return Markup('<span class="state is-{}">{}{}</span>').format(name, icon(name), words)


def key(name: str) -> Markup:
    """Return the sign of an entry in the key of a chart."""
    return svg(_KEYS[name], "0 0 15 13", width=15, height=13)
