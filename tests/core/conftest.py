"""A small tokenizer for the tests of core; more of them, and small models, are in ``zoo``."""

import pytest
import torch
import zoo

from engramlab.core.tokens import train_compact_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE with one token a word of a few sentences, any other text in bytes; `<|endoftext|>` at the start."""
    return train_compact_tokenizer(zoo.SENTENCES, 400)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower on several threads, most of all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
