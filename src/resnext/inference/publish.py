"""Sends an exported folder to the Hugging Face Hub, as one commit. Imports no torch."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from resnext.config.redaction import redact_urls
from resnext.config.weights_file import TIMM_CARD, TIMM_CONFIG, TIMM_WEIGHTS
from resnext.errors import RunFailed, UserError, describe_error
from resnext.files import check_regular, read_text

NEEDED = (TIMM_CARD, TIMM_CONFIG, TIMM_WEIGHTS)
LOGIN = "set HF_TOKEN to a token that may write, or log in (hf auth login)"


class Target(NamedTuple):
    """A repository on the hub. `revision` is a branch; None is the main branch."""

    repo: str
    private: bool
    revision: str | None

    @property
    def url(self) -> str:
        return redact_urls(f"{constants.ENDPOINT}/{self.repo}")


def check_target(target: Target) -> None:
    """Raises UserError if the names cannot be those of a repository and a branch."""
    if target.repo.count("/") != 1:
        raise UserError(f"--repo={target.repo} is not OWNER/NAME")
    try:
        validate_repo_id(target.repo)
    except HFValidationError as error:
        raise UserError(f"--repo={target.repo} is not OWNER/NAME: {str(error).removesuffix('.')}") from None
    if target.revision is not None and (not target.revision or target.revision.startswith(("-", "refs/"))):
        raise UserError(f"--revision={target.revision} is not the name of a branch")


def check_login() -> None:
    """Raises UserError if nothing can be sent from here. Sends nothing, except to renew a stored login."""
    if constants.is_offline_mode():
        raise UserError("--send needs an internet connection, but HF_HUB_OFFLINE is set: unset it")
    with _explained(None, "nothing was sent"):
        token = huggingface_hub.get_token()
    if token is None:
        raise UserError(f"--send needs a token of the hub: {LOGIN}")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UserError(f"the token of the hub has a character that is not allowed: {LOGIN}")


def find_files(folder: Path) -> list[Path]:
    """All files of an exported folder, sorted, without hidden ones.

    Raises:
        UserError: if the folder is not one that `export --format timm` wrote, or is damaged.
    """
    again = "write the folder again (resnext export RUN --format timm)"
    for name in NEEDED:
        try:
            check_regular(folder / name)
        except FileNotFoundError:
            raise UserError(f"{folder} has no {name}: {again}") from None
    try:
        if "architecture" not in json.loads(read_text(folder / TIMM_CONFIG)):
            raise UserError(f"{folder / TIMM_CONFIG} does not name an architecture: {again}")
        with safe_open(folder / TIMM_WEIGHTS, "np"):
            pass
    except (SafetensorError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} is damaged ({describe_error(error)}): {again}") from None
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in paths if not any(part.startswith(".") for part in path.parts)]


def find_license(folder: Path) -> str | None:
    """The licence in the front matter of README.md. Raises UserError if the front matter cannot be read."""
    try:
        found = ModelCard(read_text(folder / TIMM_CARD)).data.get("license")
    except Exception as error:  # yaml's, and the hub's about an entry of another type
        raise UserError(f"{folder / TIMM_CARD} has front matter that cannot be read: {describe_error(error)}") from None
    return str(found) if found else None


def send(folder: Path, files: list[Path], target: Target) -> str:
    """Creates the repository if it does not exist, and adds or replaces `files` in one commit. Returns its address.

    Not `upload_folder`: with hf_xet installed, it may make several commits.

    Raises:
        UserError: if the hub refuses the token, the name, the model card or the branch; or if the repository must be
            private and is not.
        RunFailed: if the hub cannot be reached, or fails.
    """
    api = HfApi(token=True, library_name="resnext")
    with _explained(target, "no file was sent"):
        api.create_repo(target.repo, private=target.private or None, exist_ok=True)
        if target.private and not api.repo_info(target.repo).private:
            raise UserError(
                f"--private: {target.url} exists and is public; no file was sent: make it private in its settings, or "
                "choose another name"
            )
        if target.revision is not None:
            api.create_branch(target.repo, branch=target.revision, exist_ok=True)
    unsure = f"look at {target.url} to see whether the commit was made, and repeat the command if not"
    with _explained(target, "no commit was made: the repository is as before, or empty", unsure):
        commit = api.create_commit(
            target.repo,
            [CommitOperationAdd(path.as_posix(), folder / path) for path in files],
            commit_message="Weights, configuration and model card",
            revision=target.revision,
        )
    return redact_urls(str(commit.commit_url))


@contextmanager
def _explained(target: Target | None, state: str, unsure: str | None = None) -> Iterator[None]:
    """Raises UserError or RunFailed for every error of the hub's client, with the `state` that it leaves.

    `unsure` replaces `state` where no answer of the hub says what was done.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of httpx about the hub's client
            yield
    except (UserError, RunFailed):
        raise
    except KeyboardInterrupt:
        raise RunFailed(f"interrupted: {unsure or state}", exit_code=130) from None
    except Exception as error:  # httpx's, the hub's, hf_xet's
        while error.__cause__ is not None and isinstance(error, RuntimeError):  # around the error of an upload
            error = error.__cause__
        raise _translate(error, target, state, unsure or state) from error


def _translate(error: BaseException, target: Target | None, state: str, unsure: str) -> UserError | RunFailed:
    hub = redact_urls(constants.ENDPOINT)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = error.server_message or describe_error(error)
        where = target.url if target is not None else hub
        if status == 401:
            return UserError(f"{where}: the hub refuses the token (401); {state}: {LOGIN}")
        if status == 403:
            return UserError(
                f"{where}: the token may not write there (403); {state}: log in as its owner, use a token that may "
                "write, or choose another OWNER"
            )
        if status < 500:
            return UserError(f"{where}: the hub refuses ({status}: {_shorten(said)}); {state}")
        return RunFailed(f"{where}: the hub fails ({status}: {_shorten(said)}); {state}: try again later")
    if isinstance(error, json.JSONDecodeError):
        return RunFailed(f"{hub} does not answer as the hub does; {unsure}: is HF_ENDPOINT right?")
    if isinstance(error, ValueError):
        return UserError(f"the hub's client refuses ({_shorten(str(error))}); {state}")
    return RunFailed(f"{hub} cannot be reached ({_shorten(describe_error(error))}); {unsure}")


def _shorten(text: str) -> str:
    return redact_urls(" ".join(text.split()))[:300]
