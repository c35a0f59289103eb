"""Network families: one file each, and the file name is the registration (``gpt_neox.py`` is the family ``gpt-neox``).

A family has

- ``MODEL_TYPES``: the ``config.model_type`` of the models that it covers;
- ``PATHS``: a ``ModulePaths``, where these models keep what experiments touch. Models of no family are looked at
  (``paths.find``); a family says so for what cannot be seen, or is to be found faster;
- optionally ``config(size, common, dropout)``: the transformers config of a model from scratch (see ``building.build``);
  without it the family can be loaded and edited, and not be built.

A network that transformers does not have registers its classes with ``AutoConfig`` and ``AutoModelForCausalLM`` in its file.
"""
