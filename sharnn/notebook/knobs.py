"""A figure with controls: live widgets in a notebook, pictures drawn beforehand in a page."""

from __future__ import annotations

import io
import itertools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sharnn.errors import InputError, require_choice
from sharnn.notebook.positions import page_control
from sharnn.web.pictures import picture_frame, picture_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLE = "SHARNN_KNOBS"
MODES = ("widgets", "pictures")
MAX_PICTURES = 100  # in one page
DECIMALS = re.compile(r"(\.\d\d)\d+")


class Knobs:
    """A figure with controls, in a live notebook and in a page without a kernel.

    In a live notebook the controls are widgets, and each change draws the figure again. If the
    environment variable ``SHARNN_KNOBS`` is ``"pictures"``, as in a build of the book, the figure
    is drawn once for each position of the controls, and the page shows one of these pictures.

    Args:
        draw: a function that takes the controls' values as keyword arguments and returns a
            matplotlib figure of always the same size.
        positions: for some controls, the values that the page offers. By default it offers all
            values of a control, or only the initial one if they can't be listed, as in a text
            field. The initial value is always included.
        controls: one control for each argument of ``draw``, in a form that `ipywidgets.interact`
            accepts: a widget or, for example, ``(low, high, step)`` or a list of choices.

    Raises:
        InputError: ``SHARNN_KNOBS`` is invalid, ``positions`` contains a name that is not a
            control's, or the page would need more than 100 pictures.

    Example:
        >>> from sharnn.plots import panels
        >>> knobs = Knobs(lambda n: panels()[0].figure, n=(1, 5))
        >>> knobs.controls  # as the last line of a cell, `knobs` displays the figure
        {'n': (1, 5)}
        >>> knobs.page()[:15]
        '<!doctype html>'
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        positions: Mapping[str, Sequence[Any]] | None = None,
        **controls: Any,
    ) -> None:
        self.draw, self.positions, self.controls = draw, positions or {}, controls
        mode = os.environ.get(VARIABLE, MODES[0])
        require_choice(VARIABLE, mode, MODES)
        for name in self.positions:
            require_choice("a name in positions", name, controls)
        # Drawn here and not when displayed: IPython catches the errors of display methods.
        self._static = self._static_bundle() if mode == "pictures" else None

    def page(self) -> str:
        """Returns an HTML document that shows a picture for each position of the controls."""
        controls, values = [], []
        for name, widget in self._widgets().items():
            control, offered = page_control(name, widget, self.positions.get(name))
            controls.append(control)
            values.append(offered)
        count = math.prod(map(len, values))
        if count > MAX_PICTURES:
            raise InputError(
                f"a page for {', '.join(self.controls)} needs {count:,} pictures, but "
                f"{MAX_PICTURES} are the maximum: list fewer values in positions"
            )
        pictures = [
            _svg(self.draw(**dict(zip(self.controls, position, strict=True))))
            for position in itertools.product(*values)
        ]
        return picture_page(controls, pictures)

    def _widgets(self) -> dict[str, Any]:
        """Returns the controls as widgets, by name."""
        from ipywidgets import interactive

        return {
            name: interactive.widget_from_abbrev(control) for name, control in self.controls.items()
        }

    def _static_bundle(self) -> dict[str, Any]:
        """Returns the page in a frame and, for documents that can't move, the figure's image."""
        figure = self.draw(
            **{name: widget.get_interact_value() for name, widget in self._widgets().items()}
        )
        width, height = figure.get_size_inches()
        return {
            "text/plain": repr(self),
            "text/html": picture_frame(self.page(), width / height, len(self.controls)),
            "image/png": _png(figure),
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Returns the controls and, for front ends without widgets, the figure as an image."""
        if self._static:
            return self._static
        import ipywidgets
        import matplotlib.pyplot as plt
        from IPython.display import display

        def redraw(**values: Any) -> None:
            figure = self.draw(**values)
            display(figure)
            plt.close(figure)

        widget = ipywidgets.interactive(redraw, **self.controls)
        if not widget.kwargs:  # ipywidgets 7, as on Colab, waits until its own code displays it
            widget.update()
        controls = widget.kwargs_widgets  # widget.kwargs is empty if an update failed
        figure = self.draw(**{control._kwarg: control.get_interact_value() for control in controls})
        # Built by hand, because ipywidgets 7 has no _repr_mimebundle_.
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        return {
            "text/plain": repr(self),
            "application/vnd.jupyter.widget-view+json": view,
            "image/png": _png(figure),
        }


def _png(figure: Figure) -> bytes:
    """Returns a figure as a PNG image, and closes it."""
    import matplotlib.pyplot as plt

    image = io.BytesIO()
    figure.savefig(image, format="png")
    plt.close(figure)
    return image.getvalue()


def _svg(figure: Figure) -> str:
    """Returns a figure as an SVG document, the same one in every build, and closes it."""
    import matplotlib
    import matplotlib.pyplot as plt

    image = io.StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "sharnn", "svg.fonttype": "path"}):
        figure.savefig(image, format="svg", metadata=none)
    plt.close(figure)
    # Two decimals of a point are enough, and make the pictures of long lines half as large.
    return re.sub(r'(?<=\s)d="[^"]*"', lambda path: DECIMALS.sub(r"\1", path[0]), image.getvalue())
