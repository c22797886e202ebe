"""Open a CSV file in the way it is written, and say how it seems to be written where that fails."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import lzma
import re
import zipfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from lntx.base.errors import BadInput
from lntx.base.files import open_regular
from lntx.base.text import for_message, listed
from lntx.data.spelling import Spelling

# A cell may be of any size: pyarrow, which reads the rows, has no limit either.
csv.field_size_limit(2**31 - 1)

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
"""First bytes of a file in a compression that pyarrow reads."""

_XZ, _ZIP, _UTF8 = b"\xfd7zXZ", b"PK\x03\x04", b"\xef\xbb\xbf"
_OFFICE = ("xl/", "word/", "content.xml", "META-INF/")
_DELIMITERS = (",", ";", "\t", "|", " ", "whitespace")
_NAMED = {"tab": "\t", "whitespace": "\t"}
_SAMPLE = 2**16
_MOST_NOTES = 50
_BLOCK, _LARGEST_BLOCK = 2**20, 2**30
_FIELD = re.compile(r'"(?:[^"]|"")*"|\S+')


def first_bytes(path: Path, count: int = 8) -> bytes:
    """Return the first bytes of a file."""
    with open_regular(path) as stream:
        return stream.read(count)


@contextmanager
def _bytes_of(path: Path) -> Iterator[BinaryIO | pa.NativeFile]:
    """Open the content of a file, decompressed by what its first bytes say."""
    start = first_bytes(path)
    if start.startswith(_XZ):
        with lzma.open(path) as stream:
            yield stream
    elif start.startswith(_ZIP):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
            if any(name.startswith(_OFFICE) for name in names):
                raise BadInput(f"{for_message(path)} is a document of an office program: save the sheet as CSV")
            if len(names) != 1:
                raise BadInput(
                    f"{for_message(path)} holds {len(names)} files ({listed(names)}): unpack it, and name one"
                )
            with archive.open(names[0]) as member:
                yield member
    else:
        compression = next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), None)
        with pa.input_stream(str(path), compression=compression) as stream:
            yield stream


def _codec(path: Path, spelling: Spelling, start: bytes) -> str:
    if start.startswith(_UTF8) and not re.fullmatch(r"(?i)utf[-_]?8([-_]sig)?", spelling.encoding):
        raise BadInput(
            f"{for_message(path)} begins with the mark of UTF-8, and data.encoding is {spelling.encoding}",
            advice={"data.encoding": "utf-8"},
        )
    return "utf-8-sig" if start.startswith(_UTF8) else spelling.encoding


def _utf16(start: bytes) -> str | None:
    """Return the UTF-16 encoding of the start of a file, by its mark or by where its zero bytes are."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    for encoding, zeros, others in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if 2 * zeros.count(0) > len(zeros) and 0 not in others:
            return encoding
    return None


def _without_last(lines: Iterator[str], count: int) -> Iterator[str]:
    """Yield all lines but the last ones."""
    waiting: deque[str] = deque()
    for line in lines:
        waiting.append(line)
        if len(waiting) > count:
            yield waiting.popleft()


class _Lines(io.RawIOBase):
    """The lines of a text, each changed, as UTF-8 bytes."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._left = lines, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._left) < len(buffer) and (line := next(self._lines, None)) is not None:
            self._left += line.encode()
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


class CsvFile:
    """A CSV file: its names, and its columns in batches of text."""

    def __init__(self, path: Path, spelling: Spelling) -> None:
        """Read the names. Raises: BadInput: it is no table, or is written in another way."""
        self.path, self._spelling, self._pads = path, spelling, ""
        with _bytes_of(path) as stream:
            start = stream.read(_SAMPLE)
        self._encoding = _codec(path, spelling, start)
        if b"\0" in start and not re.match("(?i)utf[-_]?(16|32)", spelling.encoding):
            utf16 = _utf16(start)
            what = "is text in UTF-16" if utf16 else "holds zero bytes: it is no Parquet, Feather or CSV file"
            raise BadInput(f"{for_message(path)} {what}", advice={"data.encoding": utf16} if utf16 else None)
        if re.match(rb'\s*(\{\s*"|\[\s*[\[{]|<!doctype|<html|<\?xml)', start, re.IGNORECASE):
            raise BadInput(f"{for_message(path)} is JSON, HTML or XML: write it as Parquet or CSV")
        self._skip = spelling.skip_lines
        self.delimiter = _NAMED.get(spelling.delimiter, spelling.delimiter)
        with self._text() as text:
            first = text.readline()
            if match := re.fullmatch(r"sep=(.)\s*", first):
                self._skip, self.delimiter = self._skip + 1, match[1] if self.delimiter == "auto" else self.delimiter
        with self._lines() as lines:
            header = next(lines, "")
        if self.delimiter == "auto":
            bare = re.sub(r'"[^"]*"', "", header)
            signs = [sign for sign in (",", ";", "\t", "|") if sign in bare]
            self.delimiter = signs[0] if len(signs) == 1 else ","
        records = self._records(200)
        if not records:
            raise BadInput(f"{for_message(path)} has no rows")
        self.names = tuple(name.strip() for name in records[0])
        if len(records) > 1 and all(len(record) == len(self.names) + 1 for record in records[1:]):
            if all(record[-1] == "" for record in records[1:]):
                # A delimiter ends each row but the first.
                self._pads, self.names = "end", (*self.names, "")
            elif len(self.names) > 1:
                # R writes no name for the column of row names.
                self._pads, self.names = "start", ("", *self.names)
        self.has_header = spelling.header != "none"
        if not self.has_header:
            self.names, self._pads = tuple(f"V{k + 1}" for k in range(len(records[0]))), ""

    @contextmanager
    def _text(self) -> Iterator[io.TextIOWrapper]:
        with _bytes_of(self.path) as stream:
            yield io.TextIOWrapper(stream, encoding=self._encoding, newline="")

    @contextmanager
    def _lines(self) -> Iterator[Iterator[str]]:
        """Yield the lines of the table, as pyarrow is to read them."""
        with self._text() as text:
            lines: Iterator[str] = _without_last(islice(text, self._skip, None), self._spelling.skip_footer)
            if self._spelling.comment is not None:
                lines = (line for line in lines if not line.lstrip().startswith(self._spelling.comment))
            if self._spelling.delimiter == "whitespace":
                lines = ("\t".join(_FIELD.findall(line)) + "\n" for line in lines)
            yield self._padded(lines)

    def _padded(self, lines: Iterator[str]) -> Iterator[str]:
        for k, line in enumerate(lines):
            if k == 0 and self._pads == "end":
                yield line.rstrip("\r\n") + self.delimiter + "\n"
            else:
                yield self.delimiter + line if k == 0 and self._pads == "start" else line

    def _records(self, count: int) -> list[list[str]]:
        with self._lines() as lines:
            records = filter(None, csv.reader(lines, delimiter=self.delimiter))
            try:
                return [*islice(records, count)]
            except csv.Error as error:
                raise BadInput(f"{for_message(self.path)} cannot be read as CSV: {error}") from None

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        is_plain = self._spelling.comment is None and self._spelling.delimiter != "whitespace" and not self._pads
        if is_plain and not self._skip and not self._spelling.skip_footer and self._encoding in ("utf-8", "utf-8-sig"):
            with _bytes_of(self.path) as stream:
                yield stream
        else:
            with self._lines() as lines:
                yield io.BufferedReader(_Lines(lines), _BLOCK)

    def read(self, places: Sequence[int]) -> Iterator[list[pa.Array]]:
        """Yield the columns at the given positions, in batches of rows, as text."""
        if self._counts[0] % 2:
            self._refuse_open_quote()
        count, block = 0, _BLOCK
        while True:
            seen = 0
            try:
                with self._stream() as stream, pyarrow.csv.open_csv(stream, **self._options(places, block)) as reader:
                    for batch in reader:
                        # With generated names the header is read as the first row.
                        skip = max(count - seen, 1 if seen == 0 and self.has_header else 0)
                        seen += batch.num_rows
                        if seen > count:
                            count = seen
                            yield batch.slice(skip).columns
                return
            except pa.ArrowInvalid as error:
                # A row is longer than a block.
                if not re.search("straddling|block size|Empty CSV", str(error)) or block >= self._largest_block:
                    self._refuse_open_quote()
                    raise
                block = min(16 * block, self._largest_block)

    def _options(self, places: Sequence[int], block: int) -> dict[str, Any]:
        # By position, because names may occur twice; an empty value is empty text.
        columns = [f"f{j}" for j in places]
        return {
            "read_options": pyarrow.csv.ReadOptions(
                use_threads=False, block_size=block, autogenerate_column_names=True
            ),
            "parse_options": pyarrow.csv.ParseOptions(
                delimiter=self.delimiter,
                newlines_in_values=self._has_quotes,
                # In a single column an empty line is a missing value.
                ignore_empty_lines=len(self.names) > 1,
            ),
            "convert_options": pyarrow.csv.ConvertOptions(
                strings_can_be_null=False, include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
            ),
        }

    @functools.cached_property
    def _counts(self) -> tuple[int, int]:
        """The file's quotes and bytes."""
        quotes = size = 0
        with _bytes_of(self.path) as stream:
            while chunk := stream.read(2**24):
                quotes, size = quotes + chunk.count(b'"'), size + len(chunk)
        return quotes, size

    @property
    def _has_quotes(self) -> bool:
        return self._counts[0] > 0

    @property
    def _largest_block(self) -> int:
        # Text in another encoding may take up to three times its bytes in UTF-8.
        return min(3 * self._counts[1] + _BLOCK, _LARGEST_BLOCK)

    def _refuse_open_quote(self) -> None:
        """Refuse a file that ends within a quoted field: it was cut, and pyarrow would read it nevertheless."""
        with self._lines() as lines:
            try:
                for _ in csv.reader(lines, delimiter=self.delimiter, strict=True):
                    pass
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise BadInput(
                        f"{for_message(self.path)} ends within a quoted field: it was cut, or a quote is not closed"
                    ) from None

    def check_header(self, target: str | None, used: Sequence[str]) -> None:
        """Refuse names that look like values of a file without a header. target: its position is kept.

        used: names that were asked for.
        """
        if self._spelling.header != "auto":
            return
        numbers = [name for name in self.names if self._spelling.is_number(name)]
        names = [name for name in self.names if name]
        if not numbers or (len(numbers) < len(names) and len(set(numbers)) == len(numbers)
                           and all(re.fullmatch(r"\d{1,4}", name) for name in numbers)):  # fmt: skip
            return
        if 2 * len(numbers) < len(names):
            return
        if target not in self.names and (hint := self.hint(target)):
            raise BadInput(f"{for_message(self.path)} has the names of its columns in a later line", advice=hint)
        advice: dict[str, Any] = {"data.header": "none"}
        if target in self.names:
            advice["data.target"] = f"V{self.names.index(target) + 1}"
        if any(name != target for name in used):
            advice = {}
        raise BadInput(
            f"{for_message(self.path)}: the first row looks like values, not like names ({listed(numbers[:3])}); "
            "if it has the names, set data.header to first",
            advice=advice,
        )

    def hint(self, target: str | None = None) -> dict[str, Any]:
        """Return settings with which the file would be read as a table; empty if none is seen. target: a name that its
        header has.
        """
        with self._text() as text:
            every = [*enumerate(islice(text, 1000))]
        headers = [k for k, line in every if target is not None and target in _fields(line, self.delimiter)]
        if headers and headers[0] > self._skip:
            return {"data.skip_lines": headers[0]}
        lines = [(k, line) for k, line in every if line.strip()][:200]
        sign = lines[0][1][0] if lines and self._spelling.comment is None and lines[0][1][0] in "#%!/*" else None
        if sign and [_width(line, self.delimiter) for _, line in lines].count(len(self.names)) == len(lines):
            # A name may begin with such a character.
            sign = None
        hint: dict[str, Any] = {} if sign is None else {"data.comment": sign}
        known = sign or self._spelling.comment
        body = [(k, line) for k, line in lines if known is None or not line.startswith(known)]
        best: tuple[tuple[bool, int], str, int] | None = None
        for delimiter in _DELIMITERS:
            widths = [_width(line, delimiter) for _, line in body]
            common = Counter(widths).most_common(1)
            if not common or common[0][0] < 2 or common[0][1] * 10 < 7 * len(widths):
                continue
            width = common[0][0]
            while widths[-1] not in (width, width - 1):
                # A note below the table.
                widths.pop()
            # A header may lack the name of the row names; a single word is a title.
            first = next(k for k, count in enumerate(widths) if count == width or count == width - 1 > 1)
            # Many columns, and rather those of all lines: a title may have as many words as a table has columns.
            score = all(count == width for count in widths[first:]), width * (3 if first else 4)
            if all(count in (width, width - 1) for count in widths[first:]) and (best is None or score > best[0]):
                best = score, delimiter, body[first][0]
        if best is not None:
            _, delimiter, skipped = best
            if delimiter not in (self.delimiter, self._spelling.delimiter):
                hint["data.delimiter"] = "tab" if delimiter == "\t" else delimiter
            # Lines that are comments need not be skipped too.
            skipped -= sum(k < skipped and known is not None and line.startswith(known) for k, line in every)
            if skipped != self._skip and skipped:
                hint["data.skip_lines"] = skipped
        return hint or self._footer_hint()

    def _footer_hint(self) -> dict[str, Any]:
        """Return how many lines after the table to skip, if they are text of another width than its rows."""
        with self._text() as text:
            last = deque(text, _MOST_NOTES)
        notes = blank = 0
        for line in reversed(last):
            fields = _fields(line, self.delimiter)
            if not line.strip():
                blank += 1
            elif len(fields) == len(self.names) or self._spelling.is_number(fields[0]):
                break
            else:
                notes, blank = notes + blank + 1, 0
        skipped = notes if notes + blank < len(last) else 0
        return {"data.skip_footer": skipped} if skipped > self._spelling.skip_footer else {}


def _width(line: str, delimiter: str) -> int:
    return len(_fields(line, delimiter))


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == "whitespace":
        return _FIELD.findall(line)
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]


def encoding_hint(path: Path) -> dict[str, Any]:
    """Return an encoding in which the start of a file is text."""
    with _bytes_of(path) as stream:
        start = stream.read(_SAMPLE)
    for encoding in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeError):
            start.decode(encoding)
            return {"data.encoding": encoding}
    return {}
