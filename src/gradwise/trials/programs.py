"""What a command line does to the world outside, where that is known: most programs that scripts start only look."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from gradwise.trials.effects import MAKE, MOVE, WRITE, FileEffect

_READERS = frozenset({
    "arch", "cat", "date", "df", "du", "echo", "false", "file", "free", "getconf", "grep", "head", "hostname", "id",
    "ldconfig", "ldd", "ls", "lsb_release", "lscpu", "lspci", "locale", "nproc", "nvidia-smi", "objdump", "pgrep",
    "printf", "ps", "pwd", "readelf", "rocm-smi", "rocminfo", "sleep", "stat", "stty", "sysctl", "tail", "test",
    "tput", "true", "uname", "uptime", "wc", "whereis", "which", "whoami",
})  # fmt: skip
_COMPILERS = frozenset({
    "ar", "as", "c++", "cc", "cicc", "clang", "clang++", "cpp", "cuobjdump", "fatbinary", "g++", "gcc", "hipcc",
    "hipconfig", "icpx", "icx", "ld", "ld.lld", "lld", "ninja", "nvcc", "nvdisasm", "ptxas",
})  # fmt: skip
_GIT_READERS = frozenset({
    "--version", "blame", "cat-file", "describe", "diff", "diff-index", "for-each-ref", "grep", "help", "log",
    "ls-files", "ls-tree", "merge-base", "name-rev", "rev-list", "rev-parse", "shortlog", "show", "show-ref",
    "status", "var", "version",
})  # fmt: skip
_ON_FILES = {"mkdir": MAKE, "touch": WRITE, "rm": MOVE}  # as a move does, `rm -r` takes all that is in a folder
_SHELLS = frozenset({"sh", "bash", "dash", "zsh"})
_QUIET = r"(?:\d|&)?>>?\s*(?:/dev/null|&\d)"  # redirections that keep output to themselves
_UNKNOWN = r"[$`<>*?\[\]{}~()\n]|(?<!&)&(?!&)"  # expansions, redirections to files, background jobs


def program_effects(argv: Sequence[str]) -> list[FileEffect] | None:
    """What a command does to files where that is known (mostly nothing), None where it may do anything.

    >>> program_effects(["git", "rev-parse", "HEAD"]), program_effects(["git", "push"])
    ([], None)
    >>> program_effects(["sh", "-c", "mkdir -p out && nvidia-smi 2>/dev/null"])
    [FileEffect(verb='make', path='out', dir_fd=None)]
    """
    if not argv:
        return None
    name = os.path.basename(argv[0])
    if name in _SHELLS:
        return _shell_effects(argv[2]) if len(argv) == 3 and argv[1] == "-c" else None
    if name in _READERS or _is_compiler(name):
        return []
    if name == "git":
        return [] if _git_reads(argv[1:]) else None
    if name in _ON_FILES:
        return [FileEffect(_ON_FILES[name], operand) for operand in _operands(argv[1:])]
    return None


def describe(argv: Sequence[str]) -> str:
    """The command for a message, shortened."""
    words = argv[2] if len(argv) == 3 and os.path.basename(argv[0]) in _SHELLS and argv[1] == "-c" else " ".join(argv)
    words = " ".join(words.split())
    return words if len(words) <= 80 else words[:77] + "…"


def _shell_effects(command: str) -> list[FileEffect] | None:
    import shlex

    command = re.sub(_QUIET, " ", command)
    if re.search(_UNKNOWN, command):
        return None
    effects: list[FileEffect] = []
    for part in re.split(r"\|\||&&|[|;]", command):
        try:
            words = shlex.split(part)
        except ValueError:
            return None
        more = program_effects(words) if words and os.path.basename(words[0]) not in _SHELLS else None
        if more is None:
            return None
        effects += more
    return effects


def _is_compiler(name: str) -> bool:
    """Whether the program is a compiler, also as "gcc-12" or "x86_64-linux-gnu-gcc"."""
    plain = name.rsplit("-linux-gnu-", 1)[-1]
    head, _, version = plain.rpartition("-")
    return plain in _COMPILERS or (head in _COMPILERS and version.replace(".", "").isdigit())


def _git_reads(words: Sequence[str]) -> bool:
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in _GIT_READERS:
        if rest.pop(0) in ("-C", "-c", "--git-dir", "--work-tree") and rest:
            rest.pop(0)
    if not rest:
        return True
    command, options = rest[0], rest[1:]
    if command == "branch":
        return set(options) <= {"--show-current", "-a", "-v", "--list"}
    if command == "config":
        return any(o.startswith("--get") or o in ("--list", "-l") for o in options)
    if command == "remote":
        return not options or options[0] in ("-v", "get-url", "show")
    return command in _GIT_READERS and not any(o.startswith("--output") for o in options)


def _operands(words: Sequence[str]) -> list[str]:
    after = list(words).index("--") if "--" in words else len(words)
    return [w for w in words[:after] if not w.startswith("-")] + list(words[after + 1 :])
