"""The words of texts, the same for documents and searches.

A text is brought to Unicode's form NFKC and case-folded. Its words are runs of letters and digits, without
the accents of Latin letters. The stem of a word is that of English; other words are mostly their own stems.
"""

import unicodedata
from collections.abc import Iterable, Iterator

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

MAX_WORD_BYTES = 60
"""Longer words are left out."""
MIN_PREFIX, MAX_PREFIX = 2, 10
"""Letters of the beginnings of words that are indexed."""
JOINERS = "\u200c\u200d"
VERSION = f"1 {unicodedata.unidata_version}"
"""Of all rules here; an index of another version is built again."""


def normalise(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _words() -> TextAnalyzerBuilder:
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    return builder.filter(Filter.remove_long(MAX_WORD_BYTES)).filter(Filter.ascii_fold())


WORDS: TextAnalyzer = _words().build()
STEMS: TextAnalyzer = _words().filter(Filter.stemmer("english")).build()
SPACED: TextAnalyzer = TextAnalyzerBuilder(Tokenizer.whitespace()).build()
TOKENIZERS = {"words": WORDS, "stems": STEMS, "spaced": SPACED}
"""By name, for normalised texts; `spaced` is for words that are split already."""


def find_forbidden(text: str) -> str:
    """Return the first control, bidirectional or invisible character of a text, as `U+200B`; empty if none.

    The joiners of scripts and emoji are not among them.
    """
    return next((f"U+{ord(each):04X}" for each in text if _is_forbidden(each)), "")


def _is_forbidden(character: str) -> bool:
    return character not in JOINERS and unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}


def split_words(text: str) -> list[str]:
    """Return the words of a text, in their order."""
    return WORDS.analyze(normalise(text))


def stem(word: str) -> str:
    """Return the stem of one of the `split_words`."""
    return STEMS.analyze(word)[0]


def list_prefixes(words: Iterable[str]) -> Iterator[str]:
    """Yield the beginnings of words that are indexed; some more than once."""
    for word in words:
        for length in range(MIN_PREFIX, min(len(word), MAX_PREFIX) + 1):
            yield word[:length]
