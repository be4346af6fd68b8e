"""Makes small tokenizers of every kind and records what the tokenizers library does with them.

    python tools/oracle/record_tokenizers.py          (in the oracle environment)

Writes to tests/data/tokenizers/: strings.json (the texts), and for each kind KIND.tokenizer.json (the
reference), KIND.vocab.json (the same vocabulary as a GGUF file carries it) and KIND.ids.json. Ids and
decoded texts are stored in full for the first ones and as FNV-1a hashes for all.

No model can be had here, so the vocabularies are trained on a text that is made up; the steps around
them (normalizer, pre-tokenizer pattern, decoder, flags) are those of the model families.
"""

import io
import json
import pathlib
import random
import sys

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers
from transformers.tokenization_utils_base import generate_merges

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "tokenizers"
VERSIONS = {
    "tokenizers": tokenizers.__version__,
    "transformers": transformers.__version__,
    "sentencepiece": sentencepiece.__version__,
}
N_FULL = 150
VOCAB_SIZE = 1400

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# (content, special): in the text these are found before anything else.
CHAT_TOKENS = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<think>", False)]
LLAMA_TOKENS = [("<|begin_of_text|>", True), ("<|end_of_text|>", True), ("<|eot_id|>", True)]
MISTRAL_TOKENS = [("<unk>", True), ("<s>", True), ("</s>", True), ("[INST]", True), ("[/INST]", True)]

WORDS = (
    "the of and to in is that it was for on are with as his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if do will each about how up out them "
    "then she many some so these would other into has more her two like him see time could no make than "
    "first been its who now people my made over did down only way find use may water long little very "
    "after words called just where most know tokenization transformer attention temperature probability "
    "don't can't I'm you're we've he'll she'd it's THE HELLO World CamelCase snake_case HTTPServer iPhone"
).split()
SCRIPTS = [
    "der schnelle braune Fuchs springt über den faulen Hund Straße Größe Äpfel",
    "le garçon a mangé l'été où naïve façade cœur",
    "быстрая коричневая лиса перепрыгивает через ленивую собаку",
    "γρήγορη καφέ αλεπού πηδάει πάνω από το σκύλο",
    "你好世界 机器学习 自然语言处理 今天天气很好 我们去公园吧",
    "こんにちは世界 私は学生です カタカナ ひらがな 漢字",
    "안녕하세요 세계 오늘 날씨가 좋네요",
    "مرحبا بالعالم كيف حالك اليوم السلام عليكم",
    "שלום עולם מה שלומך היום",
    "नमस्ते दुनिया आप कैसे हैं हिन्दी भाषा",
    "สวัสดีชาวโลก วันนี้อากาศดี",
    "வணக்கம் உலகம்",
    "xin chào thế giới tiếng Việt đẹp quá",
    "Zażółć gęślą jaźń İstanbul ığüşöç",
]
CODE = [
    "def f(x):\n    return x + 1\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\n}\n",
    "if (x == NULL && y != 0x1F) { printf(\"%d\\n\", x); }",
    "SELECT * FROM users WHERE id = 42 AND name LIKE '%foo%';",
    "<div class=\"a b\">text &amp; more</div>",
    "https://example.org/path?q=1&r=%20#frag",
    "{\"key\": [1, 2.5e-3, null, true], \"nested\": {\"a\": \"b\"}}",
    "lambda *args, **kwargs: {k: v for k, v in kwargs.items() if v is not None}",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️", "🏳️‍🌈", "✈️", "1️⃣", "👨🏿‍🚀", "🫠"]
MARKS = ["e\u0301", "n\u0303", "a\u0308\u0323", "Z\u0351\u036b\u0343", "ﬁ", "Å", "\u212b", "q\u0307\u0323", "\u1e9b\u0323"]
CONTROLS = [chr(c) for c in range(0x20)] + [
    "\x7f", "\x80", "\x85", "\u00a0", "\u00ad", "\u2028", "\u2029", "\u200b", "\u200d", "\u200e", "\ufeff",
    "\u3000", "\u2009", "\ufffd", "\ufffe", "\U0010ffff", "\ue000",
]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", " \n", "\r\n", "\n \n", "        "]
ALL_SPECIALS = [token for token, _ in CHAT_TOKENS + LLAMA_TOKENS + MISTRAL_TOKENS] + [
    "<0x0A>", "\u2581", "\u0120", "<|tool|>", "<s", "|im_end|>",
]


def make_strings():
    """2,300 texts, the same on every run."""
    rng = random.Random(20260101)
    strings = ["", " ", "  ", "\n", "\t", "a", " a", "a ", "A", "0", "Hello", "Hello world", " Hello  world ",
               "\u2581", "\u2581\u2581a", "hello\u2581world", "\x00", "a\x00b", "....", "'s", "'S 'LL 'Ve", "don\u2019t"]
    strings += CODE + EMOJI + MARKS + CONTROLS + SCRIPTS + ALL_SPECIALS
    strings += ["".join(EMOJI), "".join(MARKS), "".join(CONTROLS), " ".join(WORDS)]
    strings += [str(10 ** n + n) for n in range(12)] + ["1,234,567.89", "3.14159", "1e-10", "٣٤٥", "四二", "½ ² Ⅷ ೨"]
    strings += ["a" * n for n in (50, 500, 3000)] + ["ab" * 700, "x1" * 300, "猫" * 400, " " * 300, "\n" * 200, "ñ" * 300]
    script_words = [word for line in SCRIPTS for word in line.split()]

    def piece():
        kind = rng.randrange(12)
        if kind < 4:
            word = rng.choice(WORDS)
            return rng.choice([word, word.upper(), word.capitalize(), word + rng.choice(".,;:!?")])
        if kind < 6:
            return rng.choice(script_words)
        if kind == 6:
            return str(rng.randrange(10 ** rng.randrange(1, 9)))
        if kind == 7:
            return rng.choice(EMOJI + MARKS)
        if kind == 8:
            return rng.choice(CODE)[: rng.randrange(1, 30)]
        if kind == 9:
            return rng.choice(ALL_SPECIALS)
        if kind == 10:
            return rng.choice(CONTROLS)
        length = rng.randrange(1, 12)
        planes = [(0x20, 0x7f), (0xa0, 0x24f), (0x370, 0x5ff), (0x900, 0xdff), (0x3040, 0x30ff),
                  (0x4e00, 0x9fff), (0x1f300, 0x1faff), (0x300, 0x36f), (0x10000, 0x100ff)]
        low, high = rng.choice(planes)
        return "".join(chr(rng.randrange(low, high)) for _ in range(length))

    while len(strings) < 2300:
        parts = []
        for _ in range(rng.randrange(1, 9)):
            parts.append(piece())
            if rng.random() < 0.75:
                parts.append(rng.choice(SPACES) if rng.random() < 0.3 else " ")
        strings.append("".join(parts))
    return strings


def make_corpus():
    rng = random.Random(7)
    lines = []
    for _ in range(3000):
        lines.append(" ".join(rng.choice(WORDS) for _ in range(rng.randrange(3, 12))))
    for _ in range(40):
        lines += SCRIPTS + CODE
        lines.append("".join(EMOJI) + " " + str(rng.randrange(10 ** 8)))
    return lines


def train_byte_level(steps, special_tokens, nfc=False, ignore_merges=False, bos=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[token for token, _ in special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(make_corpus(), trainer)
    content = json.loads(tokenizer.to_str())
    is_special = dict(special_tokens)
    for token in content["added_tokens"]:
        token["special"] = is_special[token["content"]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def digits():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])


def byte_level_vocab(tokenizer, pre, special_tokens, bos=None, eos=None):
    """The vocabulary as a GGUF file has it."""
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    tokens = [token for token, _ in sorted(vocab.items(), key=lambda item: item[1])]
    is_special = dict(special_tokens)
    types = [1 if token not in is_special else 3 if is_special[token] else 4 for token in tokens]
    return {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_types": types,
        "merges": [" ".join(merge) for merge in content["model"]["merges"]],
        "bos_id": vocab.get(bos), "eos_id": vocab.get(eos),
    }


def sentence_piece(add_space_prefix):
    """A SentencePiece BPE model, and the tokenizer that transformers' conversion makes of it."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(make_corpus()), model_writer=out, model_type="bpe", vocab_size=VOCAB_SIZE,
        byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=True,
        user_defined_symbols=["<|tool|>"], control_symbols=["[INST]", "[/INST]"], minloglevel=2,
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(out.getvalue())
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    vocab = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    scores = {piece: score for piece, score, _ in pieces}
    skip = [piece for piece, _, kind in pieces if kind in (2, 3, 6)]
    merges = generate_merges(vocab, scores, skip_tokens=skip)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("\u2581"), replace]) if add_space_prefix else replace
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if add_space_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    added = [(piece, kind) for piece, _, kind in pieces if kind in (2, 3, 4)]
    for piece, kind in added:
        tokenizer.add_tokens([AddedToken(piece, normalized=False, special=kind != 4)])
    bos = vocab["<s>"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", bos)]
    )
    gguf = {
        "model": "llama", "pre": "default", "tokens": [piece for piece, _, _ in pieces],
        "token_types": [kind for _, _, kind in pieces], "scores": [score for _, score, _ in pieces],
        "merges": [], "bos_id": bos, "eos_id": vocab["</s>"], "unk_id": vocab["<unk>"],
        "add_space_prefix": add_space_prefix,
    }
    processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    return tokenizer, gguf, processor


def make_kinds():
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    kinds = {}

    def add(name, pre, steps, special_tokens, bos=None, eos=None, **flags):
        tokenizer = train_byte_level(steps, special_tokens, bos=bos if flags.pop("adds_bos", False) else None, **flags)
        kinds[name] = (tokenizer, byte_level_vocab(tokenizer, pre, special_tokens, bos, eos))

    add("smollm", "smollm", digits(), CHAT_TOKENS, bos="<|im_start|>", eos="<|im_end|>")
    add("gpt2", "gpt-2", plain, [("<|endoftext|>", True)], bos="<|endoftext|>", eos="<|endoftext|>")
    add("llama3", "llama-bpe", split(LLAMA3), LLAMA_TOKENS, bos="<|begin_of_text|>", eos="<|eot_id|>",
        ignore_merges=True, adds_bos=True)
    add("qwen2", "qwen2", split(QWEN2), CHAT_TOKENS, eos="<|im_end|>", nfc=True)
    add("qwen35", "qwen35", split(QWEN35), CHAT_TOKENS, eos="<|im_end|>", nfc=True)
    add("tekken", "tekken", split(TEKKEN), MISTRAL_TOKENS, bos="<s>", eos="</s>", ignore_merges=True, adds_bos=True)
    for name, prefix in (("spm", True), ("spm_no_prefix", False)):
        tokenizer, gguf, processor = sentence_piece(prefix)
        kinds[name] = (tokenizer, gguf)
        if prefix:
            report_sentence_piece(tokenizer, processor)
    return kinds


def report_sentence_piece(tokenizer, processor):
    """SentencePiece itself is not the reference, but the conversion should rarely differ from it."""
    texts = [text for text in make_strings() if "<" not in text and "[" not in text and "\x00" not in text]
    same = sum(tokenizer.encode(text, add_special_tokens=False).ids == processor.encode(text) for text in texts)
    print(f"spm: {same} of {len(texts)} texts as SentencePiece itself encodes them")


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def hash_ids(ids):
    return fnv1a(b"".join(index.to_bytes(4, "little") for index in ids))


def hash_text(text):
    return fnv1a(text.encode("utf-8"))


def random_ids(size):
    """Sequences that no text encodes to: half characters, specials in the middle, unknown ids."""
    rng = random.Random(size)
    low = [rng.sample(range(size), 1) for _ in range(20)]
    rows = [[rng.randrange(min(300, size)) if rng.random() < 0.6 else rng.randrange(size + 3)
             for _ in range(rng.randrange(1, 40))] for _ in range(400)]
    return low + rows


def record(tokenizer, strings):
    def encode_all(add_special_tokens, literal):
        tokenizer.encode_special_tokens = literal
        return [tokenizer.encode(text, add_special_tokens=add_special_tokens).ids for text in strings]

    def decode_all(rows, skip):
        return [tokenizer.decode(row, skip_special_tokens=skip) for row in rows]

    parsed, literal = encode_all(True, False), encode_all(False, True)
    tokenizer.encode_special_tokens = False
    rows = random_ids(tokenizer.get_vocab_size())
    bad_bytes = [b"\xff", b"a\xc3", b"\xe4\xb8", b"a\xf0\x9f\x98b\xed\xa0\x80c", b"\xc0\xaf \xfe\xff", b"ok\x80\x80\xe2\x82"]
    texts = {skip: decode_all(parsed, skip) for skip in (False, True)}
    random_texts = {skip: decode_all(rows, skip) for skip in (False, True)}
    return {
        "ids": parsed[:N_FULL],
        "hashes": [hash_ids(ids) for ids in parsed],
        "literal_ids": literal[:N_FULL],
        "literal_hashes": [hash_ids(ids) for ids in literal],
        "decoded_hashes": [hash_text(text) for text in texts[False]],
        "decoded_skip_hashes": [hash_text(text) for text in texts[True]],
        "random_ids": rows,
        "random_texts": random_texts[False][:N_FULL],
        "random_hashes": [hash_text(text) for text in random_texts[False]],
        "random_skip_hashes": [hash_text(text) for text in random_texts[True]],
        "replaced": [
            {"hex": data.hex(), "ids": tokenizer.encode(data.decode("utf-8", errors="replace")).ids}
            for data in bad_bytes
        ],
    }


def write(name, content):
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / name).write_text(text + "\n", encoding="utf-8")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    strings = make_strings()
    write("strings.json", {"versions": VERSIONS, "strings": strings})
    for name, (tokenizer, gguf) in make_kinds().items():
        write(f"{name}.tokenizer.json", json.loads(tokenizer.to_str()))
        write(f"{name}.vocab.json", gguf)
        recorded = record(tokenizer, strings)
        write(f"{name}.ids.json", recorded)
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(recorded['hashes'])} strings")


if __name__ == "__main__":
    sys.exit(main())
