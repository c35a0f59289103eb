"""teach --model M --facts F  put your facts into a model so that they can be asked for, and say what was lost

usage: engramlab teach --model MODEL --facts TABLE [--writer CHAT_MODEL] [options]
       engramlab teach --model MODEL --documents DIR --writer CHAT_MODEL [options]

The model is asked first, and what it knows is left alone. The rest is stated in many wordings, with questions about half of the
subjects beside it and text of the model's own replayed against forgetting. The result is how many facts about the other half
can now be asked for, in wordings that were never trained, what the model has lost, and a folder that plain transformers loads.
With --writer a chat model writes the texts about each subject in place of templates, every value word for word.
--arms puts other ways beside it at equal trained tokens; --finish trains the other half's questions too, behind the verdict.

    engramlab teach --model MODEL --facts my_facts.csv
    engramlab teach --model MODEL --facts my_facts.csv --arms augmented+questions single rote edit context retrieved
    engramlab teach --model MODEL --facts runs/audit/facts.csv --only unknown recognised

It is engramlab run teaching --preset small, kept in runs/taught-TABLE unless --out says otherwise; the model is in its folder
model. For a few facts that contradict what the model says, engramlab edit is the way.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.cli import run
from engramlab.cli._words import help_of, take

GOES_ON = True


def main(given: list[str]) -> None:
    """Runs teaching."""
    rest = list(given) or ["--help"]
    facts = take(rest, "--facts")[1] or take(rest, "--documents")[1]
    out = f"runs/taught-{Path(facts).stem if facts else 'facts'}"
    about = help_of(__doc__).partition("\n\n")[2]
    run.start("teaching", rest, command="teach", about=about, out=out)
