"""Writes a small random Llama checkpoint with a real tokenizer, for tests that want noise.

In: a folder and a seed. Out: config.json, model.safetensors, tokenizer.json and their companions, the same bytes each
time. The answers are noise, but varied noise: words of several languages and characters of several tokens, that now and
then come to an end. Weights need numpy only; the tokenizer is trained with `tokenizers`.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

VOCAB_SIZE = 1280
HIDDEN, LAYERS, HEADS, KV_HEADS, MLP = 64, 2, 4, 2, 160
CONTEXT = 2048
END_GAIN = 1.12  # length of the end token's embedding, others have 1: longer = shorter answers
SPECIAL_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% elif message['content'] %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

_SUBJECTS = ("The engine", "A small model", "My neighbour", "The old teacher", "Nobody", "Every student", "The weather",
             "Our garden", "The server", "An answer", "The river", "Her brother", "This question", "The last train")
_VERBS = ("waits for", "reads", "remembers", "does not know", "follows", "would like", "has found", "writes about",
          "comes before", "asks for", "looks at", "is made of", "never forgets", "helps with")
_OBJECTS = ("a long letter", "the second station", "seven green apples", "bread and water", "the open window",
            "another token", "some good news", "the capital of France", "a number between one and ten",
            "the beginning of the story", "music in the evening", "what you said yesterday", "a cup of tea",
            "the answer")
_WORDS = (
    "about above across act active actually add afraid after again age ago agree air all alone along already always "
    "am among amount animal any appear apply area arm army around arrive art ask attack aunt autumn away baby back "
    "bad bag ball bank base basket bath be bean bear beautiful bed bedroom beer behave before begin behind bell "
    "below besides best better between big bird birth bit bite black bleed block blood blow blue board boat body "
    "bone book border born borrow both bottle bottom bowl box boy branch brave break breakfast breathe bridge "
    "bright bring brown brush build burn business bus busy but buy by cake call can candle cap car card care "
    "careful carry case castle cat catch cause celebrate cent central century certain chair chance change cheap "
    "cheese chicken child choice choose circle city class clean clear climb clock cloth cloud coat coffee cold "
    "collect colour comb comfortable common compare complete computer condition contain continue control cook cool "
    "copper corn corner correct cost could count country course cover crash cross cry cup cut dance danger dark "
    "daughter day dead decide deep deer depend desk destroy develop die different difficult dinner direction dirty "
    "discover dish do dog door double down draw dream dress drink drive drop dry duck dust duty each ear early earn "
    "earth east easy eat education effect egg eight either electric elephant else empty end enemy enjoy enough "
    "enter equal entrance escape even event ever everyone exact examination example except excited exercise expect "
    "expensive explain extremely eye face fact fail fall false family famous far farm father fast fault fear feed "
    "feel female fever few fight fill film find fine finger finish fire first fish fit five fix flag flat float "
    "floor flour flower fly fold food fool foot football force foreign forest forgive fork form four free freedom "
    "freeze fresh friend friendly from front fruit full fun funny furniture further future game general gentle get "
    "gift give glad glass go goat gold goodbye grass great green ground group grow gun hair half hall hammer hand "
    "happen happy hard hat hate head healthy"
)
_SENTENCES = (
    "Das Wetter ist heute schön, aber morgen könnte es größere Stürme geben.",
    "Ich hätte gern eine Tasse Kaffee, bitte.",
    "Der Zug nach München fährt um acht Uhr früh.", "Où est la bibliothèque, s'il vous plaît ?",
    "L'été dernier, nous avons mangé des crêpes près de la forêt.", "Ça va très bien, merci ; et toi ?",
    "今日はとても良い天気ですね。", "東京は日本の首都です。",
    "こんにちは、世界！元気ですか？", "猫が好きです。犬も好きです。",
    "Well done! 👍🎉", "I love it ❤️ 😀 😂", "A family 👨‍👩‍👧 and a flag 🇫🇷", "naïve café, smörgåsbord, ¿qué tal?",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}', "def add(a, b):\n    return a + b\n",
    "<b>bold</b> & 100% of $3.50 = 3,50 €",
    "1 2 3 4 5 6 7 8 9 10", "0.25 + 0.5 = 0.75", "https://example.com/index.html",
)


def ensure(cache_dir: Path | None = None) -> Path:
    """The folder of the checkpoint, made on first use in `cache_dir` (default: the user's cache). Safe to race."""
    base = cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openai_bls"
    folder = base / f"tiny-random-{VOCAB_SIZE}-{HIDDEN}x{LAYERS}"
    if not (folder / "config.json").exists():
        base.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=base))
        try:
            make(draft)
            draft.chmod(0o755)  # mkdtemp makes it private
            draft.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def make(folder: Path, seed: int = 0) -> None:
    """Writes the checkpoint into a folder, which may exist. A different seed makes different weights."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder)
    bos, eos = ids["<|begin_of_text|>"], [ids["<|eot_id|>"], ids["<|end_of_text|>"]]
    _write_safetensors(folder / "model.safetensors", _weights(seed, list(ids.values()), ids["<|eot_id|>"]))
    _write_json(folder / "generation_config.json", {
        "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": ids["<|pad|>"],
    })
    _write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16",
        "vocab_size": VOCAB_SIZE, "max_position_embeddings": CONTEXT, "tie_word_embeddings": True,
        "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HIDDEN // HEADS, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": ids["<|pad|>"],
    })


def _weights(seed: int, specials: list[int], end: int) -> dict[str, np.ndarray]:
    """FP16 tensors. Small embeddings and large layers: otherwise tied weights just repeat the last token."""
    random = np.random.Generator(np.random.PCG64(seed))

    def matrix(rows: int, columns: int, gain: float) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float16)

    embedding = matrix(VOCAB_SIZE, HIDDEN, 1.0)
    embedding[specials] *= 0.05  # special tokens never come out ...
    embedding[end] = matrix(1, HIDDEN, END_GAIN)[0]  # ... but the end of the turn does, at times
    tensors = {"model.embed_tokens.weight": embedding, "model.norm.weight": np.full(HIDDEN, 1.0, np.float16)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, rows, columns, gain in (
            ("self_attn.q_proj", HIDDEN, HIDDEN, 2.0), ("self_attn.k_proj", KV_HEADS * HIDDEN // HEADS, HIDDEN, 2.0),
            ("self_attn.v_proj", KV_HEADS * HIDDEN // HEADS, HIDDEN, 2.0), ("self_attn.o_proj", HIDDEN, HIDDEN, 2.0),
            ("mlp.gate_proj", MLP, HIDDEN, 2.0), ("mlp.up_proj", MLP, HIDDEN, 2.0), ("mlp.down_proj", HIDDEN, MLP, 2.0),
        ):
            tensors[f"{prefix}{name}.weight"] = matrix(rows, columns, gain)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = np.ones(HIDDEN, np.float16)
    return tensors


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values()))


def _write_tokenizer(folder: Path) -> dict[str, Any]:
    """tokenizer.json and tokenizer_config.json; the ids of the special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    plain = VOCAB_SIZE - len(SPECIAL_TOKENS)
    tokenizer.train_from_iterator(_text(), trainers.BpeTrainer(
        vocab_size=plain, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    bos = SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, ids[bos])])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos, "eos_token": "<|eot_id|>", "pad_token": "<|pad|>",
        "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
        "model_input_names": ["input_ids", "attention_mask"],
    })
    return ids


def _text() -> list[str]:
    """Every subject with every verb, objects in turn; the other sentences several times, so that they get merges."""
    english = [f"{subject} {verb} {_OBJECTS[(i * 5 + j * 3) % len(_OBJECTS)]}."
               for i, subject in enumerate(_SUBJECTS) for j, verb in enumerate(_VERBS)]
    return english + list(_SENTENCES) * 4 + [_WORDS] * 2


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
