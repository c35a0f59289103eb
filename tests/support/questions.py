"""Questions about a corpus, as tests ask them."""

from __future__ import annotations

from engramlab.corpora.questions import QuestionCorpus


def questions_of(corpus, wordings=None, split=None) -> QuestionCorpus:
    """One question for each subject and attribute of a corpus."""
    return QuestionCorpus(corpus.population, wordings, corpus.subjects, split)
