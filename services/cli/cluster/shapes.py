"""What looks like a credential in text, by its own shape or by the name before it. Rather too much than too little."""

import re
from collections.abc import Iterator

MASK = "********"
_KEYS = "api|private|master|access|encrypt(?:ion)?|decrypt(?:ion)?|sign(?:ing)?|shared|account|auth|hmac|jwt|cookie"
_WORDS = (
    "token|secret|passw(?:or)?d|passphrase|passcode|pepper|credential|authorization|masterauth|amz-signature"
    rf"|(?:{_KEYS})[_.-]?key|(?<!by)(?<!com)pass(?![a-z])|(?<![a-z])pw(?![a-z])|pwd(?![a-z])|(?<=[_-])auth(?![\w.-])"
)
_NAMED = rf"[\w.-]{{0,64}}(?:{_WORDS})[\w.-]{{0,64}}"  # bounded, for a log may be one word of megabytes
_SECRET_NAME = re.compile(_NAMED, re.IGNORECASE)
# Names that hold a secret's whereabouts or its measures, and no secret.
_WHEREABOUTS = re.compile(
    r"(?:name|ref|file|path|dir|count|s_total|_total|tokens|tokenizer|seconds|ttl|size|bytes|limit|length|template|"
    r"enabled|required|type)$|tokens_|max_?tokens|tokenizer|(?:for|back)ward_?pass",
    re.IGNORECASE,
)
_FOLDERS = ("PWD", "OLDPWD")  # of a shell
_INNOCENT = re.compile(r"null|none|nil|true|false|\$\w+|\$[({]\w+[)}]|\*{8}", re.IGNORECASE)

_TOKENS = re.compile(
    r"\bhr_[a-z0-9]{1,16}_[A-Za-z0-9]{8}_[A-Za-z0-9]{43}_[A-Za-z0-9]{6}"
    r"|\b(?:hf_|sk-|sk_live_|gh[opusr]_|github_pat_|glpat-|npm_|xox[a-z]-)[\w-]{16,}"
    r"|\bA[KS]IA[0-9A-Z]{16}\b|\bAIza[\w-]{35}"
    r"|\beyJ[\w-]{8,2000}\.[\w-]{8,4000}\.[\w-]{0,1000}"
    # Base64 of a PEM's first line, and the lines that follow it.
    r"|LS0tLS1CRUdJTi[A-Za-z0-9+/=]+(?:(?:\\n|\s){1,20}[A-Za-z0-9+/]{20,}={0,2})*"
)
_PRIVATE = re.compile(
    r"-----BEGIN (?P<what>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=what)-----|\Z)", re.DOTALL
)
_KEPT = (
    # A password in an address: up to the last @ of the word, unless it is a port.
    re.compile(
        r"(?P<kept>[a-z][a-z0-9+.-]{0,30}://[^\s/@:\"']*:)(?!\d{1,5}/)[^\s\"']{1,512}(?=@)", re.IGNORECASE
    ),
    re.compile(r"(?P<kept>[a-z][a-z0-9+.-]{0,30}://)[\w.~%-]{16,}(?=@)", re.IGNORECASE),
    re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(?P<kept>\"auth\\*\"\s*:\s*\\*\")[\w+/=-]{8,}"),
    re.compile(r"(?P<kept>\b(?:redis|valkey)-cli\b[^\n|;]{0,200}?\s-a[ \t]+)\S+"),
    # Prose; a word without a digit or a sign is one of the sentence.
    re.compile(
        r"(?P<kept>\bpass(?:word|wd|phrase)[ \t]+(?:(?:is|was)[ \t]+)?[\"'`]?)(?=[^\s\"'`]{0,60}[\d@#$%^&*!?+])"
        r"[^\s\"'`]{4,}",
        re.IGNORECASE,
    ),
)
_ACL = re.compile(r"^[ \t\"'-]*user[ \t]+\S+[ \t]+\S.*$", re.MULTILINE)
_ACL_PASSWORD = re.compile(r"(?<=\s)([><#])[^\s\"']{3,}")

_QUOTE = r"\\*[\"']"
# A name and its sign, or a value's name that is the value of `name`, as in a container's environment.
_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?P<name>{_NAMED})(?:{_QUOTE})?\]?(?:"
    rf"[ \t]*(?:=>|:=|[=:])[ \t]*(?:\{{\s{{0,40}}(?:{_QUOTE})?value(?:{_QUOTE})?[ \t]*[:=][ \t]*"
    r"|\n[ \t]+value:[ \t]*)?"
    rf"|\s{{0,40}},?\s{{0,40}}(?:{_QUOTE})?value(?:{_QUOTE})?[ \t]*[:=][ \t]*"
    r")(?:[bruf](?=[\"']))?",
    re.IGNORECASE,
)
# A flag and what is between it and its value, in a shell's line and in lists of JSON and YAML.
_FLAG = re.compile(
    rf"(?<![\w-])--?(?P<name>{_NAMED})(?:{_QUOTE})?(?:\s{{0,40}},\s{{0,40}}|\s{{0,40}}\n[ \t]*-[ \t]+|[ \t]+)(?!-)",
    re.IGNORECASE,
)
_DIRECTIVE = re.compile(
    r"(?<![^\s\"'])(?P<name>requirepass|masterauth|auth-pass[ \t]+\S+)[ \t]+", re.IGNORECASE
)
_BLOCK = re.compile(r"[|>][-+0-9]*[ \t]*(?:#.*)?\n")
_VALUE = re.compile(
    r'"{3}.*?(?:"{3}|\Z)'
    r"|'{3}.*?(?:'{3}|\Z)"
    r"|(?P<escape>\\+)(?P<quote>[\"'])(?:(?!(?<!\\)(?P=escape)(?P=quote))[^\n])*"
    r'|"(?:\\.|[^"\\\n]|\n[ \t])*'
    r"|'(?:\\.|''|[^'\\\n]|\n[ \t])*"
    r"|\[[^\]\n]*"
    # A bare word ends at a space, or at a quote that something around it has opened.
    r"|(?:(?!\\*[\"'](?:[\s,;:}\])\\]|\Z))[^\s{])(?:(?!\\*[\"'](?:[\s,;:}\])\\]|\Z))\S)*",
    re.DOTALL,
)
_REST = re.compile(r"[^\n]*")
_HEAD = re.compile(r"[ \t]*(?:\d{4}-\d\d-\d\dT\S+[ \t]+)?(?:- |export |set )?")  # of a line, before a name
_WHOLE = re.compile(r"pass|pwd|authorization", re.IGNORECASE)  # whose values have spaces also within a line


def secret_name(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last not in _FOLDERS and bool(_SECRET_NAME.fullmatch(last)) and not _WHEREABOUTS.search(last)


def innocent(value: str) -> bool:
    """Whether a value says that there is none, or only where it comes from."""
    return not value or bool(_INNOCENT.fullmatch(value))


def masked(text: str) -> str:
    text = _PRIVATE.sub(MASK, text)
    text = _TOKENS.sub(MASK, text)
    for pattern in _KEPT:
        text = pattern.sub(rf"\g<kept>{MASK}", text)
    text = _ACL.sub(lambda line: _ACL_PASSWORD.sub(rf"\1{MASK}", line[0]), text)
    for begin in (_FLAG, _DIRECTIVE, _ASSIGNED):
        text = "".join(_without_values(text, begin))
    return text


def _without_values(text: str, begin: re.Pattern[str]) -> Iterator[str]:
    """The text, with masks for the values that follow names of secrets."""
    done = at = 0
    while found := begin.search(text, at):
        at = found.end()
        if not secret_name(found["name"].split()[0]):
            continue
        start, end = _value(text, found)
        if not innocent(text[start:end]):
            yield text[done:start] + MASK
            done = end
        at = max(at, end)
    yield text[done:]


def _value(text: str, found: re.Match[str]) -> tuple[int, int]:
    """Where the value begins and ends, without its quotes."""
    start = found.end()
    if block := _BLOCK.match(text, start):
        return start, _block_end(text, found.start(), block.end())
    value = _VALUE.match(text, start)
    if value is None:
        return start, start
    if value["escape"]:
        return value.end("quote"), value.end()
    if value[0][0] in "\"'[":
        quote = 3 if value[0][:3] in ('"""', "'''") else 1
        end = value.end() - 3 if quote == 3 and value[0].endswith(value[0][:3]) else value.end()
        return start + quote, max(start + quote, end)
    line = text.rfind("\n", 0, found.start()) + 1
    alone = found.start() - line < 80 and _HEAD.fullmatch(text, line, found.start())
    if found.re is _ASSIGNED and (alone or (": " in found[0] and _WHOLE.search(found["name"]))):
        value = _REST.match(text, start) or value
    return start, value.end()


def _block_end(text: str, name: int, start: int) -> int:
    """The end of a block of YAML: the last line that is deeper than the one with its name."""
    line = text.rfind("\n", 0, name) + 1
    depth = len(text[line:name]) - len(text[line:name].lstrip(" "))
    end = start
    while end < len(text):
        after = text.find("\n", end)
        after = len(text) if after < 0 else after + 1
        this = text[end:after]
        if this.strip() and len(this) - len(this.lstrip(" ")) <= depth:
            break
        end = after
    return end - 1 if end > start and text[end - 1] == "\n" else end
