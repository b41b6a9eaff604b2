"""`resnext publish` sends a folder that timm opens; tested against a local stand-in, not against the hub itself."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from resnext.__main__ import run_verb
from resnext.inference.network import open_network
from resnext.training.fit import fit
from support.hub_stand_in import StandIn, hub_stand_in
from support.small_run import make_run, small_config

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
FILES = ("README.md", "config.json", "model.safetensors")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """The stand-in, in place of the hub for this process, whatever the environment says."""
    for name in (*PROXIES, *(name.upper() for name in PROXIES), "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has no Xet storage
    close_session()
    with hub_stand_in() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server
    close_session()


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "own-timm"
    assert run_verb(["export", str(trained), "--format", "timm", "--output", str(folder), "--license", "mit"]) == 0
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of an exported folder, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "own-timm"))


def publish(*arguments: object) -> int:
    return run_verb(["publish", *map(str, arguments)])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_arrives_as_a_folder_that_opens_in_timm(hub: StandIn, trained: Path, capsys: pytest.CaptureFixture[str]):
    assert publish(trained, "--repo", "me/pets", "--license", "mit", "--send") == 0
    output = capsys.readouterr()
    repo = hub.repos["me/pets"]
    assert (repo["private"], repo["commits"], sorted(repo["branches"]["main"])) == (False, 1, sorted(FILES))
    for name, content in repo["branches"]["main"].items():
        Path("received").mkdir(exist_ok=True)
        Path("received", name).write_bytes(content)
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        found = timm.create_model("local-dir:received", pretrained=True).eval()(images)
        torch.testing.assert_close(found, open_network(trained).network(images))
    card = Path("received/README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert "timm.create_model('hf-hub:me/pets', pretrained=True)" in card
    assert "# pets\n" in card
    assert 'open        timm.create_model("hf-hub:me/pets", pretrained=True).eval()' in output.out
    assert f"sent        {hub.url}/me/pets/commit/" in output.out
    assert "hf_writes" not in output.out + output.err


def test_the_dry_run_shows_the_files_and_sends_no_request(
    hub: StandIn, trained: Path, capsys: pytest.CaptureFixture[str]
):
    assert publish(trained, "--repo", "me/pets", "--private") == 0
    output = capsys.readouterr().out
    assert hub.calls == []
    assert f"repository  {hub.url}/me/pets" in output
    assert "visible to  its owner" in output
    assert "licence     missing: give --license ID" in output
    for name in FILES:
        assert f"file        {name}, " in output
    command = output.partition("this sends the files: ")[2].strip()
    assert run_verb(shlex.split(command)[1:]) == 0
    repo = hub.repos["me/pets"]
    assert (repo["private"], repo["commits"]) == (True, 1)
    sizes = {name: len(content) for name, content in repo["branches"]["main"].items()}
    assert all(f"file        {name}, {size:,} bytes" in output for name, size in sizes.items())


def test_the_dry_run_needs_neither_token_nor_connection(
    hub: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert publish(folder, "--repo", "me/pets") == 0
    assert "licence     mit" in capsys.readouterr().out
    assert hub.calls == []


def test_the_dry_run_names_weights_of_an_unknown_licence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = Path(shutil.copytree(trained, tmp_path / "runs/tuned"))
    config = yaml.safe_load((run / "starts/1.yaml").read_text())
    config["model"]["weights"] = "torchvision:resnext50_32x4d"
    (run / "starts/1.yaml").write_text(yaml.safe_dump(config))
    assert publish(run, "--repo", "me/pets") == 0
    output = capsys.readouterr().out
    assert "started     from torchvision:resnext50_32x4d, whose licence is not known here" in output
    assert "licence     missing: give --license ID" in output


def test_all_files_of_a_folder_are_sent_except_hidden_ones(hub: StandIn, folder: Path):
    (folder / "LICENSE").write_text("the text")
    (folder / "images").mkdir()
    (folder / "images/a [1].txt").write_text("a name with a pattern")
    (folder / ".env").write_text("TOKEN=secret")
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("hidden")
    assert publish(folder, "--repo", "me/pets", "--send") == 0
    found = hub.repos["me/pets"]["branches"]["main"]
    sent = [*FILES, "LICENSE", "images/a [1].txt"]
    assert found == {name: (folder / name).read_bytes() for name in sent}


def test_a_second_commit_replaces_the_files(hub: StandIn, folder: Path):
    assert publish(folder, "--repo", "me/pets", "--send") == 0
    card = (folder / "README.md").read_text() + "\nAn addition.\n"
    (folder / "README.md").write_text(card)
    assert publish(folder, "--repo", "me/pets", "--send") == 0
    repo = hub.repos["me/pets"]
    assert repo["commits"] == 2
    assert repo["branches"]["main"]["README.md"].decode() == card


def test_a_branch_is_made_and_main_stays(hub: StandIn, folder: Path, capsys: pytest.CaptureFixture[str]):
    for commits in (1, 2):
        assert publish(folder, "--repo", "me/pets", "--revision", "v2", "--send") == 0
        repo = hub.repos["me/pets"]
        assert (sorted(repo["branches"]["v2"]), repo["branches"]["main"]) == (sorted(FILES), {})
        assert repo["commits"] == commits
    assert 'timm.create_model("hf-hub:me/pets@v2", pretrained=True)' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("pets", "--repo=pets is not OWNER/NAME"),
        ("a/b/c", "--repo=a/b/c is not OWNER/NAME"),
        ("me/", "--repo=me/ is not OWNER/NAME: Repo id must use alphanumeric chars"),
        ("/pets", "--repo=/pets is not OWNER/NAME: Repo id must use alphanumeric chars"),
        ("me/my pets", "--repo=me/my pets is not OWNER/NAME: Repo id must use alphanumeric chars"),
        ("me/a..b", "--repo=me/a..b is not OWNER/NAME: Cannot have -- or .. in repo_id"),
        (f"me/{'x' * 97}", "is not OWNER/NAME: Repo id must use alphanumeric chars"),
    ],
)
def test_an_invalid_name_is_refused_before_anything_is_read(
    repo: str, message: str, capsys: pytest.CaptureFixture[str]
):
    assert publish("no-run", "--repo", repo, "--send") == 2
    assert message in error_of(capsys)


def test_what_is_missing_here_is_said_before_anything_is_written(
    hub: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for token, message in (
        (None, "--send needs a token of the hub: set HF_TOKEN"),
        ("  ", "--send needs a token of the hub: set HF_TOKEN"),
        ("hf_\x01secret", "has a character that is not allowed: set HF_TOKEN"),
        ("hf_sécret", "has a character that is not allowed: set HF_TOKEN"),
    ):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        assert publish(folder, "--repo", "me/pets", "--send") == 2
        line = error_of(capsys)
        assert message in line
        assert "cret" not in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert publish(folder, "--repo", "me/pets", "--send") == 2
    assert "--send needs an internet connection, but HF_HUB_OFFLINE is set: unset it" in error_of(capsys)
    assert hub.calls == []


def test_a_wrong_token_and_a_token_that_only_reads_are_told_apart(
    hub: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    hub.add("me/pets", private=False)
    for token, message in (
        ("hf_expired", "the hub refuses the token (401); no file was sent: set HF_TOKEN"),
        ("hf_reads", "the token may not write there (403); no commit was made"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        assert publish(folder, "--repo", "me/pets", "--send") == 2
        line = error_of(capsys)
        assert message in line
        assert token not in line
    assert hub.repos["me/pets"]["commits"] == 0


def test_a_repository_of_somebody_else_is_refused(hub: StandIn, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert publish(folder, "--repo", "you/pets", "--send") == 2
    assert f"{hub.url}/you/pets: the token may not write there (403); no file was sent" in error_of(capsys)
    hub.add("you/pets", private=False)
    assert publish(folder, "--repo", "you/pets", "--send") == 2
    assert f"{hub.url}/you/pets: the token may not write there (403); no commit was made" in error_of(capsys)
    assert hub.repos["you/pets"]["commits"] == 0


def test_private_is_refused_if_the_repository_is_public(hub: StandIn, folder: Path, capsys: pytest.CaptureFixture[str]):
    hub.add("me/pets", private=False)
    assert publish(folder, "--repo", "me/pets", "--private", "--send") == 2
    assert f"--private: {hub.url}/me/pets exists and is public; no file was sent" in error_of(capsys)
    assert not any("preupload" in call or "commit" in call for call in hub.calls)


def test_a_card_that_the_hub_refuses_is_one_line(hub: StandIn, folder: Path, capsys: pytest.CaptureFixture[str]):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: mit", "license: mine"))
    assert publish(folder, "--repo", "me/pets", "--send") == 2
    line = error_of(capsys)
    assert 'Invalid metadata in README.md. - "license" must be one of [apache-2.0, mit]' in line
    assert "no commit was made" in line


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("/api/repos/create", 500, 1, "the hub fails (500: forced 500); no file was sent: try again later"),
        ("/api/repos/create", 402, 2, "the hub refuses (402: forced 402); no file was sent"),
        ("/api/repos/create", 0, 1, "cannot be reached (RemoteProtocolError: "),
        ("/objects", 403, 2, "the token may not write there (403); no commit was made"),
        ("/me/pets.git", 413, 2, "the hub refuses (413: forced 413); no commit was made"),
        ("/api/models/me/pets/commit", 500, 1, "the hub fails (500: forced 500); no commit was made"),
        ("/api/models/me/pets/commit", 0, 1, "/me/pets to see whether the commit was made, and repeat the command"),
    ],
)
def test_a_failure_of_the_hub_is_one_line_and_leaves_no_half_commit(
    hub: StandIn,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    status: int,
    code: int,
    message: str,
):
    hub.fails[path] = status
    assert publish(folder, "--repo", "me/pets", "--send") == code
    assert message in error_of(capsys)
    assert all(repo["branches"] == {"main": {}} for repo in hub.repos.values())
    hub.fails.clear()
    assert publish(folder, "--repo", "me/pets", "--send") == 0
    assert hub.repos["me/pets"]["commits"] == 1


@pytest.fixture
def listening() -> Iterator[None]:
    """A shell starts a background command with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_says_what_may_have_been_sent(hub: StandIn, folder: Path, capsys: pytest.CaptureFixture[str]):
    hub.fails["/api/models/me/pets/commit"] = -signal.SIGINT
    assert publish(folder, "--repo", "me/pets", "--send") == 130
    line = error_of(capsys)
    assert f"interrupted: look at {hub.url}/me/pets to see whether the commit was made, and repeat the command" in line
    hub.fails = {"/api/repos/create": -signal.SIGINT}
    assert publish(folder, "--repo", "me/pets", "--send") == 130
    assert error_of(capsys) == "resnext publish: interrupted: no file was sent"


def test_a_hub_that_does_not_answer_is_one_line(
    hub: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(constants, "ENDPOINT", "http://user:secret@127.0.0.1:1")
    assert publish(folder, "--repo", "me/pets", "--send") == 1
    line = error_of(capsys)
    assert "http://***@127.0.0.1:1 cannot be reached (ConnectError: " in line
    assert "no file was sent" in line
    monkeypatch.setattr(constants, "ENDPOINT", "no-address")
    assert publish(folder, "--repo", "me/pets", "--send") == 1
    assert "no-address cannot be reached (UnsupportedProtocol: " in error_of(capsys)


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "README.md").unlink(), "has no README.md: write the folder again (resnext export"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors: write the folder again"),
        (cut_weights, "is damaged (SafetensorError: "),
        (lambda folder: (folder / "config.json").write_text("{"), "is damaged (JSONDecodeError: "),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json does not name an architecture"),
        (lambda folder: (folder / "README.md").write_text("---\na: [\n---\n"), "has front matter that cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "is not a run directory"),
    ],
)
def test_a_damaged_folder_is_not_sent(
    hub: StandIn,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    message: str,
):
    damage(folder)
    assert publish(folder, "--repo", "me/pets", "--send") == 2
    assert message in error_of(capsys)
    assert hub.calls == []


def test_a_network_that_timm_cannot_hold_is_refused(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(small_config(image_folder, recipe__batch_size=4, recipe__epochs=1))
    fit(run)
    capsys.readouterr()
    assert publish(run.path, "--repo", "me/pets") == 2
    reason = "timm has no network like it, because it has a cifar stem"
    assert error_of(capsys) == f"resnext publish: runs/test cannot be published: {reason}"


def test_a_license_for_a_written_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert publish(folder, "--repo", "me/pets", "--license", "mit") == 2
    assert f"--license is for a run: write `license: mit` into {folder}/README.md" in error_of(capsys)


@pytest.mark.processes
def test_the_command_takes_the_hub_and_the_token_from_the_environment(
    hub: StandIn, folder: Path, resnext: Callable[..., subprocess.CompletedProcess[str]]
):
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_writes", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    result = resnext("publish", "own-timm", "--repo", "me/pets", "--private", "--send", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert hub.repos["me/pets"]["private"]
    assert sorted(hub.repos["me/pets"]["branches"]["main"]) == sorted(FILES)
    assert "hf_writes" not in result.stdout
