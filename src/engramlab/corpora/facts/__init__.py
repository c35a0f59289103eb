"""Facts as a user brings them, and what every instrument takes of them: entries, passages, queries, edits, choices.

facts = FactTable.read("my_facts.csv")
facts.entries("multi5+permute")     # storage and probing
facts.passages()                    # injection
facts.edits(seed=0)                 # editing
facts.queries(), facts.choices()    # measuring
"""

from engramlab.corpora.facts.options import FactOptions
from engramlab.corpora.facts.table import FactTable
from engramlab.corpora.facts.wordings import Wordings

__all__ = ["FactOptions", "FactTable", "Wordings"]
