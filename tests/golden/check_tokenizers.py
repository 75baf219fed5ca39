"""check_tokenizers.py - `mode tokenize` against the Python originals, line by line, on some hundred thousand lines.

    $(tests/golden/venv.sh) tests/golden/check_tokenizers.py build/bin/mode CACHE_DIR [--only CLASS,...] [--differences FILE]
        [--write tests/golden/tokens.jsonl]

CACHE_DIR of deploy/fetch-models.sh. The lines are generated, always the same on the same machine: from the translations
(*.mo) of Debian's packages, CLDR's names of emoji if the demo has fetched them, the names in Python's unicodedata, and
by rules. Compared are
    clip            open_clip's SimpleTokenizer (with ftfy)
    clip-hf         transformers' CLIPTokenizerFast, built from the merges file
    uncased/cased   transformers' BertTokenizerFast from vocab.txt
    ...-json        tokenizers' Tokenizer from tokenizer.json, uncased and cased
Bytes that are not UTF-8 go to ours as they are and to the originals as Python's decode(errors="replace") reads them.
Prints the share of lines with equal ids per class; exit 1 when a share is lower than promised: 1 for all but clip,
0.9999 for clip.
"""
import argparse
import gettext
import glob
import gzip
import html.entities
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings

warnings.filterwarnings("ignore")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

CONTEXT = 2048
DAMAGE = ["latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257", "iso-8859-2", "macroman", "cp437", "cp850",
          "koi8-r", "cp1255"]
# language -> its script, for the report; every other translation counts as Latin
SCRIPTS = {"ru": "Cyrillic", "uk": "Cyrillic", "bg": "Cyrillic", "sr": "Cyrillic", "kk": "Cyrillic", "el": "Greek", "he": "Hebrew",
           "ar": "Arabic", "fa": "Arabic", "ur": "Arabic", "hi": "Devanagari", "mr": "Devanagari", "ne": "Devanagari",
           "bn": "Bengali", "bn_IN": "Bengali", "as": "Bengali", "pa": "Gurmukhi", "gu": "Gujarati", "or": "Oriya", "ta": "Tamil",
           "te": "Telugu", "kn": "Kannada", "ml": "Malayalam", "si": "Sinhala", "th": "Thai", "lo": "Lao", "my": "Myanmar",
           "ka": "Georgian", "hy": "Armenian", "am": "Ethiopic", "ti": "Ethiopic", "km": "Khmer", "mn": "Cyrillic", "dz": "Tibetan",
           "bo": "Tibetan", "ja": "Japanese", "ko": "Hangul", "zh_CN": "Han", "zh_TW": "Han", "chr": "Cherokee", "vi": "Vietnamese"}


def one_line(text):
    return " ".join(text.split("\n")).strip()


def translations(limit):
    """language -> texts, and the English originals."""
    out, english = {}, set()
    for path in sorted(glob.glob("/usr/share/locale/*/LC_MESSAGES/*.mo")):
        lang = path.split("/")[4]
        texts = out.setdefault(lang, {})
        if len(texts) >= limit:
            continue
        try:
            with open(path, "rb") as f:
                catalogue = gettext.GNUTranslations(f)._catalog
        except (OSError, LookupError, ValueError):
            continue
        for key, text in sorted((str(k), v) for k, v in catalogue.items() if isinstance(v, str)):
            if text.strip() and len(texts) < limit:
                texts[one_line(text)] = None
                english.add(one_line(key))
    return {k: list(v) for k, v in out.items() if v}, sorted(english)


def cldr(cache):
    """file stem -> names and key words of emoji."""
    out = {}
    for root in (cache, os.path.dirname(cache), "/usr/share/unicode/cldr", os.path.expanduser("~/.cache/mode/demo-packages")):
        for path in sorted(glob.glob(os.path.join(root, "**", "common", "annotations", "*.xml"), recursive=True)):
            with open(path, encoding="utf-8") as f:
                found = re.findall(r'<annotation cp="([^"]*)"[^>]*>([^<]*)</annotation>', f.read())
            out.setdefault(os.path.basename(path)[:-4], [html.unescape(cp + " " + text) for cp, text in found])
    return out


def damaged(text, page):
    """text's UTF-8 decoded in another code page; bytes that the page lacks become the control character of that value."""
    return "".join(bytes([b]).decode(page, "replace").replace("\ufffd", chr(b)) for b in text.encode())


def lossy(text, page):
    return text.encode().decode(page, "replace")


class Corpus:
    def __init__(self, cache):
        self.rng = random.Random(20260417)
        self.cache = cache
        self.lines = {}  # class -> list of bytes
        self.make()

    def add(self, name, texts):
        have = self.lines.setdefault(name, {})
        for t in texts:
            b = t if isinstance(t, bytes) else t.encode("utf-8", "surrogatepass")
            if b"\n" not in b:
                have[b] = None

    def make(self):
        r = self.rng
        by_lang, english = translations(600)
        r.shuffle(english)
        names = [unicodedata.name(chr(c), "") for c in range(0x30000)]
        names = [n.capitalize() for n in names if n and "IDEOGRAPH" not in n and "SYLLABLE" not in n]
        self.add("english", english[:14000])
        self.add("english", r.sample(names, 6000))
        self.add("english", ["%s of %s, %d x %d (%s) #%d!" % (r.choice(names).lower(), r.choice(english)[:60], r.randrange(9999),
                                                           r.randrange(99), r.choice(names), r.randrange(1 << 31)) for _ in range(3000)])
        foreign = []
        for lang, texts in sorted(by_lang.items()):
            script = SCRIPTS.get(lang, SCRIPTS.get(lang.split("_")[0].split("@")[0], "Latin"))
            keep = texts[:400 if script != "Latin" else 150]
            self.add("script " + script, keep)
            foreign += keep
        for stem, texts in sorted(cldr(self.cache).items()):
            script = SCRIPTS.get(stem, SCRIPTS.get(stem.split("_")[0]))
            self.add("script " + script if script else "cldr, other languages", r.sample(texts, min(250, len(texts))))
            foreign += r.sample(texts, min(30, len(texts)))
        foreign = sorted({t for t in foreign if not t.isascii() and len(t) < 300})
        r.shuffle(foreign)

        emoji = [chr(c) for c in range(0x1F300, 0x1FAFF)] + [chr(c) for c in range(0x2600, 0x27C0)]
        joined = []
        for _ in range(6000):
            s = ""
            for _ in range(r.randint(1, 6)):
                s += r.choice(emoji) + r.choice(["", "", "\ufe0f", chr(r.randint(0x1F3FB, 0x1F3FF)), "\u200d" + r.choice(emoji), "\u20e3", " ", "a"])
            s += r.choice(["", "".join(chr(r.randint(0x1F1E6, 0x1F1FF)) for _ in range(2)),
                           "\U0001F3F4" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000E007F"])
            joined.append(s)
        self.add("emoji", joined)

        sound = foreign[:6000] + english[:500]
        for i, t in enumerate(foreign[:9000]):
            page = DAMAGE[i % len(DAMAGE)] if i % 2 else r.choice(["latin-1", "cp1252"])
            d = damaged(t, page)
            self.add("mojibake once", [d])
            k = i % 8
            if k == 0:
                self.add("mojibake twice", [damaged(d, page), damaged(d, r.choice(DAMAGE))])
            elif k == 1:
                self.add("mojibake lossy", [lossy(t, page), lossy(t, page).replace("\ufffd", "?")])
            elif k == 2:
                self.add("mojibake lossy", [d.replace("\xa0", " "), d.replace("\x85", "...")])
            elif k == 3:
                self.add("mojibake mixed", [d + " " + r.choice(sound), r.choice(sound) + " – " + d])
            elif k == 4:
                self.add("mojibake mixed", [" ".join(damaged(w, r.choice(DAMAGE)) if r.random() < 0.5 else w for w in t.split())])
            elif k == 5:
                a = r.randrange(len(d) + 1)
                self.add("mojibake mixed", [d[a:], d[:a], d[:a] + r.choice("«»“”’…€ÃÂâ√β") + d[a:]])
            elif k == 6:
                self.add("mojibake thrice", [damaged(damaged(d, "cp1252"), "cp1252")])
            else:
                self.add("mojibake html", [html.escape(d), "".join("&#%d;" % ord(c) if ord(c) > 127 else c for c in d), d.upper(), d.lower()])
        quotes = ["it’s", "“quoted”", "a – b — c…", "café", "naïve", "10 €", "© 2020 ®", "à la carte", "São Paulo", "Ünï", "½ °C", "•", "Ελλάδα", "Москва", "日本"]
        for t in quotes:
            for u in quotes:
                for page in DAMAGE[:10]:
                    self.add("mojibake once", [damaged(t + " " + u, page), "x " + damaged(t, page) + u])
                    self.add("mojibake twice", [damaged(damaged(t + u, page), r.choice(DAMAGE[:3]))])
        clues = [chr(c) for c in list(range(0x80, 0x180)) + list(range(0x384, 0x460)) + list(range(0x2010, 0x2040)) +
                 [0x20AC, 0x2122, 0x2202, 0x221A, 0x2248, 0x2260, 0x2264, 0xFFFD, 0x2DC, 0x2C6, 0x152, 0x192, 0x2116, 0xF8FF]]
        pool = clues + list("aAzZ .,?!1_- \t")
        self.add("mojibake soup", ["".join(r.choice(pool) for _ in range(r.randint(2, 7))) for _ in range(20000)])
        latin = [c for c in clues if ord(c) < 0x100] + [bytes([b]).decode("cp1252", "replace") for b in range(128, 256)]
        self.add("mojibake soup", ["".join(r.choice(latin + list("az A,")) for _ in range(r.randint(2, 9))) for _ in range(10000)])

        entity = sorted(html.entities.html5)
        def reference():
            n = r.choice([r.randrange(0x300), r.randrange(0x3000), r.randrange(0x120000), 0, 38, 60, 39, 8217])
            return r.choice(["&%s" % r.choice(entity), "&%s" % r.choice(entity).rstrip(";"), "&%s" % r.choice(entity).upper(), "&#%d;" % n, "&#x%x;" % n,
                             "&#X%X" % n, "&#%d" % n, "&amp;%s" % r.choice(entity), "&amp;amp;lt;", "&", "&;", "&#;", "&#x;", "&#xg;", "&nosuch;", "&#99999999999;",
                             "&%sx" % r.choice(entity), "&#0%d;" % n, "& amp;", "&AMP;lt;"])
        self.add("html", ["&" + e for e in entity] + ["x&" + e.upper() + " y" for e in entity] + ["&amp;" + e for e in entity] + ["&" + e.rstrip(";") + "z" for e in entity])
        self.add("html", ["".join(r.choice([reference(), r.choice(english)[:12], r.choice(foreign)[:6], " ", "<b>"]) for _ in range(r.randint(1, 5)))
                          for _ in range(8000)])

        controls = [chr(c) for c in range(0x20) if c != 10] + [chr(c) for c in range(0x7F, 0xA0)] + [chr(c) for c in range(0x2000, 0x2070)] + \
            ["\ufeff", "\ufff9", "\ufffc", "\u00ad", "\u061c", "\u180e", "\u3000", "\x1b[31m", "\x1b[0;1m", "\x1b[", "\r", "\U000E0020"]
        self.add("controls", ["".join(r.choice([r.choice(controls), r.choice(english)[:5], "a", "1", "!"]) for _ in range(r.randint(1, 8))) for _ in range(8000)])
        self.add("controls", ["", " ", "\t", "\r", " \r", "\0", "\0\0 \0", "a\0b"])

        special = ["<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "</w>", "##a", "Ġ"]
        special += [s.upper() for s in special] + [s.lower() for s in special] + [s[:-1] for s in special] + ["<ſtart_of_text>", "<end_of_text", "'ſ", "'S", "'LL", "'Re"]
        self.add("special tokens", special + ["".join(r.choice(special + ["a", " ", "x ", ".", "é", "'"]) for _ in range(r.randint(2, 5))) for _ in range(2500)])

        def word(pool, n):
            return "".join(r.choice(pool) for _ in range(n))
        for n in list(range(95, 106)) + [200, 500, 1000, 5000]:
            self.add("long words", [word("etaoin", n), word("aA1.", n), word("áéß", n), word("日本語", n), word("!?.", n), "a" * n, word("0123", n), "\u0301" * n,
                                    word(emoji, n // 2), word("abc\u0301\u0323", n), "x " + word("\u0301\u0323\u0334\u05b0", n), "-" * n + "a" * n, word("ⅷ²a", n)])

        assigned = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Co", "Cn")]
        young = list(range(0x870, 0x8A0)) + list(range(0xA7C0, 0xA7F7)) + list(range(0x10D40, 0x10D90)) + list(range(0x1E030, 0x1E0F0)) + \
            list(range(0x1C80, 0x1C90)) + list(range(0x11380, 0x113E0)) + list(range(0x16EA0, 0x16ED8)) + list(range(0x13430, 0x13460))
        marks = [c for c in assigned if unicodedata.category(chr(c))[0] == "M"]
        small = [c for c in assigned if not 0x3400 <= c <= 0xD7FF and c < 0x17000 or 0x1B000 <= c < 0x20000]
        bases = [c for c in assigned if unicodedata.decomposition(chr(c)) and c < 0x20000] + [c for c in range(0x1100, 0x11C3)]
        for _ in range(12000):
            pool = r.choice([assigned, small, small, small + young, marks + small[:600], bases + marks])
            self.add("code point soup", ["".join(r.choice([chr(r.choice(pool)), chr(r.choice(pool)), " ", "a", "Σ"]) for _ in range(r.randint(1, 10)))])
        for _ in range(4000):
            self.add("code point soup", ["".join(chr(r.choice(bases)) + "".join(chr(r.choice(marks)) for _ in range(r.randint(0, 4))) for _ in range(r.randint(1, 3)))])
        every = [chr(c) for c in assigned if c != 10] + [chr(c) for c in range(0x378, 0x110000) if unicodedata.category(chr(c)) == "Cn" and (c < 0x323B0 or c % 97 == 0)]
        every += [chr(c) for c in list(range(0xE000, 0xE020)) + [0xF8FF, 0xF0000, 0x10FFFD]]
        self.add("every code point", [c + " a" + c + "b 1" + c + "'" for c in every])

        for t in (english[:1500] + foreign[:2500]):
            b = bytearray(t.encode())
            for _ in range(r.randint(1, 4)):
                at = r.randrange(len(b) + 1)
                b[at:at + r.randint(0, 1)] = bytes(r.choice([r.randrange(128, 256), 0xC0, 0xED, 0xA0, 0xF5, 0xE2]) for _ in range(r.randint(1, 3)))
            self.add("invalid UTF-8", [bytes(b)])
        self.add("invalid UTF-8", [bytes(r.randrange(256) for _ in range(r.randint(1, 12))).replace(b"\n", b"") for _ in range(3000)])
        self.lines = {k: list(v) for k, v in self.lines.items()}


def ours(mode, lines, *options):
    """The ids of every line, from one process."""
    done = subprocess.run([mode, "tokenize", "--context", str(CONTEXT), *options], input=b"".join(x + b"\n" for x in lines), stdout=subprocess.PIPE, check=True)
    out = [json.loads(x) for x in done.stdout.split(b"\n")[:-1]]
    if len(out) != len(lines):
        sys.exit(f"mode tokenize {' '.join(options)}: {len(out)} results for {len(lines)} lines")
    return out


def cut(ids, end):
    return ids if len(ids) <= CONTEXT else ids[:CONTEXT - 1] + [end]


def batched(tokenizer, texts):
    out = []
    for i in range(0, len(texts), 2000):
        out += tokenizer(texts[i:i + 2000], truncation=True, max_length=CONTEXT)["input_ids"]
    return out


def contestants(mode, cache, tmp):
    """name -> (function that calls the originals, our options, promised share)."""
    from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode
    from tokenizers import Tokenizer
    from transformers import BertTokenizerFast, CLIPTokenizerFast
    merges_file = os.path.join(cache, "bpe_simple_vocab_16e6.txt.gz")
    clip = SimpleTokenizer(merges_file)
    with gzip.open(merges_file, "rt", encoding="utf-8") as f:
        merges = [tuple(line.split()) for line in f.read().split("\n")[1:48895]]
    symbols = list(bytes_to_unicode().values())
    symbols += [s + "</w>" for s in symbols] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    hf = CLIPTokenizerFast(vocab={s: i for i, s in enumerate(symbols)}, merges=merges)

    # a cased vocabulary: the uncased one, plus its words and letters with capitals and accents
    with open(os.path.join(cache, "encoder", "vocab.txt"), encoding="utf-8") as f:
        vocab = f.read().split("\n")[:-1]
    cased = dict.fromkeys(vocab)
    for w in vocab:
        if w.isalpha():
            cased.setdefault(w.capitalize() if len(w) > 1 else w.upper())
    for c in "éèüößñçÉÜÖÑÇâÂãÃåÅøØαΑбБжЖ":
        for form in (c, unicodedata.normalize("NFD", c)):
            cased.setdefault(form)
            cased.setdefault("##" + form)
    folders = {}
    with open(os.path.join(cache, "encoder", "tokenizer.json"), encoding="utf-8") as f:
        base = json.load(f)
    for name, words in (("uncased", vocab), ("cased", list(cased))):
        for kind in ("vocab", "json"):
            d = folders[name, kind] = os.path.join(tmp, name + "-" + kind)
            os.makedirs(d)
            if kind == "vocab":
                with open(os.path.join(d, "vocab.txt"), "w", encoding="utf-8") as f:
                    f.write("\n".join(words) + "\n")
                with open(os.path.join(d, "tokenizer_config.json"), "w") as f:
                    json.dump({"do_lower_case": name == "uncased", "tokenizer_class": "BertTokenizer"}, f)
            else:
                t = {**base, "truncation": None, "padding": None, "model": {**base["model"], "vocab": {w: i for i, w in enumerate(words)}}}
                t["normalizer"] = {**t["normalizer"], "lowercase": name == "uncased"}
                with open(os.path.join(d, "tokenizer.json"), "w", encoding="utf-8") as f:
                    json.dump(t, f, ensure_ascii=False)

    def bert(name):
        t = BertTokenizerFast.from_pretrained(folders[name, "vocab"])
        return lambda texts: batched(t, texts)

    def from_json(name):
        t = Tokenizer.from_file(os.path.join(folders[name, "json"], "tokenizer.json"))
        t.enable_truncation(CONTEXT)
        return lambda texts: [e.ids for e in t.encode_batch(texts)]

    out = {"clip": (lambda texts: [cut([49406] + clip.encode(t) + [49407], 49407) for t in texts], ["--clean", "openai"], 0.9999),
           "clip-hf": (lambda texts: batched(hf, texts), ["--clean", "hf"], 1)}
    for name in ("uncased", "cased"):
        out[name] = bert(name), ["--tokenizer", "bert:" + folders[name, "vocab"]], 1
        out[name + "-json"] = from_json(name), ["--tokenizer", "bert:" + folders[name, "json"]], 1
    for _, options, _ in out.values():
        options += ["--clip-merges", merges_file]
    return out


def write_goldens(path, corpus, cache, tmp):
    """Some lines of every class, with the originals' ids: what `make test` compares (tests/golden/test_text.c)."""
    from transformers import BertTokenizerFast
    originals = contestants("", cache, tmp)
    folder = os.path.join(tmp, "capitals")
    os.makedirs(folder)
    with open(os.path.join(cache, "encoder", "vocab.txt")) as f, open(os.path.join(folder, "vocab.txt"), "w") as to:
        to.write(f.read())
    cased = BertTokenizerFast.from_pretrained(folder, do_lower_case=False)
    rng, raw = random.Random(77), []
    for kind, lines in corpus.items():
        short = [b for b in lines if len(b) <= (200 if kind == "long words" else 90)]
        raw += rng.sample(short, min(len(short), 8 if kind.startswith("script") else 24))
    texts = [b.decode("utf-8", "replace") for b in raw]
    columns = {"clip": [x if len(x) <= 77 else x[:76] + [49407] for x in originals["clip"][0](texts)],
               "hf": [x if len(x) <= 77 else x[:76] + [49407] for x in originals["clip-hf"][0](texts)],
               "bert": [x if len(x) <= 77 else x[:76] + [102] for x in originals["uncased"][0](texts)],
               "cased": cased(texts, truncation=True, max_length=77)["input_ids"]}
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for i, b in enumerate(raw):
            row = {"text": texts[i]} if texts[i].encode() == b else {"hex": b.hex()}
            f.write(json.dumps({**row, **{k: v[i] for k, v in columns.items()}}, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mode")
    p.add_argument("cache")
    p.add_argument("--only", help="these classes, comma separated (prefixes)")
    p.add_argument("--tokenizers", help="these tokenizers, comma separated")
    p.add_argument("--differences", help="write every line that differs to this file, as JSON")
    p.add_argument("--write", help="write some lines and the originals' ids to this file, compare nothing")
    a = p.parse_args()
    lines = Corpus(a.cache).lines
    if a.write:
        with tempfile.TemporaryDirectory() as tmp:
            return write_goldens(a.write, lines, a.cache, tmp)
    if a.only:
        lines = {k: v for k, v in lines.items() if any(k.startswith(o) for o in a.only.split(","))}
    print(f"{sum(map(len, lines.values()))} lines, {len(lines)} classes, of these {sum(k.startswith('script') for k in lines)} scripts")
    failed = False
    log = open(a.differences, "w", encoding="utf-8") if a.differences else None
    with tempfile.TemporaryDirectory() as tmp:
        for name, (original, options, promised) in contestants(a.mode, a.cache, tmp).items():
            if a.tokenizers and name not in a.tokenizers.split(","):
                continue
            n = wrong = n_valid = wrong_valid = 0
            print(f"\n{name}\n  {'class':28} {'lines':>7} {'equal':>7}  share")
            for kind, raw in lines.items():
                texts = [b.decode("utf-8", "replace") for b in raw]
                got, want = ours(a.mode, raw, *options), original(texts)
                differ = [i for i in range(len(raw)) if got[i] != want[i]]
                for i in differ:
                    if log:
                        log.write(json.dumps({"tokenizer": name, "class": kind, "text": texts[i], "ours": got[i], "original": want[i]}) + "\n")
                n, wrong = n + len(raw), wrong + len(differ)
                if kind != "invalid UTF-8":
                    n_valid, wrong_valid = n_valid + len(raw), wrong_valid + len(differ)
                print(f"  {kind:28} {len(raw):7} {len(raw) - len(differ):7}  {1 - len(differ) / len(raw):.6f}", flush=True)
            share = 1 - wrong_valid / max(n_valid, 1)
            print(f"  {'all':28} {n:7} {n - wrong:7}  {1 - wrong / n:.6f}\n  valid UTF-8: {share:.6f}, promised {promised}")
            failed |= share < promised
    sys.exit(failed)


if __name__ == "__main__":
    main()
