"""Pages of a MediaWiki dump: titles, and training text without held-out pages."""

import numpy as np
import pytest

from sharnn import InputError
from sharnn.corpora.sample import sample_bytes
from sharnn.corpora.wiki_pages import page_titles, training_text

HEADER, FOOTER = b"<mediawiki>\n", b"</mediawiki>\n"


def page(title: str, text: str = "text") -> bytes:
    return f"  <page>\n    <title>{title}</title>\n    <text>{text}</text>\n  </page>\n".encode()


ART, ZEN, CAFE = page("Art"), page("Zen &amp; co."), page("Café", "[[Art]] &lt;title&gt;")
DUMP = HEADER + ART + ZEN + CAFE + FOOTER


@pytest.mark.parametrize("form", [bytes, bytearray, lambda data: np.frombuffer(data, np.uint8)])
def test_titles_are_those_of_the_pages_in_order(form):
    assert page_titles(form(DUMP)) == ["Art", "Zen &amp; co.", "Café"]


def test_a_file_has_titles_too(tmp_path):
    (tmp_path / "dump").write_bytes(DUMP)
    assert page_titles(tmp_path / "dump") == page_titles(DUMP)
    with pytest.raises(InputError, match="does not exist"):
        page_titles(tmp_path / "missing")


def test_pages_with_held_out_titles_are_removed_whole():
    text = training_text([DUMP, DUMP], held_out=[page("Café", "an older version"), FOOTER + ZEN])
    assert text == 2 * (HEADER + ART + FOOTER)


def test_only_whole_titles_count():
    held_out = [page("Ar"), page("art"), page("Art (history)"), page("text")]
    assert training_text([DUMP], held_out) == DUMP


def test_without_held_out_pages_nothing_changes():
    text = sample_bytes(50_000)
    assert len(page_titles(text)) > 10
    assert training_text([text[:20_000], text[20_000:]], []) == text


@pytest.mark.parametrize("cut", range(35, len(page("Art"))))
def test_a_page_that_is_cut_off_at_the_end_is_removed(cut):
    assert training_text([ZEN + ART[:cut], CAFE], [ART]) == ZEN + CAFE


def test_a_page_that_is_cut_off_before_another_page_ends_there():
    assert training_text([ART[:-10] + ZEN], [ART]) == ZEN


def test_the_rest_of_a_page_without_its_start_is_kept():
    rest = ART[40:]
    assert training_text([rest + ZEN + ART], [ART]) == rest + ZEN
