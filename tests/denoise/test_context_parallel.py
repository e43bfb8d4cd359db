"""Two processes that share the tokens of one video find what one process finds."""

import socket
import subprocess
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mirage.denoise.transformer import MirageTransformer

SIZE = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 6, "text_dim": 8, "freq_dim": 16}
SIZE |= {"ffn_dim": 32, "num_layers": 3, "vace_layers": (0, 2), "vace_in_channels": 7}


def share(rank: int, port: int) -> None:
    from diffusers import ContextParallelConfig

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.accelerator.device_count = lambda: 1  # diffusers numbers accelerators, of which a CPU has none
    torch.manual_seed(0)
    net = MirageTransformer(**SIZE).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    given = (
        torch.randn(1, 6, 4, 4, 6),
        torch.tensor([[0.0, 500, 500, 0]]),
        torch.randn(1, 5, 8),
        torch.randn(1, 7, 3, 4, 6),
    )
    calls = []
    net.blocks[1].attn1.register_forward_pre_hook(lambda _, given: calls.append(given[0].shape[1]))
    with torch.no_grad():
        want = net(*given, num_reference=1)
        net.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
        got = net(*given, num_reference=1)
    dist.destroy_process_group()
    assert calls == [24, 12], "each process has half of the tokens"
    assert got.shape == want.shape and (got - want).abs().max() < 1e-5 * want.abs().max()


def test_two_processes_find_what_one_finds():
    """In a process of its own, which imports what is needed once and forks."""
    done = subprocess.run([sys.executable, "-W", "ignore", __file__], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(share, args=(port,), nprocs=2, start_method="fork")
