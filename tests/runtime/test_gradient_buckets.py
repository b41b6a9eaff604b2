"""The layout of the gradient buckets depends only on the network, not on the order or number of the steps."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnext.runtime.gradient_buckets import fix_buckets

BATCH = torch.randn(4, 3, 8, 8)


class Crossed(nn.Module):
    """Runs its layers in another order than their declaration."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 2)
        self.norm = nn.BatchNorm2d(6)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.stem = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.head(self.norm(self.stem(x)).relu().mean((2, 3))))


class Task(nn.Module):
    """Holds a network, as ClassificationTask does. The network may be compiled in place; the task is not."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


@pytest.fixture(scope="module", autouse=True)
def _single_process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def layout_in_a_training(network: nn.Module, *, fixed: bool) -> list[int]:
    """The numbers of the trained parameters in DDP's order after three steps."""
    model = DistributedDataParallel(Task(network), forward_sync_buffers=False, gradient_as_bucket_view=True)
    if fixed:
        fix_buckets(model)
    for _ in range(3):
        model(BATCH).sum().backward()
        network.zero_grad()
    return [int(number) for number in model._get_ddp_logging_data()["rebuilt_per_bucket_param_indices"].split()]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_layout_is_the_reverse_of_the_parameters(compiled: bool):
    network = Crossed()
    if compiled:
        network.compile(backend="aot_eager")
    assert layout_in_a_training(network, fixed=True) == [5, 4, 3, 2, 1, 0]


def test_plain_ddp_uses_the_order_in_which_gradients_become_ready():
    assert layout_in_a_training(Crossed(), fixed=False)[:2] == [1, 0]  # the head is declared first


def test_fix_buckets_changes_nothing_else():
    network = Crossed()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = DistributedDataParallel(Task(network), forward_sync_buffers=False, gradient_as_bucket_view=True)
    random = torch.get_rng_state()
    fix_buckets(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network(BATCH).shape == (4, 2)
