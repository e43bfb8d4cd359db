"""A tiny pipeline with random weights on disk, and walks written as recordings."""

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image

from mirage.denoise.transformer import MirageTransformer
from mirage.geometry.nano import LatentDepthHead
from mirage.pipeline import MiragePipeline
from mirage.video.nano import NanoAutoencoder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a pipeline for 32 x 48 pixels and chunks of 9 frames; its random weights do something everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = MiragePipeline(
            transformer=MirageTransformer(
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=16,
                text_dim=0,
                freq_dim=16,
                ffn_dim=32,
                num_layers=2,
                vace_layers=[0],
                vace_in_channels=17,
                prediction="residual",
            ),
            vae=NanoAutoencoder(widths=(8, 8, 16), blocks=(1, 1, 1)),
            scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
            depth_head=LatentDepthHead(width=8),
            chunk_frames=9,
            num_inference_steps=1,
            size=[32, 48],
        )
        for component in (pipeline.transformer, pipeline.vae, pipeline.depth_head):
            for weight in component.parameters():
                if not weight.any():
                    torch.nn.init.normal_(weight, std=0.02)
    folder = tmp_path_factory.mktemp("tiny")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recorded():
    """Writes a walk to disk, as RGB-D folders are."""

    def write(folder, walk):
        """A walk on disk, as RGB-D folders are."""
        for name in ("rgb", "depth"):
            (folder / name).mkdir(parents=True)
        for i, (frame, depth) in enumerate(zip(walk.frames, walk.depth.numpy(), strict=True)):
            Image.fromarray(frame).save(folder / f"rgb/{i:05}.png")
            Image.fromarray((depth * 500).round().astype(np.uint16)).save(folder / f"depth/{i:05}.png")
        pose = walk.cameras.cam_from_world.numpy()
        k = walk.cameras.intrinsics[0].numpy().copy()
        k[:2, 2] -= 0.5  # the folder puts pixel centres at integers
        np.savez(folder / "cameras.npz", w2c=pose, c2w=np.linalg.inv(pose), K=k, depth_scale=500.0)
        return folder

    return write
