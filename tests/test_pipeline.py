"""Laws of the loop, on a tiny model with random weights."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.geometry.depth import KnownDepth
from mirage.memory import LatentMemory
from mirage.pipeline import MiragePipeline
from mirage.video.io import images_to_tensor, tensor_to_images


@pytest.fixture(scope="module")
def pipeline(tiny_model) -> MiragePipeline:
    pipeline = MiragePipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)


def cameras(words: str = "there-and-back:forward 0.3 and left 10deg", frames: int = 17, size=(32, 48)) -> Cameras:
    return build_path(words, frames, Cameras.from_fov(math.radians(60), *size)).cameras


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_one_frame_per_camera_and_one_figure_per_latent_frame_and_chunk(pipeline, image):
    output = pipeline(image, cameras(frames=21), generator=noise())
    assert output.frames.shape == (21, 32, 48, 3) and output.frames.dtype == np.uint8
    assert len(output.coverage) == 6 and output.coverage[0] == 1.0
    assert len(output.memory_bytes) == 4 and len(output.updates) == 3  # chunks of 9, 9 and 5 frames
    assert output.memory_bytes == sorted(output.memory_bytes) and output.memory_bytes[-1] == output.memory.nbytes
    assert set(output.seconds) == {"text", "encode", "depth", "write", "read", "recall", "denoise", "decode"}


def test_the_first_frame_is_the_picture_as_the_autoencoder_shows_it(pipeline, image):
    frames = pipeline(image, cameras(), generator=noise(), output_type="pt").frames
    picture = images_to_tensor(image)
    again = pipeline.codec.decode(pipeline.codec.encode(picture[None, None]))[0, 0].clamp(-1, 1)
    assert (frames[0] - again).abs().max() < 1e-5


def test_kinds_of_pictures_and_of_output_agree(pipeline, image):
    frames = pipeline(image, cameras(frames=9), generator=noise()).frames
    floats = pipeline(images_to_tensor(image), cameras(frames=9), generator=noise(), output_type="pt").frames
    assert (tensor_to_images(floats) == frames).all()


def test_same_noise_same_video(pipeline, image, tiny_model):
    once, again = (pipeline(image, cameras(), generator=noise()).frames for _ in range(2))
    other = pipeline(image, cameras(), generator=torch.Generator().manual_seed(1)).frames
    fresh = MiragePipeline.from_pretrained(tiny_model)
    fresh.set_progress_bar_config(disable=True)
    assert (once == again).all() and (once != other).any()
    assert (once == fresh(image, cameras(), generator=noise()).frames).all()


def test_saved_and_loaded_it_is_the_same(pipeline, image, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = MiragePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.chunk_frames == 9 and list(loaded.config.size) == [32, 48]
    frames = [p(image, cameras(frames=9), generator=noise()).frames for p in (pipeline, loaded)]
    assert (frames[0] == frames[1]).all()


@pytest.mark.parametrize("size", [(16, 80), (48, 32), (64, 64)])
def test_any_multiple_of_the_stride_works(pipeline, size):
    image = np.full((*size, 3), 90, np.uint8)
    assert pipeline(image, cameras(frames=9, size=size), generator=noise()).frames.shape == (9, *size, 3)


def test_the_path_acts_through_the_memory_alone(pipeline, image):
    paths = cameras("truck:distance=0.5"), cameras("pan:degrees=25")
    videos = lambda memory: [pipeline(image, p, memory=memory, generator=noise()).frames for p in paths]
    (a, b), (c, d) = videos("latent"), videos("none")
    assert (a != b).any() and (c == d).all()


def test_what_the_picture_shows_is_kept(pipeline, image):
    """After all chunks the memory reads at the first camera what was put in first, bit for bit."""
    path = cameras()
    steps = pipeline.rollout(image, path, generator=noise())
    store, nothing = next(steps)
    before = store.read(path[0])
    for store, _ in steps:  # noqa: B007
        pass
    after = store.read(path[0])
    assert nothing is None and bool(before.visible.all())
    assert torch.equal(after.observed, before.observed)
    assert torch.equal(after.features, before.features)


def test_each_chunk_tells_what_was_known_and_what_was_made(pipeline, image):
    chunks, path = [], cameras()
    output = pipeline(image, path, generator=noise(), callback_on_chunk_end=chunks.append)
    assert [len(chunk.frames) for chunk in chunks] == [9, 8]
    assert (tensor_to_images(torch.cat([chunk.frames for chunk in chunks])) == output.frames).all()
    for chunk in chunks:
        assert chunk.known.features.shape == chunk.latents.shape == (3, 16, 4, 6)
    second = chunks[1].latents[0]  # the frame that is shared is encoded anew, as every remembered frame
    shown = pipeline.codec.encode(chunks[0].frames[-1][None, None])[0, 0]
    assert (second - shown).abs().max() < 1e-4


def test_step_callback_as_in_diffusers(pipeline, image):
    seen = []

    def on_step(pipe, step, timestep, values):
        seen.append((pipe is pipeline, step, float(timestep), values["latents"].shape))
        return {"latents": torch.zeros_like(values["latents"])}

    pipeline(image, cameras(), generator=noise(), num_inference_steps=3, callback_on_step_end=on_step)
    assert [step for _, step, *_ in seen] == [0, 1, 2] * 2 and all(own for own, *_ in seen)
    assert all(a[2] > b[2] for a, b in itertools.pairwise(seen[:3]))


def test_memory_may_be_a_function(pipeline, image):
    nearest = functools.partial(LatentMemory.from_view, read="nearest")
    output = pipeline(image, cameras(frames=9), memory=nearest, generator=noise())
    assert isinstance(output.memory, LatentMemory)


def test_known_depth_decides_where_things_are(pipeline, image):
    path = cameras("truck:distance=0.5", frames=9)
    coverage = [
        min(pipeline(image, path, depth=torch.full((32, 48), far), generator=noise()).coverage) for far in (1.0, 50.0)
    ]
    assert coverage[0] < coverage[1]


@pytest.mark.usefixtures("unchecked")
class TestMistakes:
    @pytest.mark.parametrize(
        "change, words",
        [
            ({"image": np.zeros((32, 32, 3), np.uint8)}, "of the size of the cameras"),
            ({"image": np.zeros((32, 48, 3), np.float32)}, "image must be uint8"),
            ({"image": np.zeros((32, 48), np.uint8)}, "image must be uint8"),
            ({"memory": "good"}, "memory must be one of latent, colour, none"),
            ({"frames": 8}, "use 5 or 9"),
            ({"frames": 1}, "use 5"),
            ({"depth": torch.full((32, 48), -1.0)}, "not negative"),
            ({"depth": torch.ones(31, 48)}, "depth must be"),
        ],
    )
    def test_wrong_arguments(self, pipeline, image, change, words):
        call = {"image": image} | change
        path = cameras("dolly", frames=call.pop("frames", 9))
        with pytest.raises(ValueError, match=words):
            pipeline(cameras=path, **call)

    def test_size_that_the_patches_do_not_divide(self, pipeline):
        with pytest.raises(ValueError, match="multiples of 16, got 40 x 48"):
            pipeline(np.zeros((40, 48, 3), np.uint8), cameras(frames=9, size=(40, 48)))

    def test_without_depth_head_an_estimator_is_asked_for(self, pipeline, image):
        parts = {k: v for k, v in pipeline.components.items() if k != "depth_head"}
        bare = MiragePipeline(**parts, chunk_frames=9, num_inference_steps=1)
        bare.set_progress_bar_config(disable=True)
        with pytest.raises(ValueError, match="estimator must be given"):
            bare(image, cameras(frames=9))
        depth = KnownDepth(torch.ones(2, 32, 48))
        assert len(bare(image, cameras(frames=9), depth=torch.ones(32, 48), estimator=depth).frames) == 9

    def test_a_model_that_would_ignore_the_path_is_refused(self, pipeline, image):
        config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
        blind = type(pipeline.transformer)(**(config | {"vace_layers": []}))
        bare = MiragePipeline(**(pipeline.components | {"transformer": blind}), chunk_frames=9, num_inference_steps=1)
        bare.set_progress_bar_config(disable=True)
        with pytest.raises(ValueError, match="no memory branch"):
            bare(image, cameras(frames=9))
        assert len(bare(image, cameras(frames=9), memory="none").frames) == 9


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> MiragePipeline:
    """The same loop round Wan's classes at toy size: its autoencoder, velocity, text; saved and loaded again."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    from mirage.denoise.transformer import MirageTransformer
    from mirage.video.wan import TINY8

    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "red": 2, "blue": 3, "room": 4}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "text_dim": 8, "freq_dim": 16}
        transformer = MirageTransformer(**size, ffn_dim=32, num_layers=2, vace_layers=[0], vace_in_channels=17)
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.5)
        encoder = UMT5EncoderModel(UMT5Config(vocab_size=5, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2))
        MiragePipeline(
            transformer,
            AutoencoderKLWan(**TINY8),
            UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
            text_encoder=encoder,
            tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"),
            chunk_frames=5,
            num_inference_steps=2,
            size=[32, 48],
        ).save_pretrained(folder := tmp_path_factory.mktemp("model") / "wan")
    pipeline = MiragePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Wall(KnownDepth):
    """Everything is two units away."""

    def __init__(self):
        super().__init__(torch.full((1, 4, 6), 2.0))

    def estimate(self, frames, latents, cameras, prior=None):
        return self.depth.expand(len(frames), -1, -1)


def test_the_same_loop_runs_wans_classes_with_a_prompt_per_chunk(wan, image):
    run = functools.partial(wan, image, cameras(frames=9), estimator=Wall(), output_type="pt")
    red, both = run("red room", generator=noise()).frames, run(["red room", "blue room"], generator=noise()).frames
    assert red.shape == (9, 3, 32, 48) and red.isfinite().all()
    assert torch.equal(red[:5], both[:5]) and not torch.equal(red[5:], both[5:])
    assert not torch.equal(red, run(generator=noise()).frames)
    guided = run("red room", negative_prompt="blue", guidance_scale=3.0, generator=noise()).frames
    assert not torch.equal(red, guided)


@pytest.mark.usefixtures("unchecked")
def test_missing_parts_are_named(wan, pipeline, image):
    with pytest.raises(ValueError, match=r"estimator must be given.*no depth head"):
        wan(image, cameras())
    with pytest.raises(ValueError, match="prompt must be left out"):
        pipeline(image, cameras(), "a red room")


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere", "a/b/c", "../x"])
def test_what_is_no_model_is_refused_before_any_network(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"model must be nano, a folder or OWNER/NAME on the hub, got"):
        MiragePipeline.from_pretrained(name)


def test_a_walk_can_be_made_chunk_by_chunk_and_gone_back_on(pipeline, image):
    path, source = cameras(), noise()
    whole = pipeline(image, path, generator=noise(), output_type="pt")
    start = pipeline.begin(image, path[0])
    one, first = pipeline.advance(start, path[1:9], generator=source)
    remembered = one.memory.read(path[0::4]).features
    two, second = pipeline.advance(one, path[9:17], generator=source)
    assert torch.equal(torch.cat([first.frames, second.frames]), whole.frames)
    assert (start.frames, one.frames, two.frames) == (1, 9, 17) and second.chunk.new_frames == slice(1, None)
    assert torch.equal(one.memory.read(path[0::4]).features, remembered), "a state is a value"
    again, _ = pipeline.advance(one, path[9:17], generator=torch.Generator().manual_seed(1))
    assert again.frames == two.frames and len(one.memory) <= len(again.memory)


@pytest.mark.parametrize("frames", [0, 3, 12])
def test_a_chunk_takes_only_as_many_frames_as_it_can_make(pipeline, image, frames):
    start = pipeline.begin(image, cameras()[0])
    with pytest.raises(ValueError, match=f"cameras must be those of 4 to 8 new frames, a multiple of 4, got {frames}"):
        pipeline.advance(start, cameras()[1 : 1 + frames])


def test_the_embedded_model_works_in_float32_though_it_is_kept_in_half():
    pipeline = MiragePipeline.from_pretrained("nano")
    parts = (pipeline.transformer, pipeline.vae, pipeline.depth_head)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.float32}
