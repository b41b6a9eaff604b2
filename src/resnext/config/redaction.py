"""Finds text that looks like a secret: a run saves its configuration in plain text and sends it to W&B."""

import re

USERINFO = re.compile(r"(?<=://)[^/?#\s]+@")  # user@ or user:password@ of an address
REFUSED_USERINFO = re.compile(r"(?<=://)(?!git@)[^/?#\s]+@")  # git@ is public
SECRET_NAME = re.compile(
    r"(?i)(secret|token|passwords?|passwd|passphrase|credential|apikey)s?\d*(_|$)"
    r"|(^|_)(keys?|pass|pat|auth|dsn|creds?)\d*(_|$)|_pwd?\d*$|key\d*$|(?<!com)(?<!by)pass\d*$"
)
PLACE = re.compile(r"(?i)_(path|file|dir|sock)$")  # the path of a file with a secret is not a secret
ASSIGNMENT = re.compile(r"(?<![\w.-])([A-Za-z]\w*)=(?![\"']?(?:\$|$))")  # NAME=VALUE, where VALUE is not the shell's $…


def redact_urls(text: str) -> str:
    """`http://user:password@host` as `http://***@host`."""
    return USERINFO.sub("***@", text)


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name is likely to hold a password, a token or a key."""
    return SECRET_NAME.search(name) is not None and PLACE.search(name) is None


def find_secret(text: str) -> str | None:
    """Describes what looks like a secret in `text`, without showing it; None if nothing does."""
    if REFUSED_USERINFO.search(text):
        return "an address with a user or a password"
    for name in ASSIGNMENT.findall(text):
        if is_secret_name(name):
            return f"a value for {name}"
    return None
