"""Texts on which tokenizers differ: scripts, code, digits, white space, emoji, contractions.

Every text was written for this project. A text's tags name what in it lies outside what some part
of llama.cpp can do; see ``agreement``.
"""

from __future__ import annotations

from typing import NamedTuple


class BatteryText(NamedTuple):
    """One text and why it is here. ``tags``: see :data:`mofa_gguf.convert.tokenizer.agreement`."""

    name: str
    text: str
    tags: frozenset[str] = frozenset()


def _t(name: str, text: str, *tags: str) -> BatteryText:
    return BatteryText(name, text, frozenset(tags))


# A few texts that tell most pre-tokenizers apart, for a quick first look.
QUICK: tuple[BatteryText, ...] = (
    _t(
        "contractions",
        "I'm sure they've said it's fine; we'd wait, SHE'LL see, don'T you? O'Neil's",
    ),
    _t("numbers", "7 42 365 2024 86400 123456 7654321 3.14159 1,000,000 0x1F 2e-5 ½ ² Ⅷ ٣٤٥ १२३"),
    _t("white space", "a  b   c    d\te\t\tf \t g\n h\n\n i\r\nj \n \n  k   \n\n\n   l    "),
    _t(
        "punctuation",
        'Well... (really?!) "yes" -- [no] {maybe} <tag/> a/b\\c #1 @me $5 50% ^_^ ~x| `y`',
    ),
    _t(
        "code",
        "def f(x, *, n=10):\n    if x != None:\n\treturn [i**2 for i in range(n)]  # ok\n\n\n",
    ),
    _t(
        "mixed case",
        "iPhone XMLHttpRequest camelCaseWord SHOUTING McDonald eBay aBcDeF HTTPServer2",
    ),
    _t("chinese", "今天天气很好，我们去公园散步吧！价格是128元。"),
    _t("accents", "Crème brûlée à la façon d'Éloïse: naïve café, Ångström, Übergröße, coração"),
)

FULL: tuple[BatteryText, ...] = (
    *QUICK,
    _t(
        "plain english",
        "The quick ferry left the harbour before sunrise, and nobody aboard noticed.",
    ),
    _t("one word", "Hello"),
    _t("one space", " ", "leading-space"),
    _t("leading spaces", "   three spaces first", "leading-space"),
    _t("trailing spaces", "two spaces last  "),
    _t("only newlines", "\n\n\n\n"),
    _t("newline after text", "first line\nsecond line\n\nnew paragraph\n"),
    _t("windows newlines", "one\r\ntwo\r\n\r\nthree\r\n"),
    _t("tabs and spaces", "\tif a:\n\t\tb = 1\n        c = 2\n                d = 3\n"),
    _t("long space run", "x" + " " * 41 + "y" + " " * 16 + "z"),
    _t("odd spaces", "no\u00a0break thin\u2009space wide\u3000space zero\u200bwidth end"),
    _t(
        "digit runs",
        "1 12 123 1234 12345 123456 1234567 12345678 000111222333 9.99 10:30 2024-05-17",
    ),
    _t("json", '{"name": "Ada", "tags": ["x", "y\\n"], "n": -12.5e+3, "ok": true, "none": null}'),
    _t(
        "c code",
        "for (int i = 0; i < n; ++i) { a[i] += b->c & 0xff; } /* done */ // x\n#define Y 1\n",
    ),
    _t("html", '<a href="https://example.org/a?b=1&c=%20d#e">link &amp; more</a><br/>'),
    _t(
        "markdown",
        "# Title\n\n* item **bold**\n1. _one_\n\n```python\nprint('hi')\n```\n---\n| a | b |\n",
    ),
    _t(
        "latex",
        r"\frac{\partial f}{\partial x_i} = \sum_{k=1}^{n} \alpha_k \cdot e^{-i\omega t} $x$",
    ),
    _t(
        "url and mail",
        "mailto:someone+tag@sub.example.co.uk ftp://10.0.0.1:8080/~user/file_v2.tar.gz",
    ),
    _t("emoji", "done ✅ great 👍🏽 family 👩‍👩‍👧‍👦 flag 🇫🇷 heart ❤️ llama 🦙🦙 rocket🚀!"),
    _t("symbols", "→ ≤ ≠ ∞ √2 ∑ ∫ © ™ € £ ¥ § ° ± µ … – — « » “quoted” ‘single’ • ★ ♫"),
    _t("russian", "Съешь же ещё этих мягких французских булок, да выпей чаю в 18:45."),
    _t("greek", "Η γρήγορη αλεπού πηδάει πάνω από τον τεμπέλη σκύλο· τι ώρα είναι;"),
    _t("arabic", "مرحبا بالعالم، كيف حالك اليوم؟ السعر ١٢٣ درهم"),
    _t("arabic with marks", "السَّلامُ عَلَيْكُمْ", "marks"),
    _t("hebrew", "שלום עולם, מה שלומך היום?"),
    _t("hindi", "नमस्ते दुनिया, आज मौसम बहुत अच्छा है।", "marks"),
    _t("bengali and tamil", "আমার সোনার বাংলা — தமிழ் மொழி இனிது", "marks"),
    _t("thai", "สวัสดีชาวโลก วันนี้อากาศดีมาก", "marks"),
    _t("korean", "안녕하세요, 세계! 오늘은 2024년 5월 17일입니다.", "hangul"),
    _t("japanese", "吾輩は猫である。名前はまだ無い。カタカナとひらがなを混ぜる！ＡＢＣ１２３"),
    _t("japanese voiced", "ガギグゲゴ、ぱぴぷぺぽ、ばびぶべぼ"),
    _t("vietnamese", "Tiếng Việt có nhiều dấu: Nguyễn Trường Phước, đường phố Hà Nội"),
    _t("turkish and polish", "İstanbul'da ışık ılık; Zażółć gęślą jaźń, Łódź"),
    _t(
        "decomposed accents",
        "cafe\u0301 Ange\u0300le n\u0303andu\u0301 A\u030angstro\u0308m",
        "marks",
    ),
    _t("compatibility forms", "ﬁne ﬂow ① ㍿ ｆｕｌｌ ｗｉｄｔｈ ﷺ ℃ Å"),
    _t("rare planes", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𠜎𠜱 𓀀𓂀 🜁 \U00010348"),
    _t("control characters", "a\u0007b\u001bc\u007fd\ufeffe\u200ef\u00adg"),
    _t(
        "long word",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    ),
    _t(
        "repeated marks",
        "!!!!!!!! ??????? ======== -------- ******** ........ ,,,,, ''''' \"\"\"\" ####",
    ),
    _t("underscores", "snake_case __init__ _private CONST_NAME kebab-case dotted.path.name a_1_b"),
)
