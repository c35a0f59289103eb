"""export DIR                 an edited model for others: as a PEFT adapter, a GGUF file, on the hub

An edited model for others: the edits as a PEFT adapter (--peft), the model as a GGUF file (--gguf) or on the hub (--hub).
A README.md that lists the edits goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, parse


@dataclass(frozen=True)
class Options:
    """Options of ``engramlab export``; one of --peft, --gguf and --hub."""

    folder: Path
    """A folder that engramlab edit or merge wrote."""
    peft: Path | None = None
    """A new folder for a LoRA adapter that peft puts on the unedited model; the changes must be of low rank (lora, rome)."""
    gguf: Path | None = None
    """A new .gguf file, with the metadata and tokenizer of the one that was edited."""
    hub: str | None = None
    """owner/name on the hub; the model is uploaded, without what takes the edits back."""
    like: str = ""
    """For --gguf: a .gguf file of the same model to take metadata and tokenizer from, if none was edited."""
    type: Literal["float32", "float16", "bfloat16"] | None = None
    """For --gguf: number type of the matrices; by default that of the folder."""
    base: str | None = None
    """Where the unedited model is now, if the folder holds edits alone and it has moved."""
    public: bool = False
    """For --hub: for everyone to see."""


def main(given: list[str]) -> None:
    """Exports and says how it is loaded."""
    if not given:
        raise UserError("engramlab export needs the folder, for example engramlab export edited/ --gguf edited.gguf")
    options = parse(Options, "export", given, positional=True, description=help_of(__doc__))
    if sum(given is not None for given in (options.peft, options.gguf, options.hub)) != 1:
        raise UserError("engramlab export needs one of --peft DIR, --gguf FILE and --hub OWNER/NAME")
    from engramlab.editing.folders import exporting, gguf_files

    if options.peft is not None:
        out = exporting.to_peft(options.folder, options.peft, base=options.base)
        print(f'saved   {out}\nload    peft.PeftModel.from_pretrained(model, "{out}"), on the unedited model')
    elif options.gguf is not None:
        more = {"like": options.like, "kind": options.type, "base": options.base}
        out = gguf_files.to_gguf(options.folder, options.gguf, **more)
        print(f"saved   {out}, {out.stat().st_size / 1e9:.2f} GB, and {out.name}.md, which lists the edits")
    else:
        print(f"saved   {exporting.to_hub(options.folder, options.hub, public=options.public)}")
