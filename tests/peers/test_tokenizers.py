"""Token ids of whole files against the tokenizers library."""

import os
import pathlib

import pytest
from conftest import MODELS, TEXT
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

# Beside the play: what pre-tokenizers and normalizers disagree on.
HARD = (
    "\n".join(
        [
            "",
            " ",
            "   leading and trailing   ",
            "tabs\tand\u00a0no-break",
            "I'm you're WE'LL they'd DON'T can't've",
            "1 12 123 1234 3.14159 2,000,000",
            "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m stra\u00dfe",
            "\u65e5\u672c\u8a9e\u3068\u4e2d\u6587 mixed in",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
            "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea",
            "snake_case camelCase kebab-case foo::bar(baz)[0] != a<<=3;",
            "...!!!???---",
            "\u201cquotes\u201d \u2018single\u2019 \u2014 \u2026",
            "<s> </s> <unk> [CLS] [SEP] <|endoftext|>",
            "zero\u200bwidth \ufeff bom",
            "x" * 300,
        ]
    )
    + "\n"
)


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer, trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )


def byte_level_digits():
    tokenizer, trainer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer, trainer


def byte_level_split():
    tokenizer, trainer = byte_level()
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer, trainer


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=1500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )


KINDS = {"byte-level": byte_level, "digits": byte_level_digits, "split": byte_level_split, "word-piece": word_piece}


def program_ids(lorikeet, model, file, *options):
    output = lorikeet("tokenize", "--model", model, "--no-special", "--file", file, *options)
    return [[int(i) for i in line.split()] for line in output.split("\n")[:-1]]


def check(lorikeet, folder, tmp_path):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    hard = tmp_path / "hard.txt"
    hard.write_text(HARD, encoding="utf-8")
    for file in (hard, TEXT):
        text = file.read_text(encoding="utf-8")
        assert program_ids(lorikeet, folder, file) == [encode(text)], f"{file.name} as a whole"
        found = program_ids(lorikeet, folder, file, "--lines")
        lines = text.split("\n")[:-1]
        assert len(found) == len(lines)
        for number, (line, ids) in enumerate(zip(lines, found), 1):
            assert ids == encode(line), f"{file.name}:{number}: {line!r}"


def test_stories260k(lorikeet, tmp_path):
    check(lorikeet, MODELS / "stories260k", tmp_path)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_trained_here(lorikeet, tmp_path, kind):
    tokenizer, trainer = KINDS[kind]()
    tokenizer.train_from_iterator([TEXT.read_text(encoding="utf-8")[:200000]], trainer)
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    check(lorikeet, folder, tmp_path)


@pytest.mark.parametrize("folder", [f for f in os.environ.get("LK_TOKENIZERS", "").split(":") if f])
def test_named_in_the_environment(lorikeet, tmp_path, folder):
    check(lorikeet, pathlib.Path(folder), tmp_path)
