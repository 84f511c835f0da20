"""The built-in sample: the same everywhere, formatted like the dump, with repeated facts."""

import hashlib
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from sharnn.corpora.sample import sample_bytes


def test_it_is_the_same_everywhere_in_any_size():
    text = sample_bytes(100_000)
    digest = hashlib.sha256(text).hexdigest()
    assert digest == "200a85b2e3237b1b383c4dafdfc01a825e9331a7da64784ef0bf8c2333bef4cc"
    for size in (0, 1, 999, 50_000):
        assert sample_bytes(size) == text[:size]
    assert sample_bytes(5000, seed=1) != text[:5000]
    with pytest.raises(ValueError, match="at least 0"):
        sample_bytes(-1)


def test_it_is_marked_as_not_enwik8():
    assert b"not enwik8" in sample_bytes(300)


def test_it_is_valid_wiki_markup():
    text = sample_bytes(200_000).decode(errors="ignore")
    whole = text[: text.rindex("</page>") + len("</page>")] + "</mediawiki>"
    pages = ElementTree.fromstring(whole).findall("page")
    assert len(pages) > 50
    for page in pages:
        assert page.findtext("title")
        assert page.findtext("id").isdigit()
        assert "'''" in page.findtext("revision/text")


def test_facts_are_repeated_thousands_of_bytes_later():
    text = sample_bytes(400_000).decode(errors="ignore")
    titles = re.findall(r"<title>(.*?)</title>", text)
    assert len(set(titles)) > 0.95 * len(titles)
    distances = []
    for title in titles[:200]:
        at = [match.start() for match in re.finditer(re.escape(title), text)]
        distances += [later - earlier for earlier, later in pairwise(at)]
    far = [distance for distance in distances if 1000 < distance < 20_000]
    assert len(far) > 200
