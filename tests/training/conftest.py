"""Small things that several tests of training/ share."""

import pytest

from tests.tiny import released


@pytest.fixture(scope="session")
def audioset_ast(tmp_path_factory):
    """A folder like the released AST's: 527 AudioSet labels, 1024 frames, but narrow and with random weights."""
    return released("ast", tmp_path_factory.mktemp("audioset-ast"), std=0.1)
