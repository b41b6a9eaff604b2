"""The origin of a run: code, versions and machine, for run.json."""

import hashlib
import os
import platform
import re
import secrets
import socket
import stat
import string
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from resnext.config.paths import PROJECT
from resnext.config.redaction import find_secret
from resnext.registry import load_extensions

PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "wandb", "hydra-core", "numpy", "pillow")
PACKAGE = Path(__file__).parents[1]
MAX_DIFF_BYTES = 200_000
MAX_FILE_BYTES = 100_000  # of an untracked file
SOURCES = (".py", ".pyi", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".sh", ".toml", ".yaml", ".yml")
SETTINGS = (".sh", ".toml", ".yaml", ".yml")
SETTING = re.compile(r"[\"']?[ \t]*(?:=|:(?=\s))[ \t]*")  # between a name and its value
QUOTED = re.compile(r"[\"']?[ \t]*[:=][ \t]*(?=[\"'])")
UNQUOTED = re.compile(r"[=!]=|=(?![ \t]*[\"'])")
# These options override settings in the user's git configuration that would change the output.
DIFF = (
    *("diff", "HEAD", "--relative", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)


def describe_code() -> str | None:
    """The code of this package, and NAME@DIGEST of each installed package that extends it; None if nothing is known."""
    return " ".join(filter(None, [_describe_package(), *_describe_extensions()])) or None


def _describe_package() -> str | None:
    """The git commit of this package and a digest of its uncommitted source; None without git.

    The digest covers the part of `write_diff` in the package, and the untracked source files that `write_diff` leaves
    out because of a secret. Of a file that is left out for another reason, it covers the name and the size. If git
    gives no diff, for example after a time-out, the digest is `+unknown`.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    tracked, untracked = _git(*DIFF, "--", str(PACKAGE)), _untracked(str(PACKAGE))
    if tracked is None or untracked is None:
        return f"{commit.decode().strip()}+unknown"
    changes = tracked + b"".join(_patch(name) or _note(name) for name in untracked if _is_source(name))
    digest = f"+{hashlib.sha256(changes).hexdigest()[:8]}" if changes else ""
    return f"{commit.decode().strip()}{digest}"


def _describe_extensions() -> list[str]:
    """Installed packages with extensions; src/resnext/extensions/ is part of this package's own digest."""
    packages = {module.partition(".")[0] for module in load_extensions()} - {PACKAGE.name}
    return [f"{name}@{_digest_sources(name)}" for name in sorted(packages)]


def _digest_sources(package: str) -> str:
    """The digest of all source files of an imported package, or of the file of a single module."""
    module = sys.modules[package]
    folders = [Path(each) for each in getattr(module, "__path__", ())]
    files = [(path.relative_to(each), path) for each in folders for path in each.rglob("*") if path.suffix in SOURCES]
    if not folders and module.__file__:
        files = [(Path(package), Path(module.__file__))]
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(os.fsencode(name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:8]


def write_diff(path: Path) -> None:
    """Writes the uncommitted changes, if any, as a patch for `git apply`.

    The patch has all changes to tracked files, without a check for secrets. It also has the untracked source files in
    src/ and configs/: files that git does not ignore, that are not hidden, have a suffix in SOURCES and no secret in
    their text. At its end it only names the other untracked files there: a .env, a key, a file with a password. If
    the patch is cut at MAX_DIFF_BYTES, its last line says so.
    """
    untracked = _untracked("src", "configs") or []
    patches = {name: _patch(name) for name in untracked if _is_source(name)}
    patches = {name: patch for name, patch in patches.items() if patch and not _has_secret(name, patch)}
    notes = [_note(name) for name in untracked if name not in patches]
    tracked = _git(*DIFF)
    if tracked is None and untracked:
        notes.append(b"# git gave no diff: changes to tracked files are not in this file\n")
    text = b"".join([tracked or b"", *patches.values(), *notes])
    if text:
        path.write_bytes(text if len(text) <= MAX_DIFF_BYTES else _cut(text))


def describe_machine() -> dict[str, Any]:
    """Host, cores, SLURM job and package versions."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def new_wandb_id() -> str:
    """Eight characters, like W&B's own ids."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _untracked(*folders: str) -> list[str] | None:
    """The files in `folders` that git neither tracks nor ignores, relative to PROJECT; None if git fails."""
    found = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *folders)
    return None if found is None else sorted(map(os.fsdecode, filter(None, found.split(b"\0"))))


def _is_source(name: str) -> bool:
    return name.endswith(SOURCES) and not any(part.startswith(".") for part in name.split("/"))


def _has_secret(name: str, patch: bytes) -> bool:
    """In code only a quoted value counts: `token = "…"`, but neither `sorted(rows, key=len)` nor `token: str`."""
    text = patch.decode(errors="replace")
    text = SETTING.sub("=", text) if name.endswith(SETTINGS) else QUOTED.sub("=", UNQUOTED.sub(" ", text))
    return any(find_secret(line) for line in text.splitlines())


def _patch(name: str) -> bytes | None:
    """The patch that adds the file; None if it is not a regular file of text, or larger than MAX_FILE_BYTES."""
    path = PROJECT / name
    try:
        found = path.lstat()  # a link may lead to a secret, or to a device
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    if b"\0" in content or not name.isprintable():
        return None
    return _new_file(os.fsencode(name), content)


def _new_file(name: bytes, content: bytes) -> bytes:
    header = b"diff --git a/%b b/%b\nnew file mode 100644\n" % (name, name)
    if not content:
        return header + b"index 0000000..e69de29\n"  # git apply refuses an empty file without this line
    lines = content.removesuffix(b"\n").split(b"\n")
    end = b"" if content.endswith(b"\n") else b"\\ No newline at end of file\n"
    added = b"".join(b"+%b\n" % line for line in lines)
    return header + b"--- /dev/null\n+++ b/%b\n@@ -0,0 +1,%d @@\n" % (name, len(lines)) + added + end


def _note(name: str) -> bytes:
    try:
        size = f"{(PROJECT / name).lstat().st_size:,} bytes"
    except OSError as error:
        size = error.strerror
    return f"# untracked and not copied: {ascii(name)[1:-1]} ({size})\n".encode()


def _cut(text: bytes) -> bytes:
    """The complete lines up to MAX_DIFF_BYTES, and a line with the number of missing bytes."""
    kept = text[: text.rfind(b"\n", 0, MAX_DIFF_BYTES) + 1]
    return kept + b"# cut here: %s more bytes are not in this file\n" % f"{len(text) - len(kept):,}".encode()


def _git(*arguments: str) -> bytes | None:
    """The output of git; None if git is missing, fails, or takes more than 20 s."""
    try:
        command = ["git", "-C", str(PROJECT), *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
