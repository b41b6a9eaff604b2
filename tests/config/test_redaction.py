"""Which names and values count as secrets."""

import pytest

from resnext.config.redaction import find_secret, is_secret_name, redact_urls


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "MYSQL_PWD",
        "DB_PASS",
        "my_secret",
        "APIKEY",
        "GITHUB_PAT",
        "SSHPASS",
        "DB_PASS1",
        "APIKEY2",
        "TOKEN1",
        "HF_AUTH",
        "OPENAIKEY",
        "SENTRY_DSN",
        "AWS_CRED",
        "passwords",
    ],
)
def test_these_names_are_secrets(name: str):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["HOME", "PWD", "OLDPWD", "SCRATCH", "KEYBOARD", "TOKENIZERS_PARALLELISM", "COMPASS", "HF_TOKEN_PATH"]
)
def test_these_names_are_not_secrets(name: str):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:hunter2@host:8080/a@b", "https://***@host:8080/a@b"),
        ("s3://hunter2@bucket and http://a:b@c", "s3://***@bucket and http://***@c"),
        ("http://host/a@b", "http://host/a@b"),
        ("/data/me@home", "/data/me@home"),
    ],
)
def test_users_and_passwords_in_addresses_are_hidden(text: str, shown: str):
    assert redact_urls(text) == shown
    assert (find_secret(text) is None) == (text == shown)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("export WANDB_API_KEY=hunter2", "WANDB_API_KEY"),
        ("--export=ALL,HF_TOKEN=hunter2", "HF_TOKEN"),
        ('WRAP="apptainer exec --env DB_PASSWORD=hunter2 torch.sif"', "DB_PASSWORD"),
        ("export WANDB_API_KEY=$(cat ~/.wandb)", None),
        ('export HF_TOKEN="$TOKEN"', None),
        ("module load cuda/12.8", None),
        ("sort --key=2 list", None),
        ("git clone ssh://git@github.com/a/b", None),
        ("rand-m7-mstd0.5-inc1", None),
    ],
)
def test_secrets_set_in_a_shell_line_are_found(text: str, found: str | None):
    secret = find_secret(text)
    assert secret is None if found is None else secret is not None and found in secret
    assert "hunter2" not in str(secret)
