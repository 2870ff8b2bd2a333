"""Token ids against OpenAI's byte-pair encoding, written out here a second time from CLIP's merges.

OpenAI's tokenizer first repairs a text with ftfy and html.unescape. transformers does neither and composes accents
(NFC), which is one of ftfy's repairs; `ClipBPE` does as transformers. What else differs, and why, is in DIFFERENCES.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import random
import re
import shutil
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import regex  # transformers installs it

from cns_jax.text.tokenizer import (
    BOS,
    EOS,
    Tokenizer,
    bpe_tables,
    clip_tokenizer_class,
    load_tokenizer,
    write_tokenizer,
)
from cns_jax.text.vocabulary import TruncatedPromptWarning, UnknownTokenError, Vocabulary

ROOM = 75  # 77 positions without begin and end token


class ClipBPE:
    """OpenAI's SimpleTokenizer without ftfy and html.unescape: text -> ids, begin and end token not included.

    added: placeholders, found in the cleaned text; their ids follow those of the file.
    """

    WORD = regex.compile(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
    )

    def __init__(self, source: Path, added: Sequence[str] = ()):
        lines = gzip.decompress(source.read_bytes()).decode().splitlines()
        merges = [tuple(line.split(" ")) for line in lines[1:48895]]  # OpenAI uses no more of the file
        self.rank = {pair: i for i, pair in enumerate(merges)}
        # a byte that cannot be seen in print is written as one of the characters from 256 on
        seen = [b for b in range(256) if chr(b).isprintable() and not chr(b).isspace()]
        hidden = [b for b in range(256) if b not in seen]
        self.letter = {b: chr(b) for b in seen} | {b: chr(256 + i) for i, b in enumerate(hidden)}
        self.byte = {letter: b for b, letter in self.letter.items()}
        units = list(self.letter.values())
        self.entries = [*units, *(u + "</w>" for u in units), *map("".join, merges), BOS, EOS, *added]
        self.id_of = {entry: i for i, entry in enumerate(self.entries)}
        self.placeholder = re.compile("(" + "|".join(map(re.escape, added)) + ")" if added else "(?!)()")

    def clean(self, text: str) -> str:
        return regex.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip().lower()

    def word(self, word: str) -> list[int]:
        if word in (BOS, EOS):
            return [self.id_of[word]]
        parts = [self.letter[b] for b in word.encode()]
        parts[-1] += "</w>"
        while True:
            ranked = [(self.rank[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in self.rank]
            if not ranked:
                return [self.id_of[part] for part in parts]
            i = min(ranked)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(self.placeholder.split(self.clean(text))):
            ids += [self.id_of[part]] if i % 2 else [n for word in self.WORD.findall(part) for n in self.word(word)]
        return ids

    def spelled(self, ids: Sequence[int]) -> bytes:
        """The bytes behind ids; the spaces are lost."""
        return b"".join(bytes(self.byte[c] for c in self.entries[i].removesuffix("</w>")) for i in ids)


NEW = ("<new1>", "<new2>")
SUBJECTS = ["a cat", "two Dogs", "an old fisherman's boat", "the Mug", "a t-shirt", "a hippopotamus", "3 toy cars"]
STYLES = ["photo", "oil-painting", "watercolour", "Ukiyo-e print", "4k HDR render", "low_poly model", "sketch, b&w"]
PLACES = ["on the beach", "in front of the Eiffel Tower", "at night (raining)", "in New  York", "@ home", "in 1984"]
FRAMES = ["{} of {} {}", "{}: {}, {}.", '"{}" - {} / {}!', "A {} with {} -- {}?!", "{} | {};{}", "({}) [{}] {{{}}}..."]

ACCENTED = """
café crème brûlée naïve façade Ångström Zürich Dvořák señor jalapeño São Łódź İstanbul ıspanak
Đà-Nẵng Việt Phở über Straße STRASSE ẞ smörgåsbord ÉTÉ Œuvre Æsir þorn ð ŵyn ǅ ḱ ọ̀ q̃ z̤ Ǘ ñ ﬁ ﬃ Ⅻ
ªº ά Ὀδυσσεύς
""".split()
EMOJI = """
😀 😀😀😀 🐱🐶 ❤ ❤\ufe0f ☺\ufe0e 👍🏽 👩🏿\u200d🚀 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈
🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f 🇩🇪 🇩🇪🇫🇷 🇩 1\ufe0f⃣ #\ufe0f⃣ ©\ufe0f ™
🫠 🧑\u200d🤝\u200d🧑 🐈\u200d⬛ ♀ 🤷🏻\u200d♀\ufe0f ⚡\ufe0f ✨ 🎨🖌\ufe0f 🀄 🃏 ⛰\ufe0f
""".split()
SCRIPTS = """
日本の猫 富士山 ねこ ネコ ﾈｺ 고양이 한글 가 猫の写真、浜辺。 「猫」 ＡＢＣ１２ 北京市 кошка КОШКА
ёлка Ёлка Їжак قطة القِطّة ۱۲۳ لا חתול שָׁלוֹם γάτα ΓΆΤΑ แมว เชียงใหม่ बिल्ली हिन्दी பூனை կատու კატა
ქართული Ꭰ ትግርኛ ខ្មែរ ᏣᎳᎩ 𝔘𝔫𝔦 𝟙𝟚 𠮷 ꙮ
""".split()
CONTRACTIONS = """
it's it’s we'LL I'M they'Re you'VE he'D can'T cat's' ''s '''ll !'s 'n' don't o'clock 's ' "s" “curly” ‘quotes’
«chat» „Katze“
""".split()
SPACED = """
it 's|rock 'n' roll|a\tb|a\n\nb|  a   b  |a\r\nb|a\u00a0b|a\u3000b|a\u2028b|a\u0085b|a\x0bb\x0c|a\u200bb
|\ufeffa|a\u00adb|\n| |cat,  dog ;bird|1 < 2 > 0|< new1 >|\x00\x01|a\x7fb|'tis  \t THE\nseason
""".split("|")
SYMBOLS = r"""
MiXeD CaSe iPhone15Pro CamelCase snake_case _x_ __init__ kebab-case-word -- --- — a—b a…b ... !!!!!!!! ?!?! ~^` \n $5.99
50% 1,000,000 2024-01-31 3.14159 1/2½² 007 ١٢ #tag @user a@b.com C++ C# https://example.org/a?b=c&d=e C:\cats <3 <
<> <|x|> [PAD] &amp; (((cat:1.3))) {a|b} cat,dog
""".split()
LONG = ["Donaudampfschifffahrtsgesellschaftskapitän", "pneumonoultramicroscopicsilicovolcanoconiosis"]
LONG += ["x" * 300, "hello" * 40, "!" * 100, "é" * 99, "猫" * 60, "😀" * 50, "'s" * 50]
MARKS = """
\ue000 \ufffd e\u0301\u0302\u0327 \u0301 A\u030angstrom \u212bngstrom \u2126\u212a \u0958
a>\u0301 <\u0338 \u0628\u0651\u064e
""".split()
SPECIAL = [f"a {BOS} cat", f"a cat{EOS}dog", f"the {EOS}{EOS}", f"{BOS}{EOS}"]
EDGES = ["", *CONTRACTIONS, *SPACED, *SYMBOLS, *LONG, *MARKS, *SPECIAL]


def mixtures(count: int) -> list[str]:
    """Words of every kind in a random order, with and without spaces."""
    draw = random.Random(0)
    pool = [*ACCENTED, *EMOJI, *SCRIPTS, *CONTRACTIONS, *SYMBOLS, *SUBJECTS, *STYLES]
    separators = ["", " ", ", ", "-", "_", "\n", "'", "  "]
    return [
        "".join(draw.choice(pool) + draw.choice(separators) for _ in range(draw.randint(2, 6))) for _ in range(count)
    ]


CORPUS = {
    "captions": [
        FRAMES[(i + i // len(FRAMES)) % len(FRAMES)].format(style, subject, place)
        for i, (subject, style, place) in enumerate(itertools.product(SUBJECTS, STYLES, PLACES))
    ],
    "accents composed": [unicodedata.normalize("NFC", f"A photo of {word}, {word.upper()}") for word in ACCENTED],
    "accents decomposed": [unicodedata.normalize("NFD", f"a photo of {word}'s {word}") for word in ACCENTED],
    "emoji": [form.format(emoji) for emoji in EMOJI for form in ("a {} cat", "cat{}", "{}'s!")],
    "scripts": [form.format(word) for word in SCRIPTS for form in ("a photo of {}", "{0}2{0}")],
    "edges": EDGES,
    "mixtures": mixtures(200),
}
# "Σ" at the end of a word: see DIFFERENCES
CORPUS = {name: [p for p in prompts if not re.search(r"Σ(?!\w)", p)] for name, prompts in CORPUS.items()}

PLACED = r"""
<new1> <new1>. .<new1> (<new1>) a<new1>cat <new1><new2> <new1>,<new2> <NEW1> '<new1>' '<new1>'s <new1>'LL "<new1>"
<<new1>> <new1>> <3<new1> -<new1>- _<new2>_ 1<new1>2 <new1>! !<new1>!! #<new1> a/<new1> é<new1>é 😀<new1>😀
❤<new2>🇩🇪 猫<new1>の写真 <new1>… “<new1>” <new1>—<new2>
""".split()
PLACED += ["A <New1>Cat", "\n<new1>\n", "a\n<new1>\tcat  ", "<new1> <new2>", "e\u0301<new1>e\u0301 z", "İ <new1> İ"]
PLACED += ["<new1>\u200b<new1>", "<new1>\u0301", f"<new1>{EOS}<new2>", "a photo of <new1> cat, in the style of <new2>."]
PLACED += [f"a {word}<new1>{word}, <new2>" for word in (*ACCENTED, *EMOJI, *SCRIPTS)]


@pytest.fixture(scope="module")
def reference(clip_merges) -> ClipBPE:
    return ClipBPE(clip_merges, NEW)


@pytest.fixture(scope="module")
def sd2(clip, tmp_path_factory) -> Tokenizer:
    """The tokenizer of SD-2.x: a short prompt is filled with "!"."""
    vocab, merges, _ = bpe_tables(clip)
    folder = tmp_path_factory.mktemp("sd2")
    write_tokenizer(folder, vocab, merges, pad_token="!")
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(clip_folder):
    """transformers' own tokenizer, without ours in between, and with the placeholders as diffusers adds them."""
    tokenizer = clip_tokenizer_class().from_pretrained(clip_folder)
    assert tokenizer.add_tokens(list(NEW)) == 2
    return tokenizer


def padded(tokenizer, prompts: Sequence[str]) -> np.ndarray:
    return np.asarray(tokenizer(list(prompts), padding="max_length", max_length=77, truncation=True).input_ids)


def test_there_are_several_hundred_prompts():
    assert len(set(itertools.chain(*CORPUS.values()))) > 800


@pytest.mark.parametrize("kind", CORPUS)
def test_ids_are_those_of_openai(clip, theirs, reference, kind):
    vocabulary = Vocabulary(clip, NEW)
    prompts = CORPUS[kind]
    wrong = {p: (ids, expected) for p in prompts if (ids := list(clip.ids(p))) != (expected := reference(p))}
    assert not wrong
    # the same with concepts on top, and in transformers alone
    assert all(vocabulary.token_ids(p) == clip.ids(p) for p in prompts)
    assert theirs(prompts, add_special_tokens=False).input_ids == [list(clip.ids(p)) for p in prompts]
    short = [p for p in prompts if len(clip.ids(p)) <= ROOM]
    rows = [[49406, *reference(p), 49407, *[49407] * (ROOM - len(reference(p)))] for p in short]
    np.testing.assert_array_equal(vocabulary.encode(short), rows)


def test_one_file_gives_the_same_ids(clip, clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    clip.backend.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path)
    both = Vocabulary(clip, NEW), Vocabulary(read, NEW)
    for prompt in itertools.chain(*CORPUS.values()):
        assert both[0].token_ids(prompt) == both[1].token_ids(prompt)
    assert (read.size, read.pad_id, read.max_length) == (clip.size, clip.pad_id, clip.max_length)


def test_composed_and_decomposed_accents_are_one_text(clip, reference):
    for word in ACCENTED:
        assert clip.ids(unicodedata.normalize("NFD", word)) == clip.ids(unicodedata.normalize("NFC", word)), word
    # without NFC the accent would be a "word" of punctuation of its own
    separate = [i for part in ("cafe", "\u0301") for i in reference.word(part)]
    assert list(clip.ids("cafe\u0301")) == reference.word("café") != separate


# text, the words that transformers reads in it, the reason
DIFFERENCES = [
    ("ΟΔΟΣ", ["οδοσ"], "lower case letter by letter; Python knows that a sigma ends a word (οδος)"),
    ("it'ſ", ["it", "'", "ſ"], "words are found with case; OpenAI ignores case there, and ſ is a kind of s"),
    ("a\x1f", ["a", "\x1f"], "U+001C to U+001F are no space; str.strip takes them for space"),
    ("<|ENDOFTEXT|>", ["<|", "endoftext", "|>"], "special tokens are found before lower-casing; OpenAI's after it"),
]


@pytest.mark.parametrize("text, words, why", DIFFERENCES, ids=[why[:20] for _, _, why in DIFFERENCES])
def test_what_transformers_reads_differently(clip, theirs, reference, text, words, why):
    expected = [i for word in words for i in reference.word(word)]
    assert list(clip.ids(text)) == theirs(text, add_special_tokens=False).input_ids == expected
    assert reference(text) != expected, why


def test_text_is_not_repaired_as_openai_does(clip, theirs):
    """ftfy would make ’ and ﬁ and ＡＢ plain, html.unescape &amp; an &."""
    for text, repaired in {"it’s": "it's", "ﬁsh": "fish", "ＡＢ": "ab", "R&amp;B": "R&B"}.items():
        assert list(clip.ids(text)) == theirs(text, add_special_tokens=False).input_ids
        assert clip.ids(text) != clip.ids(repaired)


def test_placeholders_next_to_anything(clip, theirs, reference, tmp_path):
    vocabulary = Vocabulary(clip, NEW)
    expected = [reference(p) for p in PLACED]
    assert [list(vocabulary.token_ids(p)) for p in PLACED] == expected
    assert theirs(PLACED, add_special_tokens=False).input_ids == expected
    # a folder as diffusers reads it, and what diffusers writes of it
    vocabulary.save(tmp_path / "ours")
    reloaded = clip_tokenizer_class().from_pretrained(tmp_path / "ours")
    reloaded.save_pretrained(tmp_path / "theirs")
    again = clip_tokenizer_class().from_pretrained(tmp_path / "theirs")
    for tokenizer in (reloaded, again):
        assert tokenizer.convert_tokens_to_ids(list(NEW)) == [49408, 49409]
        np.testing.assert_array_equal(padded(tokenizer, PLACED), vocabulary.encode(PLACED))


def test_placeholders_by_hand(clip):
    vocabulary = Vocabulary(clip, NEW)
    word = {text: clip.ids(text)[0] for text in ("a", "cat", ".", "(", ")", "'", "'s", "of")}
    expected = {
        "<new1>.": [49408, word["."]],
        "(<new1>)": [word["("], 49408, word[")"]],
        "a<new1>cat": [word["a"], 49408, word["cat"]],
        "<new1><new2>": [49408, 49409],
        "<NEW1>": [49408],  # text is lower-cased before placeholders are sought
        "'<new1>'s": [word["'"], 49408, word["'s"]],
        "of\n<new1>\ncat": [word["of"], 49408, word["cat"]],
    }
    assert {p: list(vocabulary.token_ids(p)) for p in expected} == expected
    with pytest.raises(UnknownTokenError, match="<new3>"):
        vocabulary.token_ids("'<NEW3>'s")


def test_stable_diffusion_2_reads_every_exclamation_mark_as_padding(sd2, clip, reference, tmp_path):
    """transformers makes the pad token a special token, found anywhere: "!!!" is three paddings, not one word."""
    vocabulary = Vocabulary(sd2, NEW)
    assert (sd2.pad_id, sd2.size, sd2.eos_id) == (0, 49408, 49407)
    prompts = [*CORPUS["edges"], *CORPUS["emoji"], *PLACED]
    for prompt in prompts:
        parts = prompt.split("!")
        expected = [[0, *reference(part)] for part in parts]
        assert list(vocabulary.token_ids(prompt)) == list(itertools.chain(*expected))[1:], prompt
    assert sd2.ids("hi!!") == (*clip.ids("hi"), 0, 0) and clip.ids("hi!!") == (*clip.ids("hi"), 748)
    # transformers on the files: the base and added tokens, and our saved folder
    write_tokenizer(tmp_path / "base", *bpe_tables(sd2)[:2], pad_token="!")
    base = clip_tokenizer_class().from_pretrained(tmp_path / "base")
    base.add_tokens(list(NEW))
    vocabulary.save(tmp_path / "ours")
    saved = clip_tokenizer_class().from_pretrained(tmp_path / "ours")
    assert saved.pad_token == "!" and saved.pad_token_id == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedPromptWarning)
        ids = vocabulary.encode(prompts)
    np.testing.assert_array_equal(padded(base, prompts), ids)
    np.testing.assert_array_equal(padded(saved, prompts), ids)
    assert ids[prompts.index("it's")].tolist()[:4] == [49406, *clip.ids("it's"), 49407]
    assert not ids[prompts.index("it's"), 4:].any()


def cut_of(message: str, room: int = ROOM) -> str:
    found = re.fullmatch(rf"the prompt has \d+ tokens, {room} fit; cut off: (.*)", message)
    assert found, message
    return ast.literal_eval(found[1])


# (words before, the rest of the prompt, what is cut of it); "cat" is one token
CUTS = [
    (75, " dog", "dog"),
    (75, ", dog", ", dog"),
    (74, " dog", ""),
    (74, " dog.", "."),
    (74, "   dog \n\n  bird \n", "bird \n"),
    (74, " Dog\tBIRD's  Nest ", "BIRD's  Nest "),
    (74, " it's", "'s"),
    (74, " hippopotamus", "potamus"),  # "hippo" and "potamus</w>"
    (74, " café crème", "crème"),
    (74, " cafe\u0301 cre\u0300me", "cre\u0300me"),
    (74, " cafe\u0301-cre\u0300me", "-cre\u0300me"),
    (75, " e\u0301te\u0301", "e\u0301te\u0301"),
    (74, " 😀 bird", "bird"),
    (75, " 😀 bird", "😀 bird"),
    (74, " 😀<new1>", "<new1>"),
    (74, " 👧", "👧"),  # two tokens: half an emoji stands for nothing, so it counts as cut
    (74, " <new1>", ""),
    (74, " <new1><new2>", "<new2>"),
    (74, " <new1>.", "."),
    (74, " '<new1>'s", "<new1>'s"),
    (75, " <new1>", "<new1>"),
    (75, "<NEW1>, cat", "<NEW1>, cat"),
    (74, " e\u0301<new1>e\u0301 z", "<new1>e\u0301 z"),
    (74, "\n<new1>\n<new2>\ncat", "<new2>\ncat"),
    (74, " q\u0303 dog", "q\u0303 dog"),  # a mark without its letter reads badly
    (74, " <new1>\u0301", "\u0301"),  # but a placeholder is never halved
    (74, " \u0628\u0651\u064e", "\u0628\u0651\u064e"),  # marks which NFC puts in another order
    (73, " İ <new1>", "<new1>"),  # in lower case İ is two characters and two tokens
    (74, " İ <new1>", "İ <new1>"),
]


@pytest.mark.parametrize("count, rest, cut", CUTS)
def test_the_warning_names_what_is_cut(clip, theirs, reference, count, rest, cut):
    prompt = " ".join(["cat"] * count) + rest
    vocabulary = Vocabulary(clip, NEW)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids = vocabulary.encode(["a cat", prompt])
    assert [cut_of(str(w.message)) for w in caught] == [cut] * bool(cut)
    assert all(w.category is TruncatedPromptWarning and w.filename == __file__ for w in caught)
    assert ids[1].tolist() == [49406, *reference(prompt)[:ROOM], 49407]
    np.testing.assert_array_equal(padded(theirs, [prompt]), ids[1:])


def test_exclamation_marks_of_stable_diffusion_2_are_cut_one_by_one(sd2):
    prompt = " ".join(["cat"] * 74) + "!!"
    with pytest.warns(TruncatedPromptWarning, match="76 tokens, 75 fit; cut off: '!'$"):
        ids = Vocabulary(sd2, NEW).encode([prompt])
    assert ids[0, -3:].tolist() == [2368, 0, 49407]


@pytest.mark.parametrize("kind", [*CORPUS, "placeholders"])
def test_what_is_kept_and_what_is_named_make_up_the_prompt(clip, reference, kind):
    """Every prompt, cut behind each of its tokens."""
    vocabulary = Vocabulary(clip, NEW)
    for prompt in CORPUS.get(kind, PLACED):
        full = reference(prompt)
        for room in range(len(full)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ids = vocabulary.encode([prompt], max_length=room + 2)
            assert ids.tolist() == [[49406, *full[:room], 49407]]
            cut = cut_of(str(caught[0].message), room)
            assert len(caught) == 1 and prompt.endswith(cut)
            lost, named = reference.spelled(full[room:]), reference.clean(cut).replace(" ", "")
            # a letter or emoji of several tokens is named as a whole, even if some of its bytes are kept
            kept = named.encode().removesuffix(lost)
            assert named.encode() == kept + lost, (prompt, cut)
            first = regex.match(r".\p{M}*", unicodedata.normalize("NFC", cut.lstrip()))[0].lower().encode()
            assert first.startswith(kept) and kept != first, (prompt, cut)
