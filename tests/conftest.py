"""What many tests share. Nothing here needs a network: model hubs are told to be away."""

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("patient", deadline=None)  # machines are busy now and then
settings.load_profile("patient")
