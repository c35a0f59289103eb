"""example KIND               a small sample of a file format: edits, facts, passages, questions or templates

usage: engramlab example edits|facts|passages|questions|templates [--out FILE]

Prints a small file as other commands take it, or writes it: edits for edit --file, a table of facts for --facts, passages for
--inject, and the questions and sentence templates that go with a table of facts.

    engramlab example facts --out my_facts.csv
    engramlab example edits > my_edits.csv
"""

from __future__ import annotations

import json
from pathlib import Path

from engramlab.base.errors import UserError, nearest
from engramlab.cli._words import show_help, take, wants_help

_PASSAGE = {
    "id": "orla-mill",
    "text": "The Orla Mill stands in the village of Tarn. It was built by Ada Wren in 1871.",
    "paraphrases": ["In the village of Tarn stands the Orla Mill, which Ada Wren built in 1871."],
    "queries": {
        "memorization": [{"prompt": "The Orla Mill stands in the village of", "target": "Tarn"}],
        "semantic": [{"prompt": "The person who built the Orla Mill is called", "target": "Ada Wren"}],
        "compositional": [{"prompt": "In the village where Ada Wren built a mill, which is called", "target": "Tarn"}],
    },
}
SAMPLES = {
    "edits": """prompt,target,subject,rephrase,locality
The capital of {} is,Rome,France,France's capital is,The capital of Spain is => Madrid
The author of {} is,Christopher Marlowe,Hamlet,Hamlet was written by,The author of Emma is => Jane Austen
""",
    "facts": """country,capital,currency
France,Paris,euro
Japan,Tokyo,yen
Kenya,Nairobi,shilling
Peru,Lima,sol
""",
    "passages": json.dumps(_PASSAGE) + "\n",
    "questions": """capital\tWhat is the capital of {subject}? Answer:
currency\tWhat do people in {subject} pay with? Answer:
""",
    "templates": """{subject's} {attribute} is {value}.
{subject} has the {attribute} {value}.
""",
}


def main(given: list[str]) -> None:
    """Prints or writes the sample."""
    if not given or wants_help(given):
        show_help(__doc__)
        return
    rest, out = take(given, "--out")
    if len(rest) != 1 or rest[0] not in SAMPLES:
        raise UserError(
            f"engramlab example knows no {' '.join(rest)!r}; did you mean {nearest(' '.join(rest), SAMPLES)!r}? There are: "
            f"{', '.join(SAMPLES)}"
        )
    if out is None:
        print(SAMPLES[rest[0]], end="")
        return
    from engramlab.files.writing import replacing

    if Path(out).exists():
        raise UserError(f"{out} already exists; choose another --out")
    with replacing(Path(out)) as path:
        path.write_text(SAMPLES[rest[0]], "utf-8")
    print(out)
