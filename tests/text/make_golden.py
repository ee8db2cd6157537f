#!/usr/bin/env python3
"""Makes tests/data/tokenizers: small tokenizers, and strings with the ids that Hugging Face's libraries give them.

    python3 tests/text/make_golden.py TEXT_FILE

TEXT_FILE is what the byte-level tokenizer is trained on (tiny shakespeare). Needs tokenizers and transformers; made with
tokenizers 0.23.3 and transformers 5.23.0. Everything written is checked in: this script need not run again.
"""

import json
import pathlib
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
OUT = DATA / "tokenizers"

STRINGS = [
    "", " ", "   ", "\n", "a", "Hello, world!", " leading", "trailing ", "two  spaces   three",
    "It's we'll they'd I'M DON'T can't've", "numbers 0 12 345 67890 3.14 1,000", "tabs\tand\r\nlines\n\n\n  indented",
    "naïve café Ångström Straße İstanbul ſ", "e\u0301 versus é, ﬁ ligature, ½ ² Ⅷ ٣", "你好，世界！ こんにちは 한국어",
    "Привет, мир! Γειά σου Κόσμε", "emoji 🙂👩‍👩‍👧 flags 🇩🇪", "\u00a0no-break\u2003em\u180e\u200dzero", "x" * 300,
    "abc" * 40 + " " * 50 + "\n" * 20, "<|im_start|>user\nHi<|im_end|>\n", "a<|im_end|>b <|im_end|> c", "<s>x</s> <unk>",
    "<word>a <word> <word>b a<word>", "left <left> right <right> x", "\x01\x7f\x1f control", "\ufffd replacement",
    "KING HENRY: What, my lord?\nThou art 2 wise.", "__init__(self, **kwargs): return {'a': [1, 2]}",
]


def write_rows(name, rows):
    with open(OUT / name, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


def rows_of(tokenizer):
    rows = []
    for text in STRINGS:
        ids = tokenizer.encode(text).ids
        rows.append({"text": text, "ids": ids, "plain": tokenizer.encode(text, add_special_tokens=False).ids,
                     "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                     "skipped": tokenizer.decode(ids, skip_special_tokens=True)})
    return rows


def pairs_of(tokenizer):
    rows = []
    for first, second in zip(STRINGS[5:12], STRINGS[9:16]):
        encoding = tokenizer.encode(first, second)
        rows.append({"text": first, "pair": second, "ids": encoding.ids, "type_ids": encoding.type_ids})
    return rows


# A ChatML template with a default system prompt, written for these tests.
CHATML = (
    "{%- if messages[0].role != 'system' -%}\n"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}\n"
    "{%- endif -%}\n"
    "{%- for m in messages -%}\n"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def train_bytes(text_file):
    """Byte-level BPE with single digits, special tokens, and added tokens of every kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train([text_file], trainer)
    tokenizer.add_tokens([AddedToken("<word>", single_word=True, normalized=False),
                          AddedToken("<left>", lstrip=True, normalized=False),
                          AddedToken("<right>", rstrip=True, normalized=True)])
    folder = OUT / "bytes"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>",
              "pad_token": {"content": "<|endoftext|>", "special": True}, "model_max_length": int(1e30),
              "clean_up_tokenization_spaces": False, "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return tokenizer


def train_words(text_file):
    """WordPiece as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                        show_progress=False)
    tokenizer.train([text_file], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))])
    folder = OUT / "words"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    return tokenizer


SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")


def variants(base):
    """The trained byte-level model under other settings: only the settings are written, as a patch."""
    def split(behavior, pattern, invert=False, literal=False):
        return {"type": "Split", "pattern": {"String" if literal else "Regex": pattern}, "behavior": behavior,
                "invert": invert}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    bos = {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    patches = {
        "llama3": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("Isolated", SPLIT), level]},
                   "post_processor": {"type": "Sequence", "processors": [
                       {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                       {"type": "TemplateProcessing",
                        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                                   {"Sequence": {"id": "A", "type_id": 0}}],
                        "pair": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                                 {"Sequence": {"id": "A", "type_id": 0}},
                                 {"SpecialToken": {"id": "<|endoftext|>", "type_id": 1}},
                                 {"Sequence": {"id": "B", "type_id": 1}}],
                        "special_tokens": {"<|endoftext|>": bos}}]}},
        "prefix_space": {"pre_tokenizer": {**level, "add_prefix_space": True, "use_regex": True},
                         "post_processor": {"type": "RobertaProcessing", "sep": ["<|im_end|>", 2],
                                            "cls": ["<|im_start|>", 1], "trim_offsets": True,
                                            "add_prefix_space": True}},
        "nfc": {"normalizer": {"type": "NFC"}},
        "nfkd_lower": {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
            {"type": "Strip", "strip_left": True, "strip_right": True}]},
            "post_processor": {"type": "BertProcessing", "sep": ["<|im_end|>", 2], "cls": ["<|im_start|>", 1]}},
        "replace_regex": {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}},
    }
    for behavior in ["Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            patches[f"split_{behavior}_{invert}"] = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                split(behavior, "[aeiou ]", invert), {"type": "Punctuation", "behavior": "MergedWithPrevious"}, level]}}
    patches["metaspace"] = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True},
            split("Isolated", "an", literal=True), level]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True}]}}
    patches["whitespace"] = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, level]}}
    root = json.loads(base.to_str())
    rows = []
    for name, patch in patches.items():
        tokenizer = Tokenizer.from_str(json.dumps({**root, **patch}))
        for row in rows_of(tokenizer):
            rows.append({"variant": name, "text": row["text"], "ids": row["ids"], "decoded": row["decoded"]})
    (OUT / "variants.json").write_text(json.dumps(patches, ensure_ascii=True) + "\n")
    write_rows("variants.jsonl", rows)


# Templates of the known families, each said in our own words but rendering as the family's own does.
TEMPLATES = {
    "ChatML": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "Qwen2": CHATML,
    "SmolLM2": CHATML.replace("You are a helpful assistant.",
                              "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "Qwen2.5": CHATML.replace("You are a helpful assistant.",
                              "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "Qwen1.5": CHATML.replace("You are a helpful assistant.", "You are a helpful assistant"),
    "Qwen3": (
        "{%- set ns = namespace(last_query_index=messages|length - 1, open=true) -%}"
        "{%- for m in messages[::-1] -%}{%- if ns.open and m.role == 'user' -%}"
        "{%- set ns.open = false -%}{%- set ns.last_query_index = messages|length - 1 - loop.index0 -%}"
        "{%- endif -%}{%- endfor -%}"
        "{%- for m in messages -%}{%- set c = namespace(text=m.content, why='') -%}"
        "{%- if m.role == 'assistant' and '</think>' in m.content -%}"
        "{%- set c.why = m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}"
        "{%- set c.text = m.content.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}"
        "{{- '<|im_start|>' + m.role + '\\n' -}}"
        "{%- if m.role == 'assistant' and loop.index0 > ns.last_query_index and (loop.last or c.why) -%}"
        "{{- '<think>\\n' + c.why.strip('\\n') + '\\n</think>\\n\\n' + c.text.lstrip('\\n') -}}"
        "{%- else -%}{{- c.text -}}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"),
    "Llama 3": "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
               "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content|trim + '<|eot_id|>' }}"
               "{% endfor %}{% if add_generation_prompt %}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "Llama 3.1": "{%- if messages[0].role == 'system' -%}{%- set sys = messages[0].content|trim -%}"
                 "{%- set rest = messages[1:] -%}{%- else -%}{%- set sys = '' -%}{%- set rest = messages -%}{%- endif -%}"
                 "{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}"
                 "{{- 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' + sys + '<|eot_id|>' -}}"
                 "{%- for m in rest -%}"
                 "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content|trim + '<|eot_id|>' -}}"
                 "{%- endfor -%}{%- if add_generation_prompt -%}"
                 "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}",
    "Llama 2": "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}"
               "{% endif %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
               "{{ raise_exception('roles must alternate') }}{% endif %}"
               "{% if loop.first and messages[0].role == 'system' %}"
               "{% set content = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' + m.content %}"
               "{% else %}{% set content = m.content %}{% endif %}"
               "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
               "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "Mistral 0.1": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
                   "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
                   "{{ message['content'] + eos_token + ' ' }}"
                   "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
    "Mistral 0.2": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
                   "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
                   "{{ message['content'] + eos_token }}"
                   "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
    "Zephyr": "{% for m in messages %}\n{% if m.role == 'user' %}\n{{ '<|user|>\\n' + m.content + eos_token }}\n"
              "{% elif m.role == 'system' %}\n{{ '<|system|>\\n' + m.content + eos_token }}\n"
              "{% elif m.role == 'assistant' %}\n{{ '<|assistant|>\\n' + m.content + eos_token }}\n{% endif %}\n"
              "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "Gemma": "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
             "{% endif %}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
             "{{ '<start_of_turn>' + role + '\\n' + m.content|trim + '<end_of_turn>\\n' }}{% endfor %}"
             "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
}
CONVERSATIONS = [
    [("user", "Hello")],
    [("user", " Hello \n"), ("assistant", " Hi there! "), ("user", "Who are you?"), ("assistant", "A test.\n")],
    [("system", "Be brief.\n"), ("user", "\tWhat is 2+2? "), ("assistant", "4"), ("user", "Sure?")],
    [("user", "Why?"), ("assistant", "<think>\nBecause.\n</think>\n\nSo."), ("user", "Really?"),
     ("assistant", "<think>\nHm.\n</think>\n\nYes.")],
]


def chats(tokenizer):
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    rows = []
    for name, template in TEMPLATES.items():
        for turns in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            for prompt in [False, True]:
                try:
                    text = fast.apply_chat_template(messages, chat_template=template, tokenize=False,
                                                    add_generation_prompt=prompt)
                except Exception:  # a template that refuses: so must the library
                    text = None
                rows.append({"family": name, "template": template, "messages": messages, "prompt": prompt, "text": text})
    write_rows("chats.jsonl", rows)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    stories = Tokenizer.from_file(str(DATA / "models" / "stories260k" / "tokenizer.json"))
    write_rows("stories260k.jsonl", rows_of(stories))
    byte_level = train_bytes(sys.argv[1])
    write_rows("bytes.jsonl", rows_of(byte_level))
    words = train_words(sys.argv[1])
    write_rows("words.jsonl", rows_of(words))
    write_rows("words_pairs.jsonl", pairs_of(words))
    variants(byte_level)
    chats(byte_level)


if __name__ == "__main__":
    main()
