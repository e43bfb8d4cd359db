"""Fixtures of all tests."""

import os
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
if not torch.cuda.is_available():  # Triton's kernels then run in its interpreter; read when triton is first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and real data, or a skip that says what to do."""
    folder = Path(os.environ.get("MIRAGE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no golden vectors and real data at {folder}: set MIRAGE_SHARED to the folder that holds them")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def unchecked():
    """Turn the check of annotations off, as it is for users, so that a test sees the errors that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a pipeline for 32 x 48 pixels and chunks of 9 frames, random weights everywhere."""
    from diffusers import UniPCMultistepScheduler

    from mirage.denoise.transformer import MirageTransformer
    from mirage.geometry.nano import LatentDepthHead
    from mirage.pipeline import MiragePipeline
    from mirage.video.nano import NanoAutoencoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "text_dim": 0, "freq_dim": 16}
        size |= {"ffn_dim": 32, "num_layers": 2, "vace_layers": [0], "vace_in_channels": 17, "prediction": "residual"}
        pipeline = MiragePipeline(
            transformer=MirageTransformer(**size),
            vae=NanoAutoencoder(widths=(8, 8, 16), blocks=(1, 1, 1)),
            scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
            depth_head=LatentDepthHead(width=8),
            chunk_frames=9,
            reference_frames=2,
            num_inference_steps=2,
            size=[32, 48],
        )
        for part in (pipeline.transformer, pipeline.vae, pipeline.depth_head):
            for weight in part.parameters():
                if not weight.any():
                    torch.nn.init.normal_(weight, std=0.02)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture of 90 x 60 pixels with something in it."""
    y, x = np.mgrid[:60, :90]
    picture = np.stack([x * 2, y * 4, 128 + 100 * np.sin(x / 5) * np.cos(y / 7)], -1).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    return path
