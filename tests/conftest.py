"""What many tests share. Nothing here needs a network: model hubs are told to be away."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("patient", deadline=None)  # machines are busy now and then
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def statistics_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics of text are kept for the session, and never in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGRAMLAB_CACHE", str(tmp_path_factory.mktemp("statistics")))
        yield
