"""The share of devices and cores of each place, and the text of a failure."""

import os

import pytest

from resnext.errors import UserError
from resnext.sweep.local import find_gpus, share_devices


def test_gpus_and_cores_are_shared_equally(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shares = share_devices(3, [str(number) for number in range(8)])
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, environment in shares] == ["0,1", "2,3", "4,5"]
    assert [cores for cores, _ in shares] == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8, 9}]
    assert {environment["OMP_NUM_THREADS"] for _, environment in shares} == {"3"}


def test_more_places_than_cores_share_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    shares = share_devices(3, [])
    assert all(cores and cores <= {4, 5} for cores, _ in shares)
    assert [environment for _, environment in shares] == [{"OMP_NUM_THREADS": "7"}] * 3


def test_more_places_than_gpus_are_refused():
    with pytest.raises(UserError, match=r"^sweep.parallel=3, but this machine has 2 GPUs"):
        share_devices(3, ["0", "1"])


def test_the_gpus_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert find_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == []
