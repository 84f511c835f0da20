"""Formulas in lines of text stay together with their punctuation on the built pages."""

import pytest
from docutils import nodes, utils

from sharnn.web.formulas import _keep_together


def paragraph(*pieces):
    """Returns a document of one paragraph; a tuple of one string is a formula."""
    parts = [nodes.math("", *p) if isinstance(p, tuple) else nodes.Text(p) for p in pieces]
    document = utils.new_document("test")
    document += nodes.paragraph("", "", *parts)
    return document


@pytest.mark.parametrize(
    ("before", "after", "together"),
    [
        ("The gates ", ", then", "i,"),
        ("The gates (", ") open", "(i)"),
        ("the ", "-th unit", "i-th"),
        ("the gates ", ".", "i."),
    ],
)
def test_punctuation_stays_with_a_formula(before, after, together):
    document = paragraph(before, ("i",), after)
    text = document.astext()
    _keep_together(None, document)
    (line,) = document.findall(nodes.inline)
    assert line["classes"] == ["one-line"]
    assert line.astext() == together
    assert document.astext() == text


def test_words_around_a_formula_are_left_alone():
    document = paragraph("Let ", ("i",), " be the gate")
    _keep_together(None, document)
    assert not list(document.findall(nodes.inline))


def test_neighbouring_formulas_keep_their_order():
    document = paragraph(("i",), ", ", ("f",), " and (", ("o",), ").")
    text = document.astext()
    _keep_together(None, document)
    assert [line.astext() for line in document.findall(nodes.inline)] == ["i,", "(o)."]
    assert document.astext() == text


def test_an_equal_text_elsewhere_in_the_line_keeps_its_punctuation():
    document = paragraph(
        "Let ", ("a",), ", ", ("b",), " and (", ("c",), ") be", " and (", ("d",), ") be"
    )
    document[0].insert(0, [nodes.literal("", "x"), nodes.Text(", "), nodes.literal("", "y")])
    text = document.astext()
    _keep_together(None, document)
    assert [line.astext() for line in document.findall(nodes.inline)] == ["a,", "(c)", "(d)"]
    assert document.astext() == text
