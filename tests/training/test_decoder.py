"""The decoder's own stage: true motion, an encoder that stands still, and a result that is used."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mirage.training.clips import render_clips, to_floats
from mirage.training.decoder import Moments, decoder_loss, flow_loss, true_flows
from mirage.training.fit import save_atomic
from mirage.training.nano import NanoRecipe, train_nano, trained_codec
from mirage.video.nano import ENCODING, NanoAutoencoder
from mirage.video.nano_motion import carry

SMALL = dict(latent_channels=4, widths=(4, 8, 16), blocks=(1, 1, 1))


@pytest.fixture(scope="module")
def clips():
    return render_clips([11, 12], 9, 48, 32, ["walk", "there-and-back"])


def test_true_motion_carries_the_latent_frames_to_those_between(clips):
    flows, sure = true_flows(clips)
    assert flows.shape == (2, 2, 3, 2, 2, 12, 8) and sure.shape == (2, 2, 3, 12, 8)
    colour = to_floats(clips.frames)
    carried, still = [], []
    for g in range(2):
        fine = F.interpolate(flows[:, g].flatten(1, 3), scale_factor=4, mode="bilinear").unflatten(1, (3, 2, 2))
        for side, frame in enumerate((4 * g, 4 * g + 4)):
            seen, inside = carry(colour[:, frame], fine[:, :, side])
            truth = colour[:, 4 * g + 1 : 4 * g + 4]
            carried.append(((seen - truth).abs() * inside[:, :, None]).mean())
            still.append(((colour[:, frame, None] - truth).abs() * inside[:, :, None]).mean())
    assert sum(carried) < 0.5 * sum(still)  # coarse pixels, edges and all


def test_motion_is_not_sure_on_movers():
    moving = render_clips([19], 5, 32, 48, ["pan"])  # every fourth world has some
    _, sure = true_flows(moving)
    frames = moving.movers[:, 1:4, 2::4, 2::4]
    assert frames.any() and not sure[:, 0][frames].any()


def test_the_error_of_motion_is_nothing_for_the_truth_and_off_movers(clips):
    flows, sure = (x.flatten(0, 1) for x in true_flows(clips))
    least = flow_loss(flows, flows, sure)
    assert flow_loss(flows + 1, flows, sure) > 2 * least
    assert flow_loss(flows + 1, flows, torch.zeros_like(sure)) == 0


def test_the_loss_reaches_all_but_the_encoder(clips):
    torch.manual_seed(0)
    model = NanoAutoencoder(**SMALL, motion=True)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    colour, (flows, sure) = to_floats(clips.frames), true_flows(clips)
    value, figures = decoder_loss(model, colour, flows, sure, 0)
    value.backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name.split(".")[0] for name, _ in model.named_parameters()} - set(ENCODING)
    assert set(figures) == {"video_db", "between_db", "image_db", "moved_db"}
    assert torch.equal(decoder_loss(model, colour, flows, sure, 0)[0], value)
    assert not torch.equal(decoder_loss(model, colour, flows, sure, 1)[0], value)


def test_windows_and_their_motion_are_of_one_place(tmp_path, clips):
    save_atomic(vars(clips), tmp_path / "clips-00000.safetensors")
    moments = Moments(tmp_path / "pairs", NanoAutoencoder(**SMALL), [[], [tmp_path / "clips-00000.safetensors"]])
    shown, flows, sure = moments.windows(3, 3)
    assert shown.shape == (3, 9, 3, 48, 32) and flows.shape == (3, 2, 3, 2, 2, 12, 8) and sure.shape == (3, 2, 3, 12, 8)
    assert all(torch.equal(a, b) for a, b in zip(moments.windows(3, 3), (shown, flows, sure), strict=True))
    truth, _ = true_flows(clips)
    for window, motion in zip(shown, flows, strict=True):
        clip = next(i for i in range(2) if torch.equal(window, to_floats(clips.frames[i])))
        assert torch.allclose(motion, truth[clip], atol=0.1, rtol=1e-3)  # half precision on disk
    pairs, flows, sure = moments.pairs(3, 4)
    assert pairs.shape == (4, 8, 6, 4) and flows.shape == (4, 3, 2, 2, 12, 8) and sure.shape == (4, 3, 12, 8)
    with pytest.raises(ValueError, match="run the stage 'clips' first"):
        Moments(tmp_path / "pairs", NanoAutoencoder(**SMALL), [[]])


def test_the_stage_leaves_latents_alone_and_its_result_is_used(tmp_path, clips):
    (tmp_path / "clips").mkdir()
    save_atomic(vars(clips), tmp_path / "clips" / "clips-00000.safetensors")
    torch.manual_seed(1)
    save_atomic(dict(NanoAutoencoder().named_parameters()), tmp_path / "autoencoder.safetensors")
    before = trained_codec(tmp_path)
    assert train_nano(tmp_path, NanoRecipe(), stages=("decoder",)) and not (tmp_path / "decoder.safetensors").exists()
    recipe = NanoRecipe(shards=1, decoder_steps=2, fine_shards=0)
    assert train_nano(tmp_path, recipe, stages=("decoder",))
    assert not any(name.split(".")[0] in ENCODING for name in load_file(tmp_path / "decoder.safetensors"))
    after = trained_codec(tmp_path)
    frames = to_floats(clips.frames[:1, :5])
    with torch.no_grad():
        latents = before.encode(frames)
        assert torch.equal(after.encode(frames), latents)
        assert after.autoencoder.config.motion and not torch.equal(after.decode(latents), before.decode(latents))
        again = after.decode(latents)
    assert train_nano(tmp_path, recipe, stages=("decoder",))  # complete: nothing more is learned
    with torch.no_grad():
        assert torch.equal(trained_codec(tmp_path).decode(latents), again)
