"""The tiny autoencoder of FLUX.2: shapes without weights, pictures with them."""

import pytest
import torch

from mirage.evaluation.metrics import psnr
from mirage.video.io import fit_image, images_to_tensor, read_image, tensor_to_images
from mirage.video.taef2 import TinyFlux2, TinyFlux2Codec


def test_every_frame_is_an_image_of_its_own(generator):
    codec = TinyFlux2Codec(TinyFlux2())
    frames = torch.rand(2, 3, 3, 16, 40, generator=generator) * 2 - 1
    latents = codec.encode(frames)
    assert latents.shape == (2, 3, 32, 2, 5) and codec.latent_frames(3) == 3
    torch.testing.assert_close(codec.encode(frames[1:, 2:]), latents[1:, 2:])
    decoded = codec.decode(latents)
    assert decoded.shape == frames.shape and decoded.abs().max() <= 1
    with pytest.raises(ValueError, match="multiples of 8"):
        codec.encode(frames[..., :39])


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"taef2_encoder\.pth is not the encoder"):
        TinyFlux2.from_folder(tmp_path)
    for name in ("encoder", "decoder"):
        torch.save(TinyFlux2().encoder.state_dict(), tmp_path / f"taef2_{name}.pth")
    with pytest.raises(ValueError, match=r"taef2_decoder\.pth is not the decoder"):
        TinyFlux2.from_folder(tmp_path)
    (tmp_path / "taef2_encoder.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"taef2_encoder\.pth is not the encoder"):
        TinyFlux2.from_folder(tmp_path)


def test_a_real_picture_survives(shared):
    data = shared / "data"
    picture = fit_image(read_image(data / "tum_fr3_cabinet58/rgb/00000.jpg"), 120, 160)
    codec = TinyFlux2Codec(TinyFlux2.from_folder(data / "weights_taef2_flux2"))
    latents = codec.encode(images_to_tensor(picture)[None, None])
    assert 0.5 < float(latents.std()) < 1.5 and abs(float(latents.mean())) < 0.3
    assert psnr(tensor_to_images(codec.decode(latents)[0, 0]), picture) > 33
