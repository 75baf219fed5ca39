"""make_text_goldens.py - writes tests/golden/text.jsonl and text_vectors.safetensors: the results of the reference
tokenizers and the reference BERT for some hundred texts.

    $(tests/golden/venv.sh) tests/golden/make_text_goldens.py CACHE_DIR      # CACHE_DIR of deploy/fetch-models.sh

text.jsonl: per line {"text", "clip": ids of open_clip's SimpleTokenizer cut to 77, "hf": ids of Hugging Face's CLIP
tokenizer cut to 77, "bert": ids of Hugging Face's BERT tokenizer cut to 512}. text_vectors.safetensors: pooler, cls, mean
[24, 384] f32, unit rows computed in float64, of the first 24 texts cut to 256 tokens. tests/golden/test_text.c compares.

Not here, because we differ on purpose (common/data/text_repair.h): damage through code pages other than Latin-1 and
Windows-1252, sound and damaged words of one language in one line, and damaged Armenian (which we repair). Random characters are those whose category has been
the same since Unicode 3.2, because the libraries' tables are of different years.
"""
import gzip
import html
import json
import os
import random
import sys
import unicodedata
import warnings

import numpy as np
import torch
from safetensors.numpy import save_file

warnings.filterwarnings("ignore")
random.seed(20240424)

captions = """a photo of a cat
A black-and-white picture of two dogs, playing in the snow.
an aerial view of San Francisco's Golden Gate Bridge at sunset
Red Nike running shoes - size 10.5 (men's), $49.99
IMG_20190412_153022.jpg
the quick brown fox jumps over the lazy dog
"I can't believe it's not butter!", she said; they'll've gone.
portrait of a woman wearing a hat
3D rendering of a modern kitchen | 4K wallpaper #interior @home
Man's best friend: 101 Dalmatians (1996) DVD-RIP x264
screenshot of http://www.example.com/index.php?id=42&lang=en
e = mc^2; 50% off!!! ~100 items_left [sold] {new} <tag> \\o/
supercalifragilisticexpialidocious antidisestablishmentarianism
""".splitlines()
languages = """Der Straßenbahnfahrer überquert die Brücke
un café à la crème brûlée, s'il vous plaît
niño en la playa de España, año 2019
Привет, как дела? Кошка на столе
猫がテーブルの上に座っている
一只猫坐在桌子上的照片
고양이 사진
صورة قطة على الطاولة
תמונה של חתול
γάτα στο τραπέζι ΟΔΥΣΣΕΥΣ Σ.
बिल्ली की तस्वीर
Việt Nam phở bò
İstanbul'da güzel bir gün
Zażółć gęślą jaźń
Příliš žluťoučký kůň úpěl ďábelské ódy
naïve façade résumé
🐱🐶 so cute!!! 😍
สวัสดี แมว
ქართული კატა
Հայերեն
""".splitlines()
oddities = [
    "👨‍👩‍👧‍👦 family 🇩🇪🏴󠁧󠁢󠁷󠁬󠁳󠁿", "ＦＵＬＬ　ＷＩＤＴＨ　ｔｅｘｔ", "ﾊﾝｶｸ ｶﾀｶﾅ ﾎﾟﾝ", "ﬁrst ofﬁce ﬂoor ﬀ ﬃ ﬄ ﬆ", "“curly” ‘quotes’ „low“ «guillemets» ʼn ‛x‟",
    "price: £5 – €10 — ¥200 ¢50", "x² + y³ = ½ ¼ ∑∞ ≤≥", "temperature 20°C ±5%", "© 2020 ® ™ § ¶ • …", "dash–dash—dash…",
    "ⅷ Ⅳ ① ②", "a\u0301e\u0301 combining q\u0323\u0307", "\u200bzero\u200dwidth\ufeff", "tab\tsep\u00a0nbsp\u2003em", "can't won't I'LL she'd 'tis o'clock they've I'm",
    "ǅ Ǆ ĳ ŉ ǈ", "ſtrange ſ'ſ", "K Å Ω", "Ünïcödé ÀÉÎÕÜ", "S\u00c3O PAULO MA\u00c7\u00c3", "CAFÉ»", "Spaß“ und groß”", "ROSÉ’s", "Úžasný NEMÔŽE NÍŽE", "élevé… «à»",
    "a<b & c>d &amp; &lt;tag&gt;", "<p>Hello &nbsp; world &rsquo;</p>", "&#39;quoted&#39; &#x2019; &hellip; &copy2020 &notit; &EACUTE;", "&amp;amp;lt;b&amp;gt; &#146; &#1; &#0;",
    "AT&T R&D &; &#; &#x; &nosuch;", "[CLS] text [SEP] [MASK] [UNK] [mask]", "<start_of_text> x <END_OF_TEXT> <|endoftext|>", "hello_world foo-bar.baz@example.com",
    "a\x00b\x07c\x1b[31mred\x1b[0m\x7f", "line\u2028sep\u2029par\x85next\rcarriage", "\x93smart\x94 \x96 C1", "\ufffd replacement \ufffd", "", " ", "!", "'s", "'", "a" * 101, "x" * 600,
    " ".join(captions * 2), "2" * 120, "\U00020000\U0002a6d6\uf900", "Ã la carte", "voilÃ  le travail", "â€œ like this â€�", "itâ€™s Â£5 Ã©tÃ©", "P&EACUTE;REZ &SZLIG; &nTILDE;",
]


def damaged(text, encoding):
    return "".join(bytes([b]).decode(encoding, "replace").replace("\ufffd", chr(b)) for b in text.encode())


def stable(c):
    category = unicodedata.ucd_3_2_0.category(c)
    return category == unicodedata.category(c) and category not in ("Cn", "Cs", "Co") and unicodedata.ucd_3_2_0.decomposition(c) == unicodedata.decomposition(c)


def noise():
    blocks = [(0x20, 0x7E)] * 5 + [(0xA0, 0xBF), (0x100, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939), (0xE01, 0xE30),
                                   (0x1E00, 0x1EF9), (0x2010, 0x2027), (0x2190, 0x22FF), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF01, 0xFFEE), (0x1D400, 0x1D7FF)]
    out = ""
    for _ in range(random.randint(1, 5)):
        low, high = random.choice(blocks)
        chars = [chr(random.randint(low, high)) for _ in range(random.randint(1, 7))]
        out += "".join(c for c in chars if stable(c)) + random.choice(["", " "])
    return out


texts = captions[:12] + languages[:11] + [oddities[0]] + captions[12:] + languages[11:] + oddities[1:]
for s in languages[:19]:
    texts += [damaged(s, "latin-1"), damaged(s, "cp1252")]
texts += [damaged(damaged(s, "cp1252"), "cp1252") for s in languages[:3] + languages[12:16]]
texts += ["Photo: " + damaged(s, "cp1252") for s in languages[:4]]
texts += [html.escape(s) + tail for s, tail in zip(captions + languages, [" &eacute;", "&#8217;s", " &rsquo;", " &mdash; x", " &amp;amp;"] * 9)]
texts += [noise() for _ in range(180)]

cache = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))

from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode  # noqa: E402
from transformers import AutoModel, AutoTokenizer, CLIPTokenizer  # noqa: E402

clip = SimpleTokenizer(os.path.join(cache, "bpe_simple_vocab_16e6.txt.gz"))
with gzip.open(os.path.join(cache, "bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as f:
    merges = [tuple(line.split()) for line in f.read().split("\n")[1:48895]]
symbols = list(bytes_to_unicode().values())
symbols += [s + "</w>" for s in symbols] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
hf = CLIPTokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=merges)
bert = AutoTokenizer.from_pretrained(os.path.join(cache, "encoder"))


def clip_ids(text):
    ids = [49406] + clip.encode(text) + [49407]
    return ids if len(ids) <= 77 else ids[:76] + [49407]


with open(os.path.join(here, "text.jsonl"), "w", encoding="utf-8", newline="\n") as f:
    for text in texts:
        row = {"text": text, "clip": clip_ids(text), "hf": hf(text, truncation=True, max_length=77)["input_ids"],
               "bert": bert(text, truncation=True, max_length=512)["input_ids"]}
        f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")

model = AutoModel.from_pretrained(os.path.join(cache, "encoder")).double().eval()
vectors = {"pooler": [], "cls": [], "mean": []}
with torch.no_grad():
    for text in texts[:24]:
        out = model(**bert(text, truncation=True, max_length=256, return_tensors="pt"))
        vectors["pooler"].append(out.pooler_output[0])
        vectors["cls"].append(out.last_hidden_state[0, 0])
        vectors["mean"].append(out.last_hidden_state[0].mean(0))
save_file({k: np.stack([(v / v.norm()).float().numpy() for v in vs]) for k, vs in vectors.items()},
          os.path.join(here, "text_vectors.safetensors"))
print(len(texts), "texts")
