"""What many tests share. Nothing here needs a network: model hubs are told to be away."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
