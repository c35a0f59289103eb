"""engramlab: factual knowledge in language models — stored and extracted, acquired and forgotten, edited.

    import engramlab as eg

    model, tokenizer = eg.load_model("path/to/model")          # a folder, a .gguf file, a hub id, an edited folder
    eg.ask(model, tokenizer, "The capital of France is")       # rows: what it writes
    eg.score(model, tokenizer, queries).to_pandas()            # rows: how likely each query's target is
    eg.audit(model, tokenizer, table).to_pandas()              # rows: which facts it knows, and how they can be got out

    wish = eg.Edit(eg.Query("The capital of France is", "Paris", subject="France"), "Rome")
    with eg.applied(model, tokenizer, wish, method="rome"):    # the model says Rome; afterwards it is as it was
        ...
    eg.change(model, tokenizer, wish, out="edited/")           # the same for good; eg.undo("edited/") takes it off again

    eg.cite("runs/sources", "Where did Anya work?")             # rows: an answer and the document it names as its source
    tokens = eg.VirtualTokens.load("runs/tokens/reading/tokens/vectors", model)  # trained to read passages
    eg.answer_from(model, tokenizer, "Who founded it?", ["a passage", "another"], virtual_tokens=tokens)

    eg.teach("path/to/model", "facts.csv", "runs/taught")      # facts put in for good, judged by questions never trained

    eg.run("knowledge-extraction", "runs/demo", preset="tiny")  # an experiment; eg.write_report(["runs/demo"], "page.html")

What is not here is in the rooms: `engramlab.editing`, `engramlab.corpora`, `engramlab.measuring` and so on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engramlab.base.errors import UserError as UserError
    from engramlab.base.facts import Case as Case
    from engramlab.base.facts import Edit as Edit
    from engramlab.base.facts import Fact as Fact
    from engramlab.base.facts import Query as Query
    from engramlab.base.rows import Rows as Rows
    from engramlab.core.deltas.virtual_tokens import VirtualTokens as VirtualTokens
    from engramlab.corpora.facts import FactTable as FactTable
    from engramlab.editing.changing import change as change
    from engramlab.editing.folders.opening import load_model as load_model
    from engramlab.editing.folders.saving import undo as undo
    from engramlab.editing.method import applied as applied
    from engramlab.measuring.audit import audit as audit
    from engramlab.measuring.candidates import choose as choose
    from engramlab.measuring.citing import cite as cite
    from engramlab.measuring.questions import ask as ask
    from engramlab.measuring.questions import score as score
    from engramlab.measuring.reading import answer_from as answer_from
    from engramlab.report.page import write_report as write_report
    from engramlab.running import run as run
    from engramlab.running import teach as teach

    __version__: str

# Where each name is; loaded when first asked for, so that importing engramlab loads no tensor library.
_WHERE = {
    "UserError": "base.errors",
    **dict.fromkeys(("Case", "Edit", "Fact", "Query"), "base.facts"),
    "Rows": "base.rows",
    "FactTable": "corpora.facts",
    "VirtualTokens": "core.deltas.virtual_tokens",
    "change": "editing.changing",
    "load_model": "editing.folders.opening",
    "undo": "editing.folders.saving",
    "applied": "editing.method",
    **dict.fromkeys(("run", "teach"), "running"),
    "audit": "measuring.audit",
    "choose": "measuring.candidates",
    "cite": "measuring.citing",
    **dict.fromkeys(("ask", "score"), "measuring.questions"),
    "answer_from": "measuring.reading",
    "write_report": "report.page",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version(__name__)
        except metadata.PackageNotFoundError:
            return "0 (not installed)"
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
