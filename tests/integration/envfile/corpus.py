"""Odd ``.env`` files, byte for byte, each with what must come of it.

A table and no files, as editors and git change what matters here: carriage returns, byte order marks, blanks at
line ends, missing last newlines. ``@@`` stands for the value.
"""

from __future__ import annotations

from dataclasses import dataclass

KEY = "SENTRY_DSN"
OLD = "https://0123456789abcdef0123456789abcdef@o4507.ingest.de.sentry.io/4507001"
NEW = "http://fedcba9876543210fedcba9876543210@127.0.0.1:8000/2"
BOM = "\ufeff"
ALL = ("dotenv", "node", "sh")
NODE = ("dotenv", "node")


@dataclass(frozen=True)
class Edited:
    """A file that is edited: ``readers`` are those that read the old value, so these must read the new one."""

    name: str
    template: str
    readers: tuple[str, ...] = ALL
    value: str = OLD

    def data(self, value: str | None = None) -> bytes:
        """The file with ``value``, by default the old one."""
        return self.template.replace("@@", self.value if value is None else value).encode()


@dataclass(frozen=True)
class Refused:
    """A file that is left alone, with the sentence that says why; ``{}`` there stands for its path."""

    name: str
    data: bytes
    sentence: str


LINE = f"{KEY}={OLD}\n"
FILLER = "".join(f"VARIABLE_{number}='{number} {'v' * 900}'\n# {'c' * 9_000}\n" for number in range(52))
EXPORTED_KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQ/+=\n-----END PRIVATE KEY-----"

EDITED = (
    Edited("plain", "A=1\nSENTRY_DSN=@@\nB=2\n"),
    Edited("only line", "SENTRY_DSN=@@\n"),
    # A shell keeps the carriage return in the value.
    Edited("crlf", "A=1\r\nSENTRY_DSN=@@\r\nB=2\r\n", NODE),
    Edited("crlf in quotes", 'A="1"\r\nSENTRY_DSN="@@"\r\nB=2\r\n', NODE),
    Edited("mixed line ends", "A=1\r\nSENTRY_DSN=@@\nB=2\r\nC=3\n"),
    Edited("mixed line ends, crlf at the key", "A=1\nSENTRY_DSN=@@\r\nB=2\n", NODE),
    Edited("bom before another variable", BOM + "A=1\nSENTRY_DSN=@@\n"),
    # The mark becomes a part of the name for all but dotenv.
    Edited("bom before the key", BOM + "SENTRY_DSN=@@\nA=1\n", ("dotenv",)),
    Edited("bom and crlf", BOM + "A=1\r\nSENTRY_DSN=@@\r\n", NODE),
    Edited("key last, no last newline", "A=1\nSENTRY_DSN=@@"),
    Edited("no last newline", "SENTRY_DSN=@@\nA=1"),
    Edited("crlf, no last newline", "A=1\r\nSENTRY_DSN=@@"),
    Edited("single quotes", "SENTRY_DSN='@@'\nA=1\n"),
    Edited("double quotes", 'SENTRY_DSN="@@"\nA=1\n'),
    # A shell runs what stands in backquotes, and finds no such command.
    Edited("backquotes", "SENTRY_DSN=`@@`\nA=1\n", NODE),
    Edited("quotes, no last newline", "A=1\nSENTRY_DSN='@@'"),
    Edited("export", "export SENTRY_DSN=@@\nexport A=1\n"),
    Edited("export with a tab", "export\tSENTRY_DSN=@@\nA=1\n", ("dotenv", "sh")),
    Edited("export with blanks", "\texport  SENTRY_DSN=@@\nA=1\n", ("dotenv", "sh")),
    Edited("indented", "  SENTRY_DSN=@@\nA=1\n"),
    Edited("blanks around the sign", "SENTRY_DSN = @@\nA=1\n", NODE),
    Edited("blank before the sign", "SENTRY_DSN =@@\nA=1\n", NODE),
    Edited("blank after the sign", "SENTRY_DSN= @@\nA=1\n", NODE),
    Edited("tabs around the sign, quotes", "SENTRY_DSN\t=\t'@@'\nA=1\n", ("dotenv",)),
    Edited("comment after the value", "SENTRY_DSN=@@ # the tracker\nA=1\n"),
    Edited("comment at the value", "SENTRY_DSN=@@#tracker\nA=1\n", NODE),
    Edited("comment after quotes", 'SENTRY_DSN="@@"  # it\'s "ours"\nA=1\n'),
    Edited("# in quotes", "SENTRY_DSN='@@'\nA=1\n", ALL, f"{OLD}#main"),
    Edited("empty value", "SENTRY_DSN=@@\nA=1\n", ALL, ""),
    Edited("empty value at the end", "A=1\nSENTRY_DSN=@@", ALL, ""),
    Edited("empty quotes", "SENTRY_DSN=\"@@\"\nA=''\n", ALL, ""),
    Edited("empty value and a comment", "SENTRY_DSN=@@ # switched off\nA=1\n", ALL, ""),
    Edited("trailing blanks", "SENTRY_DSN=@@  \nA=1\n"),
    # Node.js 20 takes blanks away, but no tabs.
    Edited("tab after the value", "SENTRY_DSN=@@\t\nA=1\n", ("dotenv", "sh")),
    Edited("blanks after quotes", "SENTRY_DSN='@@' \t\nA=1\n"),
    Edited("similar names", f"PUBLIC_SENTRY_DSN=x\nSENTRY_DSN_OLD={OLD}\nSENTRY_DSN=@@\nSENTRY-DSN=y\n"),
    Edited("commented out besides", f"#{KEY}=x\n # export {KEY}=y\nSENTRY_DSN=@@\n#{LINE}"),
    Edited("named in another value", 'NOTE="set SENTRY_DSN=x"\nSENTRY_DSN=@@\n'),
    Edited("named in a comment behind a value", "A=1 # not SENTRY_DSN=x\nSENTRY_DSN=@@\n"),
    Edited("values of several lines around", f'K="{EXPORTED_KEY}"\nSENTRY_DSN=@@\nL="{EXPORTED_KEY}"\n'),
    Edited("quote that is never closed", "GREETING=it's\nSENTRY_DSN=@@\nA=1\n", NODE),
    Edited("opening quote that is never closed", 'A="one\nSENTRY_DSN=@@\nB=2\n', NODE),
    Edited("odd quote in a comment", "# don't\nSENTRY_DSN=@@\n# won't\n"),
    Edited("windows paths", "DATA=C:\\data\\ai\nSENTRY_DSN=@@\nTEMP='C:\\temp\\'\n"),
    Edited("windows path with a quote behind it", 'DATA="C:\\data"\nSENTRY_DSN=@@\nLOGS="D:\\logs\\x"\n'),
    Edited("other values made from variables", "HOST=h\nURL=http://${HOST}/$A\nSENTRY_DSN=@@\n"),
    Edited("unicode elsewhere", "NAME=Käse 🧀\nÜBER=1\nSENTRY_DSN=@@\nCITY='Санкт-Петербург'\n"),
    Edited("very long lines", f"BLOB={'x' * 100_000}\nSENTRY_DSN=@@\nBLOB2='{'y ' * 50_000}'\n"),
    Edited("a megabyte", FILLER + "SENTRY_DSN=@@\n" + FILLER.replace("VARIABLE", "MORE")),
    # Node.js 20 makes a line of blanks a part of the next name.
    Edited("blank lines and blanks", "\n\n  \nSENTRY_DSN=@@\n\n\n", ("dotenv", "sh")),
    # Node.js 20 joins a line without = and the next one to one name; a shell goes on.
    Edited("lines that set nothing", "???\nSENTRY_DSN=@@\nA=1\n", ("dotenv", "sh")),
    Edited("colon elsewhere", "A: b\nB=1\nSENTRY_DSN=@@\n"),
    Edited("backslash before a comment", "# C:\\\nSENTRY_DSN=@@\n"),
    Edited("backslash, then an empty line", "DATA=C:\\data\\\n\nSENTRY_DSN=@@\n"),
    Edited("no address yet", "SENTRY_DSN=@@\nA=1\n", ALL, "changeme"),
)

REFUSED = (
    Refused(
        "empty file",
        b"",
        "{} holds no SENTRY_DSN: add the line SENTRY_DSN=... with the DSN that is in use, also where the product "
        "gets it from elsewhere (PM2's own environment, an ecosystem file)",
    ),
    Refused(
        "key absent",
        b"A=1\n",
        "{} holds no SENTRY_DSN: add the line SENTRY_DSN=... with the DSN that is in use, also where the product "
        "gets it from elsewhere (PM2's own environment, an ecosystem file)",
    ),
    Refused(
        "only comments",
        b"# one\n# two\n",
        "{} holds no SENTRY_DSN: add the line SENTRY_DSN=... with the DSN that is in use, also where the product "
        "gets it from elsewhere (PM2's own environment, an ecosystem file)",
    ),
    Refused(
        "key only in a comment",
        f"#{LINE}".encode(),
        "{} holds no SENTRY_DSN: add the line SENTRY_DSN=... with the DSN that is in use, also where the product "
        "gets it from elsewhere (PM2's own environment, an ecosystem file)",
    ),
    Refused(
        "lower-case key",
        f"A=1\nsentry_dsn={OLD}\n".encode(),
        "{} holds no SENTRY_DSN, but line 2 sets sentry_dsn: names are read with their case",
    ),
    Refused(
        "same value twice",
        (LINE + "A=1\n" + LINE).encode(),
        "{} sets SENTRY_DSN 2 times (lines 1 and 3): leave one of them",
    ),
    Refused(
        "different values",
        f"{LINE}export {KEY}='x'\n".encode(),
        "{} sets SENTRY_DSN 2 times (lines 1 and 2): leave one of them",
    ),
    Refused(
        "set again within a line",
        f"{LINE}export A=1 {LINE}".encode(),
        "{} line 2: a shell would set SENTRY_DSN there, too: leave one of them",
    ),
    Refused(
        "in a quoted value",
        f'K="one\n{LINE}two"\n'.encode(),
        "{} line 2: SENTRY_DSN stands inside a quoted value that opens on line 1",
    ),
    Refused(
        "in a quoted value, and outside of it",
        f'{LINE}K="one\n{LINE}two"\n'.encode(),
        "{} line 3: SENTRY_DSN stands inside a quoted value that opens on line 2",
    ),
    Refused(
        "between two apostrophes",
        f"A=it's\n{LINE}B=that's\n".encode(),
        "{} line 2: SENTRY_DSN stands inside a quoted value that opens on line 1",
    ),
    Refused(
        "value on a line of its own",
        f"A=\n'x\n{LINE}'\n".encode(),
        "{} line 3: SENTRY_DSN stands inside a quoted value that opens on line 1",
    ),
    Refused(
        "quoted value on the next line",
        f"{KEY}=\n'{OLD}'\n".encode(),
        "{} line 1: its readers do not agree on where the value of SENTRY_DSN is",
    ),
    Refused(
        "name and sign on two lines",
        f"{KEY}\n={OLD}\n".encode(),
        "{} line 1: SENTRY_DSN is set in a way that not every reader understands, write SENTRY_DSN=value",
    ),
    Refused(
        "unclosed quote",
        f"{KEY}='{OLD}\nA=1\n".encode(),
        "{} line 1: the quote that opens the value of SENTRY_DSN is not closed on this line",
    ),
    Refused(
        "quote that closes on another line",
        f'{KEY}="{OLD}\nA="1"\n'.encode(),
        "{} line 1: the quote that opens the value of SENTRY_DSN is not closed on this line",
    ),
    Refused(
        "colon",
        f"{KEY}: {OLD}\n".encode(),
        "{} line 1: SENTRY_DSN is set with a colon, which not every reader accepts",
    ),
    Refused("nul byte", f"A=\x00\n{LINE}".encode(), "{} holds a NUL byte, it is not a text file"),
    Refused("latin-1", "A=Käse\n".encode("latin-1") + LINE.encode(), "{} is not UTF-8 text (byte 3)"),
    Refused("utf-16", LINE.encode("utf-16"), "{} is not UTF-8 text (byte 0)"),
    Refused(
        "lone carriage return",
        f"A=1\r{LINE}".encode(),
        "{} line 1: a carriage return stands inside the line, its readers would not agree on it",
    ),
    Refused(
        "carriage return as the last byte",
        LINE.rstrip().encode() + b"\r",
        "{} line 1: a carriage return stands inside the line, its readers would not agree on it",
    ),
    Refused(
        "unicode line separator",
        f"A=1\u2028{LINE}".encode(),
        "{} line 1: a Unicode line separator stands inside the line, its readers would not agree on it",
    ),
    Refused(
        "variables in the value",
        f"HOST=sentry.io\n{KEY}=https://key@${{HOST}}/1\n".encode(),
        "{} line 2: the value of SENTRY_DSN is put together from other variables, write it out",
    ),
    Refused(
        "$ in the value",
        f"{KEY}='https://key$1@sentry.io/1'\n".encode(),
        "{} line 1: the value of SENTRY_DSN is put together from other variables, write it out",
    ),
    Refused(
        "another value is made from it",
        f"{LINE}NEXT_PUBLIC_SENTRY_DSN=${{{KEY}}}\n".encode(),
        "{} line 2: another value is made from SENTRY_DSN, write it out there",
    ),
    Refused(
        "two words",
        f"{KEY}={OLD} {OLD}\n".encode(),
        "{} line 1: there is unexpected text after the value of SENTRY_DSN",
    ),
    Refused(
        "text after quotes",
        f'{KEY}="{OLD}"b\n'.encode(),
        "{} line 1: there is unexpected text after the value of SENTRY_DSN",
    ),
    Refused(
        "quote within the value",
        f"{KEY}=a'b'c\n".encode(),
        "{} line 1: the value of SENTRY_DSN holds characters that its readers do not see alike",
    ),
    Refused(
        "shell characters in the value",
        f"{KEY}=https://key@host/1?a=b&c\n".encode(),
        "{} line 1: the value of SENTRY_DSN holds characters that its readers do not see alike",
    ),
    Refused(
        "backslash at its end",
        f"{LINE.rstrip()}\\\nA=1\n".encode(),
        "{} line 1: the value of SENTRY_DSN holds characters that its readers do not see alike",
    ),
    Refused(
        "backslash at the end of the line before",
        f"DATA=C:\\data\\\n{LINE}".encode(),
        "{} line 1 ends with a backslash, so a shell joins it with the line of SENTRY_DSN: "
        "put an empty line between them",
    ),
    Refused(
        "blanks for a value",
        f"{KEY}= \nA=1\n".encode(),
        "{} line 1: blanks follow the empty value of SENTRY_DSN, take them away",
    ),
)
