"""The entry point of `lntx`: parse options, run a command, and turn errors into an exit code and one message."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import os
import sys
import tomllib
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError
from pydantic import ValidationError

from flows.cli.app import COMMANDS, app, command, print_json
from flows.cli.options import SECTIONS, options_of
from flows.cli.progress import clear_progress, progress_shown
from flows.cli.signals import ended_by_signals
from lntx.base.errors import BadInput, LntxError
from lntx.base.stages import STAGES
from lntx.base.text import MAX_NAME, EscapedLines, JsonLines, for_message, quoted
from lntx.config.loading import KEYS, explain, is_list, unknown

_INTERRUPTED = 130
_GLOBALS = ("--json", "--root", "--log-format", "-q", "--quiet", "-v", "--verbose")
_GOES_ON = {"run", "fit", "sweep"}
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def run_command(tokens: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    if sys.stdout is None or sys.stderr is None:
        # The caller closed the stream: discard what is printed.
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open until the process ends)
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    words = _last_of_each(_spell_out_force(_globals_last(list(sys.argv[1:] if tokens is None else tokens))))
    options = set(words[: words.index("--")] if "--" in words else words)
    verbose = not options.isdisjoint({"-v", "--verbose"})
    is_quiet = not options.isdisjoint({"-q", "--quiet"})
    is_json = "--log-format=json" in options or ("--log-format", "json") in itertools.pairwise(words)
    _set_up_logging(quiet=is_quiet, verbose=verbose, as_json=is_json)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal lacks must not suppress the verdict.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if words and words[0] in COMMANDS:
            command(words[0])
        with (
            ended_by_signals(),
            contextlib.nullcontext() if is_quiet else progress_shown(),
        ):
            code = app(words, exit_on_error=False, print_error=False, result_action="return_value") or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output is gone: exit without a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        advice = ": the same command goes on from what is stored" if words[:1] and words[0] in _GOES_ON else ""
        code = _fail("Interrupted", f"interrupted{advice}", _INTERRUPTED, as_json="--json" in options)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        code = _fail(*_describe(error), as_json="--json" in options)
    try:
        sys.stdout.flush()
    except OSError:
        # Otherwise Python would report the error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _describe(error: Exception) -> tuple[str, str, int]:
    """Return the kind, message and exit code of an error."""
    if isinstance(error, CycloptsError):
        return BadInput.kind, _usage(error), BadInput.exit_code
    if isinstance(error, LntxError):
        advice = options_of(error.advice) if isinstance(error, BadInput) else ""
        lines = [*error.args, *([f"add {advice}"] if advice else [])]
        return error.kind, "\n".join(lines), error.exit_code
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        place = f" {for_message(error.filename)}" if error.filename else ""
        return "DiskFull", f"cannot write{place}: {error.strerror}: free some space, or choose another --root", 1
    if isinstance(error, OSError) and error.filename:
        is_permitted = error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS)
        advice = "see what is there" if is_permitted else "see its owner and mode, or choose another --root"
        kind = type(error).__name__ if is_permitted else "NotPermitted"
        return kind, f"cannot use {for_message(error.filename)}: {error.strerror}: {advice}", 1
    if isinstance(error, tomllib.TOMLDecodeError):
        # Files of lntx's own settings are refused by name; what is left is what Prefect reads when it is imported.
        folder = os.environ.get("PREFECT_HOME") or "~/.prefect"
        message = f"Prefect's settings cannot be read ({for_message(error)}): mend or remove {folder}/profiles.toml"
        return BadInput.kind, message, BadInput.exit_code
    message = for_message(error) or "no message"
    return type(error).__name__, f"{type(error).__name__}: {message} (-v shows where)", 1


def _usage(error: CycloptsError) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ValidationError):
        name = cause.title.removeprefix("nullable[").removesuffix("]")
        return str(BadInput(*explain(cause, section=SECTIONS.get(name))))
    if isinstance(error, UnknownOptionError):
        own = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
        keys = [f"--{key.replace('_', '-')}" for key in KEYS]
        takes_keys = any(name in own for name in ("--config", *keys))
        return unknown("option", error.token.keyword or error.token.value, [*own, *(keys if takes_keys else ())])
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.command_chain:
        name = " ".join(error.command_chain)
        what = error.argument.name if error.argument.names else "a word"
        return f"lntx {name} needs {what}: see lntx {name} --help"
    words = error.unused_tokens or [""]
    if isinstance(error, UnknownCommandError) and (words[0] in STAGES or words[0].startswith("-")):
        if words[0] in STAGES:
            return f"{words[0]} is a stage: lntx run --only {words[0]}"
        return f"options come after the command, such as lntx run {for_message(words[0], MAX_NAME)}"
    if isinstance(error, UnusedCliTokensError):
        advice = f": for one stage, lntx run --only {words[0]}" if words[0] in STAGES else ""
        return f"unexpected word {quoted(words[0], MAX_NAME)}{advice}"
    return for_message(str(error).splitlines()[0])


def _fail(kind: str, message: str, code: int, *, as_json: bool) -> int:
    clear_progress()
    # If nothing can be written, the exit code alone reports the error.
    with contextlib.suppress(OSError):
        if as_json:
            print_json({"error": {"kind": kind, "message": message, "exit_code": code}})
            sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(f"lntx: {message}", file=sys.stderr)
    return code


def _globals_last(words: list[str]) -> list[str]:
    """Move global options from before the command to after it."""
    early: list[str] = []
    while words and words[0].split("=")[0] in _GLOBALS:
        takes_value = words[0] in ("--root", "--log-format")
        early += words[: 1 + takes_value]
        words = words[1 + takes_value :]
    return [*words[:1], *early, *words[1:]]


def _spell_out_force(words: list[str]) -> list[str]:
    """Give `--force` the stages that follow it, or "all", so that it never takes the file of `fit` as a stage."""
    if words[:1] not in (["run"], ["fit"], ["plan"]):
        return words
    spelled: list[str] = []
    has_positional = words[:1] == ["fit"]
    while words:
        word, *words = words
        if word != "--force":
            spelled.append(word)
            continue
        stages = list(
            itertools.takewhile(
                lambda name: name in (*STAGES, "all") or not (has_positional or name.startswith("-")), words
            )
        )
        words = words[len(stages) :]
        spelled += [f"--force={name}" for name in stages or ["all"]]
    return spelled


def _last_of_each(words: list[str]) -> list[str]:
    """Keep the last of several values of a key that takes one, so that a setting can be added to a command."""
    single = {f"--{key.replace('_', '-')}" for key in KEYS if not is_list(key)} | {"--target"}
    result: list[str] = []
    seen: set[str] = set()
    for k in reversed(range(len(words))):
        name, sign, _ = words[k].partition("=")
        if name in single and name in seen and (sign or result):
            if not sign:
                # The value that follows goes with it.
                result.pop()
            continue
        seen.add(name)
        result.append(words[k])
    return result[::-1]


def _set_up_logging(*, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Send log lines of the core to stderr."""
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(message)s"))
    if as_json:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER", "json")
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(handler)
    handler.addFilter(EscapedLines())
    core = logging.getLogger("lntx")
    core.setLevel(logging.INFO)
    core.propagate = False
    core.addHandler(handler)
    # No usage data is sent.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR" if quiet else "INFO")
