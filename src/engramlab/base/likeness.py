"""Which texts share the most, and the rarest, words with a text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from engramlab.base.errors import UserError


class WordIndex:
    """Texts by their words: the cosine of word counts, a word counting less the more of the texts have it.

    Words are runs of letters, digits and underscores, in lower case; a word that ``d`` of ``n`` texts have weighs
    ``log((n + 1) / (d + 0.5))`` each time it occurs (ours; one of many forms of tf-idf).

    Args:
        texts: in any number, ``[n]``.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(_words(text)) for text in texts]
        self.texts = len(counts)
        self.having = Counter(word for count in counts for word in count)
        self._holding: dict[str, list[tuple[int, float]]] = {}
        self._lengths = []
        for place, count in enumerate(counts):
            weights = self._weigh(count)
            self._lengths.append(math.hypot(*weights.values()))
            for word, weight in weights.items():
                self._holding.setdefault(word, []).append((place, weight))

    def _weigh(self, count: Counter[str]) -> dict[str, float]:
        return {w: n * math.log((self.texts + 1) / (self.having[w] + 0.5)) for w, n in count.items()}

    def likeness(self, a: str, b: str) -> float:
        """0 (no word in common) to 1, of any two texts."""
        one, other = self._weigh(Counter(_words(a))), self._weigh(Counter(_words(b)))
        length = math.hypot(*one.values()) * math.hypot(*other.values())
        return sum(one[w] * other.get(w, 0.0) for w in one) / length if length else 0.0

    def scores(self, text: str) -> list[float]:
        """``likeness`` of ``text`` to each of the texts, ``[n]``; only texts that share a word are looked at."""
        weights = self._weigh(Counter(_words(text)))
        own = math.hypot(*weights.values())
        found = [0.0] * self.texts
        for word, weight in weights.items():
            for place, held in self._holding.get(word, ()):
                found[place] += weight * held
        return [s / (own * n) if own * n else 0.0 for s, n in zip(found, self._lengths, strict=True)]

    def nearest(self, text: str, count: int) -> list[int]:
        """Places of the ``count`` texts most alike, the likest first; of equals the later text is the likelier."""
        scores = self.scores(text)
        return sorted(range(self.texts), key=lambda i: (scores[i], i), reverse=True)[:count]


class Bm25Index:
    """Texts by their words as BM25 weighs them, by the package bm25s (Lucene's variant, its defaults).

    Raises:
        UserError: the package is not installed, or there is no text with a word.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError:
            raise UserError("retrieval by bm25 needs the package bm25s: pip install 'engramlab[retrieval]'") from None
        words = [_words(text) for text in texts]
        if not any(words):
            raise UserError("retrieval by bm25 needs texts with words in them; there is none")
        self.texts, self._index = len(words), bm25s.BM25()
        self._index.index(words, show_progress=False)

    def nearest(self, text: str, count: int) -> list[int]:
        """Places of the ``count`` texts most alike, the likest first; those at hand where no word is known."""
        known = [word for word in _words(text) if word in self._index.vocab_dict]
        if not known:
            return list(range(min(count, self.texts)))
        places, _ = self._index.retrieve([known], k=min(count, self.texts), show_progress=False)
        return [int(place) for place in places[0]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
