"""Corpora: one file each, and the file name is the registration (``corpora/datasets.py`` finds them).

A source has

- ``Config``: a frozen dataclass of its options, ``seed`` among them, all with defaults. Experiments show the options of every
  source side by side, so an option that another source has means the same there;
- ``GIVEN``: the option that chooses this source when it is given; "" for the one that is taken where none is;
- ``dataset(config, variant) -> Dataset``: entries, questions and the split; ``config`` has the attributes of ``Config``;
- optionally ``BESIDE = True``: its variants may be +CEL or +TEXT;
- optionally ``check(config, written)``: refuses options that do not fit the variants, before anything is made;
- optionally ``VARIANTS``: its variants where none of its own is named, if they are not those of ``corpora/variants.py``; and
  ``parse(name)``: how the entries of a variant of its own are written, None for names of others;
- optionally ``RENAMED``: options of `engramlab corpus` as they were called before, and their names.
"""
