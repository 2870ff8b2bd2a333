"""Concept tokens: ids, rows, masks, errors and the saved folder."""

from __future__ import annotations

import numpy as np
import pytest

from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import TokenError, TruncatedPromptWarning, UnknownTokenError, Vocabulary

TOKENS = ("<cat1>", "<dog1>", "<new_style-2>")
PROMPTS = [
    "a photo of <cat1> cat, <dog1>.",
    "<cat1>",
    "(<cat1>)cat,<dog1>'s <new_style-2>!",
    "A <CAT1>cat<dog1>",
    "photo  of a\t<cat1> cat <3",
    "été <dog1> 😀 42",
    "",
    "no concept here",
]


@pytest.fixture
def vocabulary(tiny) -> Vocabulary:
    return Vocabulary(tiny, TOKENS, reserved=4)


def test_ids_are_rows_after_the_base(vocabulary, tiny):
    for i, token in enumerate(TOKENS):
        assert vocabulary.row_of(token) == i
        assert vocabulary.token_ids(token) == (tiny.size + i,)
    assert vocabulary.base_size == tiny.size


@pytest.mark.parametrize("prompt", ["<cat1>.", ",<cat1>", "x<cat1>y", "'<cat1>'", "<<cat1>>", "<cat1><cat1>"])
def test_neighbours_do_not_matter(vocabulary, prompt):
    count = list(vocabulary.token_ids(prompt)).count(vocabulary.base_size)
    assert count == prompt.count("<cat1>")


def test_text_without_concepts_has_the_tokenizers_ids(vocabulary, tiny):
    for text in ("a red cat on the beach", "hippopotamus!", "1 < 2 > 0"):
        assert vocabulary.token_ids(text) == tiny.ids(text)


def test_encode_pads_as_clip(vocabulary, tiny):
    ids = vocabulary.encode(["a cat", "a photo of <cat1> cat"])
    assert ids.shape == (2, 32) and ids.dtype == np.int32
    assert ids[0].tolist() == [tiny.bos_id, *tiny.ids("a cat"), tiny.eos_id] + [tiny.pad_id] * 28
    assert vocabulary.encode(["a cat"], max_length=8).shape == (1, 8)
    assert vocabulary.encode([]).shape == (0, 32)


def test_padding_of_stable_diffusion_2(clip):
    import dataclasses

    ids = Vocabulary(dataclasses.replace(clip, pad_token="!")).encode(["a cat"], max_length=6)
    assert ids.tolist() == [[49406, 320, 2368, 49407, 0, 0]]
    mask = Vocabulary(clip).caption_mask(ids, "caption+eot")
    assert mask.tolist() == [[False, True, True, True, False, False]]


def test_truncation_names_what_is_cut(vocabulary, tiny):
    with pytest.warns(TruncatedPromptWarning, match="cut off: 'beach <dog1>'"):
        ids = vocabulary.encode(["a photo of <cat1> on the beach <dog1>"], max_length=8)
    assert ids[0, -1] == tiny.eos_id and ids[0, -2] == tiny.ids("the")[0]


def test_caption_masks(vocabulary):
    ids = vocabulary.encode(["a cat", ""], max_length=6)
    expected = {
        "caption": [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
        "caption+eot": [[0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]],
        "all": np.ones((2, 6)),
    }
    for mode, mask in expected.items():
        assert vocabulary.caption_mask(ids, mode).dtype == bool
        np.testing.assert_array_equal(vocabulary.caption_mask(ids, mode), np.asarray(mask, bool))
    with pytest.raises(ValueError, match="unknown mode 'words'"):
        vocabulary.caption_mask(ids, "words")


def test_single_tokens(vocabulary):
    assert vocabulary.is_single_token("cat") and vocabulary.is_single_token("<cat1>")
    assert not vocabulary.is_single_token("hippopotamus") and not vocabulary.is_single_token("a cat")


@pytest.mark.parametrize("prompt", ["a photo of <cat2> cat", "<CAT2>", "<cat1> and <cat10>", "x<foo-bar_3>y"])
def test_unknown_tokens_are_errors_that_list_the_known(vocabulary, prompt):
    with pytest.raises(UnknownTokenError, match="known tokens: <cat1>, <dog1>, <new_style-2>"):
        vocabulary.encode([prompt])


def test_unknown_row(tiny):
    with pytest.raises(UnknownTokenError, match="known tokens: none"):
        Vocabulary(tiny).row_of("<cat1>")


def test_one_string_is_not_a_batch(vocabulary):
    with pytest.raises(TypeError, match="sequence"):
        vocabulary.encode("a cat")


@pytest.mark.parametrize("token", ["cat1", "<cat 1>", "<>", "<Cat1>", "<cat1", "<chat-é>", "<cat1>,"])
def test_spelling(tiny, token):
    with pytest.raises(TokenError, match="is not a concept token"):
        Vocabulary(tiny, (token,))


def test_tokens_are_unique_new_and_fit(tiny):
    with pytest.raises(TokenError, match="two concepts have the token '<cat1>'"):
        Vocabulary(tiny, ("<cat1>", "<cat1>"))
    with pytest.raises(TokenError, match="in the tokenizer already"):
        Vocabulary(tiny.with_tokens(["<cat1>"]), ("<cat1>",))
    with pytest.raises(TokenError, match="reserved"):
        Vocabulary(tiny, ("<a>", "<b>"), reserved=1)


def saved_and_reopened(vocabulary, folder, tokens=None):
    from transformers import CLIPTokenizer

    vocabulary.save(folder, tokens)
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("base", ["tiny", "clip"])
def test_saved_folder_gives_the_same_ids_in_transformers(request, base, tmp_path):
    vocabulary = Vocabulary(request.getfixturevalue(base), TOKENS)
    theirs = saved_and_reopened(vocabulary, tmp_path)
    assert len(theirs) == vocabulary.base_size + len(TOKENS)
    length = vocabulary.tokenizer.max_length
    ids = theirs(PROMPTS, padding="max_length", truncation=True).input_ids
    assert np.shape(ids) == (len(PROMPTS), length)
    np.testing.assert_array_equal(ids, vocabulary.encode(PROMPTS))
    assert theirs.pad_token_id == vocabulary.tokenizer.pad_id
    # and transformers' own file format
    theirs.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert [again.ids(p) for p in PROMPTS] == [vocabulary.token_ids(p) for p in PROMPTS]


def test_a_saved_folder_is_the_base_of_more_concepts(vocabulary, tmp_path):
    saved_and_reopened(vocabulary, tmp_path, TOKENS[:1])
    more = Vocabulary(load_tokenizer(tmp_path), TOKENS[1:])
    assert more.token_ids("<cat1> <dog1>") == vocabulary.token_ids("<cat1> <dog1>")
    theirs = saved_and_reopened(more, tmp_path / "more")
    np.testing.assert_array_equal(theirs(PROMPTS, padding="max_length").input_ids, vocabulary.encode(PROMPTS))


def test_save_refuses_gaps(vocabulary, tmp_path):
    with pytest.raises(TokenError, match="no gaps"):
        vocabulary.save(tmp_path, ("<dog1>",))
