"""The built-in sample: generated pages in the format of the Wikipedia dump.

The sample is used if neither enwik8 nor enwiki2016 is available. It is not real text, and results
on it can't be compared with results on other data. It contains what a model should learn: markup,
words, sentences, and facts that are repeated verbatim thousands of bytes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

HEADER = """<mediawiki xml:lang="en">
  <!-- Generated text: the built-in sample of sharnn. This is not enwik8. -->
  <siteinfo>
    <sitename>sharnn sample, not enwik8</sitename>
  </siteinfo>
"""
ONSETS = "b br c ch d dr f g gr h k l m n p pl r s st t th tr v w".split()
VOWELS = "a a e e i o u ai ea ou é ö".split()
CODAS = " l n r s t nd rn".split(" ")
KINDS = "town river family bridge school island valley company song language".split()
ARTICLES = "the the the a a one its every".split()
JOINTS = "of in from with near after under like".split()
HEADINGS = "History Name Geography People Economy Sources".split()


def sample_bytes(size: int, seed: int = 0) -> bytes:
    """Generates the first bytes of the sample.

    The bytes are the same on every machine. A shorter sample is a prefix of a longer one.

    Args:
        size: number of bytes.
        seed: seed of the words and facts.

    Returns:
        UTF-8 text, truncated to ``size`` bytes.

    Raises:
        ValueError: ``size`` is negative.

    Example:
        >>> text = sample_bytes(50_000)
        >>> len(text), b"not enwik8" in text[:200], text[:1000] == sample_bytes(1000)
        (50000, True, True)
    """
    if size < 0:
        raise ValueError(f"size must be at least 0, got {size}")
    pieces, written = [HEADER.encode()], len(HEADER.encode())
    pages = _Writer(Random(seed)).pages()
    while written < size:
        page = next(pages).encode()
        pieces.append(page)
        written += len(page)
    return b"".join(pieces)[:size]


@dataclass(frozen=True)
class _Topic:
    """The facts about a page that later pages can repeat."""

    title: str
    kind: str
    place: str
    founder: str
    year: int
    number: int


class _Writer:
    """Generates pages with ``random.random`` alone: it is the same in every version of Python."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self.nouns = [self._new_word() for _ in range(2000)]
        self.verbs = [self._new_word() + "s" for _ in range(800)]
        self.adjectives = [self._new_word() for _ in range(1000)]
        # Each noun has a likely verb, so that words can be predicted from earlier words.
        self.usual_verb = {noun: self._pick(self.verbs) for noun in self.nouns}
        self.topics: list[_Topic] = []

    def pages(self) -> Iterator[str]:
        """Yields pages without end, each about a new topic."""
        while True:
            topic = self._new_topic()
            yield self._page(topic)
            self.topics.append(topic)

    def _below(self, count: int) -> int:
        return int(self._random() * count)

    def _pick(self, items: list[str]) -> str:
        """Picks an item. As with words in a language, the first items are far more frequent."""
        share = self._random()
        return items[int(share * share * len(items))]

    def _new_word(self) -> str:
        syllables = 1 + self._below(5) // 2
        return "".join(
            ONSETS[self._below(len(ONSETS))]
            + VOWELS[self._below(len(VOWELS))]
            + CODAS[self._below(len(CODAS))]
            for _ in range(syllables)
        )

    def _new_name(self) -> str:
        return f"{self._new_word().capitalize()} {self._new_word().capitalize()}"

    def _new_topic(self) -> _Topic:
        named_after = self._earlier().title if self.topics and self._random() < 0.3 else None
        return _Topic(
            title=self._new_name(),
            kind=KINDS[self._below(len(KINDS))],
            place=named_after or self._new_word().capitalize(),
            founder=self._new_name(),
            year=1500 + self._below(500),
            number=10_000 + self._below(90_000),
        )

    def _earlier(self) -> _Topic:
        """Picks an earlier topic, more often a recent one."""
        share = self._random()
        return self.topics[len(self.topics) - 1 - int(share * share * min(len(self.topics), 60))]

    def _page(self, topic: _Topic) -> str:
        revision = topic.number * 7 + 13
        day, hour = 1 + topic.number % 28, topic.number % 24
        lines = [
            f"""  <page>
    <title>{topic.title}</title>
    <id>{topic.number}</id>
    <revision>
      <id>{revision}</id>
      <timestamp>2006-02-{day:02d}T{hour:02d}:00:00Z</timestamp>
      <contributor>
        <username>{topic.founder.split()[0]}</username>
      </contributor>
      <text xml:space="preserve">"""
            + f"{{{{{topic.kind} | name = {topic.title} | founded = {topic.year} }}}}",
            f"'''{topic.title}''' is a {topic.kind} in [[{topic.place}]]. "
            f"It was founded in {topic.year} by [[{topic.founder}]]. {self._sentences(2)}",
        ]
        for _ in range(1 + self._below(3)):
            lines.append(f"\n== {HEADINGS[self._below(len(HEADINGS))]} ==")
            lines.append(self._paragraph())
        if self.topics:
            lines.append("\n== See also ==")
            lines += [f"* [[{self._earlier().title}]]" for _ in range(2 + self._below(3))]
        lines.append(f"\n[[Category:{topic.kind.capitalize()}s founded in {topic.year}]]</text>")
        return "\n".join(lines) + "\n    </revision>\n  </page>\n"

    def _paragraph(self) -> str:
        text = self._sentences(1 + self._below(3))
        if self.topics:
            text += f" {self._fact(self._earlier())} {self._sentences(1)}"
        return text

    def _fact(self, topic: _Topic) -> str:
        """Repeats a fact about another page, or quotes its founder."""
        form = self._below(3)
        if form == 0:
            return f"[[{topic.title}]] was founded in {topic.year} by [[{topic.founder}]]."
        if form == 1:
            subject = f"The {topic.kind} [[{topic.title}]] in [[{topic.place}]]"
            return f"{subject} has number {topic.number}."
        return f"As [[{topic.founder}]] said of [[{topic.title}]], &quot;{self._clause()}&quot;."

    def _sentences(self, count: int) -> str:
        return " ".join(self._sentence() for _ in range(count))

    def _sentence(self) -> str:
        text = self._clause()
        if self._random() < 0.3:
            text += f", and {self._clause()}"
        return text[0].upper() + text[1:] + "."

    def _clause(self) -> str:
        noun = self._pick(self.nouns)
        verb = self.usual_verb[noun] if self._random() < 0.6 else self._pick(self.verbs)
        subject = f"{self._pick(self.adjectives)} {noun}" if self._random() < 0.4 else noun
        text = f"{self._article()} {subject} {verb} {self._article()} {self._pick(self.nouns)}"
        if self._random() < 0.5:
            joint = JOINTS[self._below(len(JOINTS))]
            text += f" {joint} {self._article()} {self._pick(self.nouns)}"
        return text

    def _article(self) -> str:
        return ARTICLES[self._below(len(ARTICLES))]
