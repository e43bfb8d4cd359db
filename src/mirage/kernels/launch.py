"""How the Triton kernels are started."""

import torch
import triton

if not hasattr(triton, "knobs"):
    raise ImportError(f"triton is {triton.__version__}, and the kernels need 3.4 or later")
INTERPRETED = triton.knobs.runtime.interpret  # TRITON_INTERPRET=1: on the CPU, for tests


def launch(kernel: object, grid: tuple[int, ...], *arguments, **constants) -> None:
    """Start a kernel on the device of its first tensor, with every product and sum rounded by itself.

    Args:
        kernel: What `triton.jit` made.
        grid: Numbers of programs.
        arguments: Tensors, contiguous, the first of them on the device; and numbers.
        constants: What the kernel is compiled for, by name.

    Raises:
        ValueError: If the tensors are not on a GPU, and Triton's interpreter is not on either.
    """
    device = arguments[0].device
    if not (device.type == "cuda" or INTERPRETED):
        raise ValueError(
            f"tensors must be on a GPU for the gpu kernels, got {device}: move them or choose the cpu ones"
        )
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants, enable_fp_fusion=False)
