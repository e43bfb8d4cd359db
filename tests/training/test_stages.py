"""The stages of `train nano` at toy size: data as the loop will see it, losses that start where they should."""

import pytest
import torch

from mirage.denoise.transformer import MirageTransformer
from mirage.geometry.nano import LatentDepthHead
from mirage.training.autoencoder import autoencoder_loss, psnr, random_affine, warp
from mirage.training.clips import Crops, render_clips, to_bytes, to_floats
from mirage.training.denoiser import SampleShards, chunk_batch, denoiser_loss
from mirage.training.depth import depth_loss
from mirage.training.fit import generator, save_atomic
from mirage.training.nano import NanoRecipe, train_nano
from mirage.training.samples import make_samples
from mirage.video.nano import NanoAutoencoder, NanoCodec

SMALL = dict(latent_channels=4, widths=(4, 8, 16), blocks=(1, 1, 1))


@pytest.fixture(scope="module")
def clips():
    return render_clips([11, 12], 33, 48, 32, ["there-and-back", "walk"])


@pytest.fixture(scope="module")
def samples(clips):
    torch.manual_seed(0)
    return make_samples(NanoCodec(NanoAutoencoder(**SMALL).eval()), clips, 0)


def test_clips_depend_on_their_seed_alone(clips):
    again = render_clips([12], 33, 48, 32, ["walk"])
    assert torch.equal(again.frames[0], clips.frames[1]) and torch.equal(again.depth[0], clips.depth[1])


def test_bytes_and_floats_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_floats(levels)), levels)


def test_crops_of_a_step_are_always_the_same(tmp_path, clips):
    save_atomic(vars(clips), tmp_path / "clips-00000.safetensors")
    first, second = Crops(tmp_path, size=16), Crops(tmp_path, size=16)
    second.batch(3)
    assert torch.equal(first.batch(7), second.batch(7)) and first.batch(7).shape == (2, 5, 3, 16, 16)
    assert not torch.equal(first.batch(7), first.batch(8))
    with pytest.raises(ValueError, match="no clips"):
        Crops(tmp_path / "nowhere")


def test_samples_are_what_the_loop_reads(samples):
    assert samples.video.shape == (2, 9, 4, 6, 4) and samples.features.shape == (2, 2, 5, 4, 6, 4)
    # The first frame of the first chunk is the input view itself: all observed, and its own image latents.
    static = samples.observed[:, 0, 0]
    assert static.float().mean() > 0.9
    difference = (samples.features[:, 0, 0] - samples.image[:, 0]).abs().amax(1)
    assert difference[static].max() < 2e-3
    # The end of a there-and-back walk is its beginning: seen, and recalled from frame 0 on.
    assert samples.visible[0, 1, -1].float().mean() > 0.9
    assert (samples.recalled[0, 1] >= 0).any() and (samples.recalled[:, 0] == -1).all()


def test_new_autoencoder_speaks_one_code_for_images_and_video():
    torch.manual_seed(0)
    model = NanoAutoencoder(**SMALL)
    frames = torch.rand(2, 9, 3, 24, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    video = model.encode(frames)
    image = model.encode(frames[:, ::4].flatten(0, 1)[:, None])[:, 0].unflatten(0, (2, 3))
    assert torch.allclose(video, image, atol=1e-6)
    decoded = model.decode(video)
    assert decoded.shape == frames.shape
    assert torch.allclose(decoded[:, 1:5], decoded[:, 4:5].expand(-1, 4, -1, -1, -1), atol=1e-6)


def test_autoencoder_loss_reaches_every_weight():
    torch.manual_seed(0)
    model = NanoAutoencoder(**SMALL)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    value, figures = autoencoder_loss(model, torch.rand(2, 5, 3, 32, 32) * 2 - 1, 0)
    value.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert set(figures) == {"video_db", "image_db", "moved_db", "mismatch"}


def test_psnr_of_a_known_error():
    a = torch.zeros(4)
    assert abs(psnr(a, a + 0.2).item() - 20.0) < 1e-4


def test_one_map_moves_pictures_and_latents_alike():
    """A picture that is linear in place keeps its values under the map, on the fine grid and on the coarse one."""
    ramp = (torch.arange(64) + 0.5) / 64
    picture = ramp.expand(1, 1, 64, 64)
    coarse = torch.nn.functional.avg_pool2d(picture, 8)
    maps = random_affine(1, generator(3)) * 0.5
    fine = torch.nn.functional.avg_pool2d(warp(picture, maps), 8)
    assert (fine - warp(coarse, maps)).abs().max() < 1e-3


def test_denoiser_starts_as_the_memory(samples):
    g, choice = generator(0), generator(1)
    target, conditions = chunk_batch(samples, g, choice)
    net = MirageTransformer(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, text_dim=0, freq_dim=8, ffn_dim=8, num_layers=1,
        vace_layers=[0], vace_in_channels=5, prediction="residual",
    )  # fmt: skip
    value, figures = denoiser_loss(net, target, conditions, g)
    assert abs(figures["seen"].item() - figures["memory"].item()) < 1e-5
    value.backward()
    assert net.proj_out.weight.grad.abs().sum() > 0


def test_conditions_of_training_are_those_of_the_loop(samples):
    seen = set()
    for step in range(40):
        target, c = chunk_batch(samples, generator(step), generator(7, step))
        assert target.shape == (2, 5, 4, 6, 4) and c.first.shape == (2, 1, 4, 6, 4)
        assert (c.features * ~c.visible[:, :, None] == 0).all()
        count = 0 if c.reference is None else c.reference.shape[1]
        seen.add((0 if c.preceding is None else c.preceding.shape[1], count))
    assert seen == {(0, 0), (2, 0), (2, 1), (2, 2)}


def test_depth_head_starts_as_the_projected_depth():
    torch.manual_seed(0)
    head = LatentDepthHead(4)
    prior = torch.rand(2, 5, 7) * 5 + 0.5
    log = head(torch.randn(2, 4, 5, 7), torch.zeros(2, 2, 5, 7), prior)
    assert torch.allclose(log.exp(), prior.repeat_interleave(2, 1).repeat_interleave(2, 2), rtol=1e-4)


def test_depth_loss_is_finite_and_learns_from_holes(samples):
    torch.manual_seed(0)
    head = LatentDepthHead(4)
    value, figures = depth_loss(head, samples, generator(0), generator(1))
    value.backward()
    assert value.isfinite() and figures["with_prior"] < figures["alone"]
    assert head.leave[0].weight.grad.abs().sum() > 0


def test_shards_of_one_size_go_together(tmp_path, samples):
    for i in range(2):
        save_atomic({k: v.contiguous() for k, v in vars(samples).items()}, tmp_path / f"samples-{i:05}.safetensors")
    drawn, _ = SampleShards(tmp_path).draw(0, 3)
    assert drawn.video.shape[0] == 6
    with pytest.raises(ValueError, match="no samples"):
        SampleShards(tmp_path / "nowhere")


def test_stages_name_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="stages must be of clips"):
        train_nano(tmp_path, NanoRecipe(), stages=("cook",))
    with pytest.raises(ValueError, match="run the stage 'denoiser' first"):
        train_nano(tmp_path, NanoRecipe(), stages=("pack",))
