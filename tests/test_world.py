"""A world on disk: continued bit for bit, undone, branched, exported; what cannot be trusted is refused."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mirage.camera.cameras import Cameras
from mirage.camera.files import load_trajectory
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_video, tensor_to_images, write_video
from mirage.world import World
from mirage.world.archive import pack, unpack
from mirage.world.content import decode_frames, encode_frames
from mirage.world.export import export_cameras, export_memory, export_video
from mirage.world.manifest import Settings
from mirage.world.show import describe, returns, world_sheet
from mirage.world.world import chunk_seed

CAMERA = Cameras.from_fov(1.0, 32, 48)
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pipeline(tiny_model) -> MiragePipeline:
    made = MiragePipeline.from_pretrained(tiny_model)
    made.set_progress_bar_config(disable=True)
    return made


def picture() -> np.ndarray:
    y, x = np.mgrid[:32, :48]
    return np.stack([x * 5, y * 7, (x + y) * 3], -1).astype(np.uint8)


def steps(first: int, count: int) -> Cameras:
    """Cameras of frames on a straight way."""
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, 2, 3] = -0.02 * torch.arange(first, first + count)
    return Cameras(CAMERA.intrinsics.repeat(count, 1, 1), pose, 32, 48)


def begin(folder: Path, pipeline: MiragePipeline, **options) -> World:
    return World.create(folder, pipeline, picture(), CAMERA, steps=1, **options)


@pytest.fixture(scope="module")
def walked(pipeline, tmp_path_factory) -> Path:
    """A world of two chunks of 8 and 4 frames, closed; not to be changed."""
    folder = tmp_path_factory.mktemp("worlds") / "walked"
    with begin(folder, pipeline) as world:
        world.plan(steps(1, 12), words="straight on")
        assert len(list(world.walk())) == 2
    return folder


def same(one: World, other: World) -> None:
    """All that two worlds hold is equal, bit for bit."""
    assert [(c.start, c.stop, c.seed, c.prompt) for c in one.chunks] == [
        (c.start, c.stop, c.seed, c.prompt) for c in other.chunks
    ]
    assert np.array_equal(one.image, other.image)
    for number in range(len(one.chunks)):
        assert np.array_equal(one.frames(number), other.frames(number))
        a, b = one.tensors(number), other.tensors(number)
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("latents", "clean", "depth"))
        assert torch.equal(a.cameras.cam_from_world, b.cameras.cam_from_world)
        mine, theirs = one.memory(number).surfels.tensors, other.memory(number).surfels.tensors
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def snapshot(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


class TestLaws:
    def test_resumed_in_other_processes_equals_uninterrupted(self, walked, pipeline, tmp_path):
        world = begin(tmp_path / "other", pipeline)
        world.plan(steps(1, 12), words="straight on")
        world.close()
        for left in (12, 4):
            with World.open(tmp_path / "other", pipeline) as world:
                assert len(world.planned) == left and world.plan_words == "straight on"
                next(world.walk())
        with World.open(tmp_path / "other") as world, World.open(walked, write=False) as whole:
            assert world.planned is None
            same(world, whole)

    def test_a_world_is_the_walk_that_the_pipeline_makes(self, walked, pipeline):
        state = pipeline.begin(picture(), CAMERA)
        with World.open(walked, write=False) as world:
            for number, chunk in enumerate(world.chunks[1:], 1):
                noise = torch.Generator().manual_seed(chunk_seed(0, number))
                cameras = steps(chunk.start, len(chunk))
                state, result = pipeline.advance(state, cameras, num_inference_steps=1, generator=noise)
                assert torch.equal(world.tensors(number).latents, result.latents)
                assert np.array_equal(world.frames(number), tensor_to_images(result.frames[-len(chunk) :]))
            for name in ("clean", "generated", "depth"):
                assert torch.equal(getattr(world.state, name), getattr(state, name)), name
            assert torch.equal(world.state.cameras.cam_from_world, state.cameras.cam_from_world)
            assert torch.equal(world.cameras.cam_from_world, steps(0, 13).cam_from_world)

    def test_undo_goes_back_and_the_same_step_gives_the_same_chunk(self, walked, pipeline, tmp_path):
        with World.open(walked, write=False) as whole, whole.branch(tmp_path / "back") as world:
            world.pipeline = pipeline
            removed = world.undo()
            assert (removed.start, removed.stop, len(world.chunks), world.state.frames) == (9, 13, 2, 9)
            assert not (world.folder / "chunks" / "0002").exists()
            world.extend(steps(9, 4))
            same(world, whole)
            world.undo()
            world.extend(steps(9, 4), seed=7)
            assert world.chunks[2].seed == 7 and not np.array_equal(world.frames(2), whole.frames(2))
            assert [e["event"] for e in world.log[-5:]] == ["branched", "undone", "extended", "undone", "extended"]

    def test_nothing_is_undone_before_the_first_view(self, pipeline, tmp_path):
        with begin(tmp_path / "new", pipeline) as world, pytest.raises(ValueError, match="only its first view"):
            world.undo()

    def test_a_branch_leaves_its_source_alone(self, walked, tmp_path):
        before = snapshot(walked)
        with World.open(walked, write=False) as world, world.branch(tmp_path / "twig", 1) as other:
            assert len(other.chunks) == 2 and np.array_equal(other.frames(1), world.frames(1))
            other.undo()
        assert snapshot(walked) == before
        assert not World.open(tmp_path / "twig", write=False).verify().problems

    def test_frames_are_kept_without_any_loss(self):
        noise = np.random.default_rng(0).integers(0, 256, (5, 31, 47, 3), dtype=np.uint8)
        kept = decode_frames(encode_frames(noise, 16), 5, Settings(height=31, width=47))
        assert np.array_equal(kept, noise)

    def test_known_depth_and_a_budget(self, pipeline, tmp_path):
        depth = torch.full((32, 48), 3.0)
        with begin(tmp_path / "a", pipeline, depth=depth, budget_bytes=20_000, seed=5) as world:
            world.extend(steps(1, 8))
            state = world.state
        with World.open(tmp_path / "a", pipeline) as world:
            assert world.memory().budget_bytes == 20_000 and world.settings.seed == 5
            assert torch.equal(world.state.depth, state.depth) and bool((world.tensors(0).depth == 3).all())

    def test_a_step_by_hand_drops_the_plan(self, pipeline, tmp_path):
        with begin(tmp_path / "a", pipeline) as world:
            world.plan(steps(1, 8))
            world.extend(steps(2, 4))
            assert world.planned is None
        with World.open(tmp_path / "a") as world:
            assert not list((world.folder / "walks").iterdir()) and not world.verify().problems

    def test_the_same_frames_give_the_same_mp4(self, tmp_path):
        frames = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
        frames = np.concatenate([np.roll(frames, n, 2) for n in range(30)])
        for name in "abcd":
            write_video(tmp_path / f"{name}.mp4", frames)
        assert len({(tmp_path / f"{name}.mp4").read_bytes() for name in "abcd"}) == 1


class TestRefusals:
    def test_two_writers(self, walked, tmp_path):
        with World.open(walked, write=False) as world, world.branch(tmp_path / "a"):
            with pytest.raises(OSError, match=r"world .*a is in use by another process or session"):
                World.open(tmp_path / "a")
            World.open(tmp_path / "a", write=False).close()
        World.open(tmp_path / "a").close()

    def test_what_was_opened_to_be_read_is_not_changed(self, walked, pipeline):
        with World.open(walked, pipeline, write=False) as world:
            for change in (world.undo, lambda: world.extend(steps(13, 4)), lambda: world.plan(steps(13, 4))):
                with pytest.raises(ValueError, match="not open to be changed"):
                    change()

    def test_a_taken_folder(self, walked, pipeline, tmp_path):
        with pytest.raises(ValueError, match="holds a world already"):
            begin(walked, pipeline)
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(ValueError, match=r"must be empty or new, it holds letter\.txt"):
            begin(tmp_path, pipeline)
        with pytest.raises(ValueError, match="is a file"):
            begin(tmp_path / "letter.txt", pipeline)

    def test_another_model(self, walked, pipeline, tiny_model):
        other = MiragePipeline.from_pretrained(tiny_model)
        with torch.no_grad():
            next(other.transformer.parameters()).flatten()[0] += 1
        with pytest.raises(ValueError, match=r"made by model tiny with weights \w{8}, but model tiny has weights"):
            World.open(walked, other)
        other = MiragePipeline(**pipeline.components, chunk_frames=5)
        with pytest.raises(ValueError, match="with chunk_frames 9, but model unnamed has 5"):
            World.open(walked, other)

    def test_no_world(self, tmp_path):
        with pytest.raises(ValueError, match="no such folder"):
            World.open(tmp_path / "none")
        with pytest.raises(ValueError, match=r"holds no world\.json"):
            World.open(tmp_path)

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"version": 2}, "of version 2, this program reads version 1"),
            ({"format": "other"}, "not of a mirage-world"),
            ({"chunks": []}, "chunks must follow each other"),
            ({"extra": 1}, "must say model, settings"),
            ({"settings": {"height": 1e9}}, "Settings must say"),
            ({"model": None}, "must be an object, got NoneType"),
        ],
    )
    def test_a_manifest_that_makes_no_sense(self, walked, tmp_path, change, words):
        folder = tmp_path / "copy"
        shutil.copytree(walked, folder)
        value = json.loads((folder / "world.json").read_text()) | change
        value.pop("sha256")
        value["sha256"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        (folder / "world.json").write_text(json.dumps(value))
        before = snapshot(folder)
        with pytest.raises(ValueError, match=words):
            World.open(folder)
        assert snapshot(folder) == before

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', "[]", "", '{"a": 1e999}', "\x00", '{"a":' * 90_000])
    def test_json_that_is_none(self, tmp_path, text):
        (tmp_path / "world.json").write_text(text)
        with pytest.raises(ValueError, match=r"world\.json"):
            World.open(tmp_path)

    @pytest.mark.parametrize("name", ["world.json", "log.jsonl", "chunks", "chunks/0001", "chunks/0001/frames.mp4"])
    def test_links_that_lead_out_of_the_folder(self, walked, tmp_path, name):
        folder = tmp_path / "copy"
        shutil.copytree(walked, folder)
        (folder / name).rename(tmp_path / "elsewhere")
        (folder / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match=r"must be a (plain file|folder)"):
            World.open(folder)
        assert (folder / name).is_symlink()

    def test_numbers_that_no_tensor_has(self, walked, tmp_path):
        import safetensors.torch

        folder = tmp_path / "copy"
        shutil.copytree(walked, folder)
        path = folder / "chunks/0001/latents.safetensors"
        tensors = safetensors.torch.load(path.read_bytes())
        tensors["clean"][0, 0, 0, 0] = torch.nan
        forge(folder, "chunks/0001/latents.safetensors", safetensors.torch.save(tensors))
        world = World.open(folder, write=False)
        with pytest.raises(ValueError, match=r"latents\.safetensors: clean must be finite"):
            _ = world.state

    def test_a_pickle_in_the_place_of_tensors(self, walked, tmp_path):
        import pickle

        folder = tmp_path / "copy"
        shutil.copytree(walked, folder)
        for name in ("latents.safetensors", "memory.safetensors", "frames.mp4"):
            forge(folder, f"chunks/0002/{name}", pickle.dumps(print))
        world = World.open(folder, write=False)
        for read in (world.tensors, world.memory, world.frames):
            with pytest.raises(ValueError):
                read(2)

    def test_a_video_of_other_frames(self, walked, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(walked, folder)
        forge(folder, "chunks/0002/frames.mp4", encode_frames(np.zeros((9, 32, 48, 3), np.uint8), 16))
        with pytest.raises(ValueError, match="must be 4 frames of 32 x 48"):
            World.open(folder, write=False).frames(2)


def forge(folder: Path, name: str, data: bytes) -> None:
    """Another content with a checksum that fits: what somebody who means harm would send."""
    (folder / name).write_bytes(data)
    value = json.loads((folder / "world.json").read_text())
    _, chunk, file = name.split("/")
    value["chunks"][int(chunk)]["files"][file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    value.pop("sha256")
    value["sha256"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    (folder / "world.json").write_text(json.dumps(value))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_an_error_or_nothing(walked, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "world"
    shutil.copytree(walked, folder)
    path = folder / data.draw(st.sampled_from(sorted(snapshot(walked))))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    path.write_bytes(content)
    before = snapshot(folder)
    try:
        with World.open(folder, write=False) as world, World.open(walked, write=False) as whole:
            same(world, whole)
            assert world.log == whole.log
    except ValueError as error:
        assert str(error).startswith("world ") and "\n" not in str(error)
        assert snapshot(folder) == before
    shutil.rmtree(folder.parent)


class TestPacked:
    def test_a_zip_is_read_and_unpacked_to_the_same(self, walked, tmp_path):
        with World.open(walked, write=False) as world:
            pack(world, tmp_path / "a.zip")
            with World.open(tmp_path / "a.zip") as packed:
                same(packed, world)
                with pytest.raises(ValueError, match="not open to be changed"):
                    packed.undo()
            unpack(tmp_path / "a.zip", tmp_path / "out")
            with World.open(tmp_path / "out") as unpacked:
                same(unpacked, world)
        with pytest.raises(ValueError, match="is there already"):
            unpack(tmp_path / "a.zip", tmp_path / "out")

    def test_a_zip_of_the_folder_as_others_make_it(self, walked, tmp_path):
        shutil.make_archive(str(tmp_path / "a"), "zip", walked.parent, walked.name)
        with World.open(tmp_path / "a.zip") as world:
            assert world.chunks[-1].stop == 13

    def test_names_that_lead_out_are_never_taken(self, walked, tmp_path):
        with World.open(walked, write=False) as world:
            pack(world, tmp_path / "a.zip")
        with zipfile.ZipFile(tmp_path / "a.zip", "a") as file:
            for name in ("../evil", "/tmp/mirage-evil", "chunks/../../evil", "virus.exe"):
                file.writestr(name, "evil")
        unpack(tmp_path / "a.zip", tmp_path / "in" / "out")
        assert not [p for p in tmp_path.rglob("*") if "evil" in p.name or "virus" in p.name]

    @pytest.mark.parametrize("bomb", ["longer", "denser", "twice", "link", "none", "bytes", "cut"])
    def test_bombs_and_damage(self, walked, tmp_path, bomb):
        folder, path, name = tmp_path / "copy", tmp_path / "a.zip", "chunks/0001/frames.mp4"
        shutil.copytree(walked, folder)
        if bomb == "denser":
            forge(folder, name, bytes(1 << 26))
        with World.open(folder, write=False) as world:
            pack(world, path)
        if bomb in ("denser", "twice", "link", "longer"):
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as new:
                for info in old.infolist():
                    data, entry = old.read(info), zipfile.ZipInfo(info.filename)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = (0o120777 << 16) if bomb == "link" and info.filename == name else 0
                    new.writestr(entry, data + bytes(999) if bomb == "longer" and info.filename == name else data)
                if bomb == "twice":
                    with pytest.warns(UserWarning, match="Duplicate name"):
                        new.writestr(name, b"other")
            path = tmp_path / "b.zip"
        elif bomb == "none":
            path.write_bytes(b"PK no zip")
        else:
            content = bytearray(path.read_bytes())
            middle = len(content) // 2
            path.write_bytes(content[:middle] if bomb == "cut" else content[:middle] + b"\xff" + content[middle + 1 :])
        with pytest.raises(ValueError, match=r"^world "):
            unpack(path, tmp_path / "out")
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".new*"))


class TestExport:
    def test_video_and_sheet_and_words(self, walked, tmp_path):
        with World.open(walked, write=False) as world:
            export_video(world, tmp_path / "a.mp4")
            assert read_video(tmp_path / "a.mp4").shape == (13, 32, 48, 3)
            assert world_sheet(world).shape[2] == 3
            text = describe(world)
            assert "13 frames of 32 x 48, 2 chunks" in text and "drift: depth of new chunks off by" in text
            assert returns(world) == {}

    def test_a_return_is_measured_where_it_is_one(self, pipeline, tmp_path):
        with begin(tmp_path / "a", pipeline) as world:
            there = steps(1, 8)
            world.extend(there[[0, 1, 2, 3, 2, 1, 0, 0]])
            assert returns(world) == {}
            world.extend(Cameras.cat([there[[1, 0, 0]], CAMERA]))
            assert list(returns(world)) == [12]

    @pytest.mark.parametrize("format", ["colmap", "nerfstudio", "realestate10k", "spatia"])
    def test_cameras_are_read_back_with_their_frames(self, walked, pipeline, tmp_path, format):
        with World.open(walked, pipeline, write=False) as world:
            said = export_cameras(world, tmp_path / "out", format)
            assert str(tmp_path / "out") in said and ".new" not in said and "13 poses" in said
            place = {"colmap": "sparse/0", "realestate10k": "cameras.txt"}.get(format, ".")
            size = {} if format in ("colmap", "nerfstudio") else {"height": 32, "width": 48}
            back = load_trajectory(tmp_path / "out" / place, **size).cameras
            assert torch.allclose(back.cam_from_world, world.cameras.cam_from_world, atol=1e-6)
            assert torch.allclose(back.intrinsics, world.cameras.intrinsics, atol=1e-3)
            if format in ("colmap", "nerfstudio"):
                images = sorted((tmp_path / "out" / "images").iterdir())
                assert len(images) == 13 and np.array_equal(np.asarray(Image.open(images[7])), world.frames()[7])
            if format == "colmap":
                rows = (tmp_path / "out/sparse/0/points3D.txt").read_text().splitlines()
                assert len([row for row in rows if row[0] != "#"]) == export_memory(world, tmp_path / "m.ply")

    def test_the_memory_needs_its_model(self, walked, tmp_path):
        with World.open(walked, write=False) as world, pytest.raises(ValueError, match="pipeline must be given"):
            export_memory(world, tmp_path / "a.ply")


def test_a_killed_writer_loses_nothing(tiny_model):
    """The script that kills at each step and at random moments, at some of them; it fails by its exit code."""
    script = REPOSITORY / "benchmarks" / "kill_worlds.py"
    command = [sys.executable, script, "--model", tiny_model, "--every", "undo", "generate"]
    command += ["--stride", "7", "--random", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "none lost" in done.stdout and "as before" in done.stdout and "as after" in done.stdout


def test_the_manifest_says_all_that_a_chunk_is(walked):
    with World.open(walked, write=False) as world:
        chunk = world.chunks[1]
        assert {field.name for field in dataclasses.fields(chunk)} == set(vars(chunk))
        assert len(chunk) == 8 and len(chunk.coverage) == 2 and chunk.update["written"] >= 0 and chunk.bytes > 1000
        assert [event["event"] for event in world.log] == ["created", "planned", "extended", "extended"]
