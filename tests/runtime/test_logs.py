"""The messages of a run on the terminal and in log.txt."""

import logging
from pathlib import Path

import pytest

from resnext.runtime.logs import logging_to


def test_a_password_in_an_address_is_not_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with logging_to(tmp_path, rank=0):
        log = logging.getLogger("resnext.test")
        log.warning("no answer from %s", "http://user:hunter2@host/path")
        try:
            raise ConnectionError("https://hunter2@host")
        except ConnectionError:
            log.error("it broke", exc_info=True)
    text = (tmp_path / "log.txt").read_text()
    assert "no answer from http://***@host/path" in text
    assert "ConnectionError: https://***@host" in text
    assert "hunter2" not in text + "".join(capsys.readouterr())
