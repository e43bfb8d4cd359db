"""The frames between two latents: made of the pictures beside them, and those left as they are."""

import pytest
import torch

from mirage.checkpoint.codecs import fingerprint
from mirage.training.fit import generator
from mirage.video.nano import ENCODING, NanoAutoencoder
from mirage.video.nano_motion import Fuse, PairFlow, carry

SMALL = dict(latent_channels=4, widths=(4, 8, 16), blocks=(1, 1, 1))


def shaken(model):
    """Weights that do something everywhere."""
    g = generator(8)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=g) * 0.1
    return model


@pytest.mark.parametrize("size", [(3, 5), (6, 4), (1, 2)])
def test_only_the_frames_between_are_made_anew(size):
    moving = shaken(NanoAutoencoder(**SMALL, motion=True)).eval()
    still = NanoAutoencoder(**SMALL).eval()
    still.load_state_dict({k: v for k, v in moving.state_dict().items() if k in still.state_dict()})
    latents = torch.randn(2, 3, 4, *size, generator=generator(1))
    with torch.no_grad():
        a, b = moving.decode(latents), still.decode(latents)
        assert a.shape == b.shape == (2, 9, 3, 8 * size[0], 8 * size[1])
        assert torch.equal(a[:, ::4], b[:, ::4])
        assert all((a[:, i] - b[:, i]).abs().amax() > 1e-3 for i in range(9) if i % 4)
        assert torch.equal(moving.decode(latents[:, :1]), still.decode(latents[:, :1]))  # a picture


def test_the_encoder_is_the_same_with_and_without():
    moving, still = NanoAutoencoder(**SMALL, motion=True), NanoAutoencoder(**SMALL)
    encoding = {k for k in moving.state_dict() if k.split(".")[0] in ENCODING}
    assert encoding == {k for k in still.state_dict() if k.split(".")[0] in ENCODING}
    moving.load_state_dict(still.state_dict(), strict=False)
    frames = torch.rand(1, 5, 3, 16, 24, generator=generator(2)) * 2 - 1
    assert torch.equal(moving.encode(frames), still.encode(frames))


def test_another_decoder_shows_the_same_latents():
    """So what was prepared with the former one can be trained on."""
    model = NanoAutoencoder(**SMALL, motion=True)
    mark = fingerprint(model)
    former = NanoAutoencoder(**SMALL)
    former.load_state_dict(model.state_dict(), strict=False)
    torch.nn.init.normal_(model.from_latent.weight)
    assert fingerprint(model) == fingerprint(former) == mark
    torch.nn.init.normal_(model.merge_in.weight)
    assert fingerprint(model) != mark


def test_a_saved_one_comes_back_as_it_was(tmp_path):
    for motion in (True, False):
        model = shaken(NanoAutoencoder(**SMALL, motion=motion)).eval()
        model.save_pretrained(tmp_path / str(motion))
        again = NanoAutoencoder.from_pretrained(tmp_path / str(motion)).eval()
        latents = torch.randn(1, 2, 4, 3, 3, generator=generator(3))
        with torch.no_grad():
            assert again.config.motion == motion and torch.equal(again.decode(latents), model.decode(latents))


def test_a_batch_is_decoded_as_its_videos_are():
    model = shaken(NanoAutoencoder(**SMALL, motion=True)).eval()
    latents = torch.randn(2, 4, 4, 4, 5, generator=generator(4))
    with torch.no_grad():
        alone = torch.cat([model.decode(z[None]) for z in latents])
        assert torch.allclose(model.decode(latents), alone, atol=1e-5)
        assert torch.allclose(model.decode(latents[:, :3]), model.decode(latents)[:, :9], atol=1e-5)  # causal


def test_a_new_motion_is_none_and_half_trusted():
    flows, trust = PairFlow(4)(torch.randn(3, 8, 5, 7, generator=generator(5)))
    assert flows.shape == (3, 3, 2, 2, 10, 14) and trust.shape == (3, 3, 2, 10, 14)
    assert (flows == 0).all()
    parts = torch.nn.functional.pad(trust, (0, 0, 0, 0, 1, 0)).softmax(2)
    assert (parts[:, :, 0] > 0.5).all() and (parts[:, :, 1:] > 0).all()


def test_what_is_trusted_is_shown_and_never_from_outside():
    """A picture that goes by three pixels per frame, carried along just that motion."""
    picture = torch.rand(3, 24, 96, generator=generator(6))
    frames = torch.stack([picture[:, :, 3 * i : 3 * i + 48] for i in range(5)])[None]
    flows = torch.zeros(1, 3, 2, 2, 6, 12)
    for i in range(3):  # frame i + 1 is 3 (i + 1) pixels on from the picture before, 3 (3 - i) short of the one after
        flows[0, i, :, 0] = torch.tensor([3.0 * (i + 1), -3.0 * (3 - i)])[:, None, None]
    blind = frames.clone()
    blind[:, 1:4] = 0
    fuse = Fuse()
    for side, (sure, inside) in enumerate(((slice(0, -9), "left"), (slice(9, None), "right"))):
        trust = torch.full((1, 3, 2, 6, 12), -50.0)
        trust[:, :, side] = 50.0
        made = fuse(blind, flows, trust)
        assert torch.allclose(made[..., sure], frames[..., sure], atol=1e-4), inside
        assert torch.equal(made[:, ::4], frames[:, ::4])
    trust = torch.full((1, 3, 2, 6, 12), 5.0)  # both: at the edges the one that sees it
    assert torch.allclose(fuse(blind, flows, trust), frames, atol=0.05)


def test_gradients_of_carried_pictures_are_those_of_differences():
    picture = torch.rand(1, 3, 5, 6, generator=generator(7), dtype=torch.float32)
    flows = (torch.rand(1, 2, 2, 5, 6, generator=generator(9)) * 3 - 1.5).requires_grad_()
    seen, _ = carry(picture, flows)
    weight = torch.randn(seen.shape, generator=generator(10))
    (seen * weight).sum().backward()
    step = torch.randn(flows.shape, generator=generator(11)) * 1e-3
    with torch.no_grad():
        change = ((carry(picture, flows + step)[0] - carry(picture, flows - step)[0]) * weight).sum() / 2
    assert abs(change - (flows.grad * step).sum()) < 0.05 * abs(change) + 1e-4
