"""What many tests share. Nothing here needs a network: model hubs are told to be away."""

import os

# One thread: models this small are slower on several, and numbers do not hang on how many a machine has. Before torch loads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # machines are busy now and then
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def statistics_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics of text are kept for the session, and never in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGRAMLAB_CACHE", str(tmp_path_factory.mktemp("statistics")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with one token a word of a few sentences, any other text in bytes; `<|endoftext|>` at the start."""
    from tests.support import zoo

    from engramlab.core.text.tokenizers import train_compact_tokenizer

    return train_compact_tokenizer(zoo.SENTENCES, 400)
