"""Tokenizers: text goes round, and the vocabulary's size chooses."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokenizer import ByteTokenizer, WorldTokenizer, for_vocabulary

WORLD = WorldTokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize("tokenizer", [WORLD, ByteTokenizer()], ids=["world", "bytes"])
@given(TEXT)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_text_goes_round(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.vocab_size for token in tokens)
    assert tokenizer.decode(tokens) == text


def test_known_ids():
    assert WORLD.encode("hello é\n") == [34550, 4970, 11]
    assert ByteTokenizer().encode("é\n") == [195, 169, 10]


def test_half_a_character_and_unassigned_ids_decode_to_the_replacement_character():
    assert WORLD.decode([0, 98, 129, 65535]) == "a\ufffd\ufffd"
    assert ByteTokenizer().decode([97, 195]) == "a\ufffd"
    assert ByteTokenizer().decode([97, 256, 98]) == "a\ufffdb"


def test_the_vocabularys_size_chooses():
    assert for_vocabulary(65536).name == "world"
    assert for_vocabulary(256).name == "bytes"
    assert for_vocabulary(512, "bytes").name == "bytes"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"65536 \(world\), 256 \(bytes\); name the one"):
        for_vocabulary(512)
    with pytest.raises(ValueError, match="unknown tokenizer 'gpt'; known are world, bytes"):
        for_vocabulary(256, "gpt")
    with pytest.raises(ValueError, match=r"tokenizer world has 65536 ids, .* only 256"):
        for_vocabulary(256, "world")


def test_the_module_does_not_import_torch():
    code = "import sys, model.tokenizer, model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
