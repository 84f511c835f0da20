"""The positions of a widget in a page without a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sharnn.web.pictures import Control


def page_control(
    name: str, widget: Any, listed: Sequence[Any] | None = None
) -> tuple[Control, list[Any]]:
    """Returns the control of a page that stands for a widget, and the value at each position.

    Args:
        name: the control's name if the widget has no description.
        widget: a widget of ipywidgets.
        listed: the values that the page offers, None for all. The widget's value is added.

    Example:
        >>> from ipywidgets import FloatSlider
        >>> control, values = page_control("gain", FloatSlider(0.5, min=0, max=1), [0, 1])
        >>> control.labels, control.initial, values
        (['0.00', '0.50', '1.00'], 1, [0, 0.5, 1])
    """
    current = widget.get_interact_value()
    values = list(_all_values(widget) if listed is None else listed)
    if not any(_equal(value, current) for value in values):
        values.append(current)
        if hasattr(widget, "readout_format"):  # a slider over numbers
            values.sort()
    control = Control(
        name=getattr(widget, "description", "") or name,
        labels=[_label(widget, value) for value in values],
        initial=next(i for i, value in enumerate(values) if _equal(value, current)),
        slider=hasattr(widget, "readout"),
    )
    return control, values


def _all_values(widget: Any) -> list[Any]:
    """Returns all values of a widget, or none if they can't be listed."""
    from ipywidgets import FloatLogSlider, FloatSlider, IntSlider

    if hasattr(widget, "_options_values"):  # a choice
        return list(widget._options_values)
    if isinstance(widget, (IntSlider, FloatSlider, FloatLogSlider)):
        count = math.floor((widget.max - widget.min) / widget.step + 1e-6) + 1
        values = [round(widget.min + i * widget.step, 10) for i in range(count)]
        return [widget.base**x for x in values] if hasattr(widget, "base") else values
    return [False, True] if isinstance(widget.get_interact_value(), bool) else []


def _equal(first: Any, second: Any) -> bool:
    """Returns whether two values are the same position, apart from rounding."""
    if isinstance(first, float) or isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
    return bool(first == second)


def _label(widget: Any, value: Any) -> str:
    """Returns the text that a widget shows for a value."""
    if hasattr(widget, "_options_values"):
        labels = zip(widget._options_labels, widget._options_values, strict=True)
        return next((str(label) for label, option in labels if option == value), str(value))
    return format(value, getattr(widget, "readout_format", ""))
