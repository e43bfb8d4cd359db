"""What WorldScore's harness wants: its paths by worked examples, its folders file by file, and a stand-in that runs."""

import importlib
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage.camera.files import load_trajectory
from mirage.camera.rigid import rotation_angle
from mirage.cli import main
from mirage.evaluation.worldscore import WorldScore, check, imagine, install, read_items, write
from mirage.evaluation.worldscore.items import crop_input
from mirage.evaluation.worldscore.paths import MOVES, all_cameras, camera_data, held, key_cameras, movement, to_cameras
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_image

SINE, COSINE = math.sin(math.radians(30)), math.cos(math.radians(30))
EXAMPLES = {  # where the camera stands after one movement at speed 1, and its yaw to the right, in OpenCV's axes
    "push_in": ((0, 0, 1), 0),
    "pull_out": ((0, 0, -1), 0),
    "move_left": ((-0.5, 0, 0), 0),
    "move_right": ((0.5, 0, 0), 0),
    "pan_left": ((0, 0, 0), -30),
    "pan_right": ((0, 0, 0), 30),
    "orbit_left": ((-SINE, 0, 1 - COSINE), 30),
    "orbit_right": ((SINE, 0, 1 - COSINE), -30),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset of the layout of WorldScore's: two static items, one of them of two scenes, and a dynamic one."""
    root = tmp_path_factory.mktemp("data") / "WorldScore-Dataset"
    rng = np.random.default_rng(0)

    def picture(name, height, width):
        y, x = np.mgrid[:height, :width]
        array = np.stack([x % 256, y % 256, rng.integers(0, 255, (height, width))], -1).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / name)
        return name

    common = {"visual_style": "photorealistic", "style": "35mm photo"}
    static = [
        common
        | {"visual_movement": "static", "scene_type": "indoor", "camera_path": ["push_in"], "content_list": [[], []]}
        | {"image": picture("static/photorealistic/indoor/kitchens/003.png", 70, 150)}
        | {"prompt_list": ["A kitchen", "The stove."]},
        common
        | {"visual_movement": "static", "scene_type": "outdoor", "camera_path": ["pan_left", "move_left"]}
        | {"image": picture("static/photorealistic/outdoor/alleys/000.jpg", 131, 97)}
        | {"prompt_list": ["An alley", "A door", "A yard"], "content_list": [[], [], []]},
    ]
    dynamic = [
        common
        | {"visual_movement": "dynamic", "motion_type": "rigid", "camera_path": ["fixed"], "prompt": "A ball rolls"}
        | {"image": picture("dynamic/photorealistic/rigid/001.png", 64, 96), "masks": [], "objects": ["ball"]}
    ]
    for name, items in {"static": static, "dynamic": dynamic}.items():
        (root / name / f"{name}.json").write_text(json.dumps(items))
    return root


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    pipeline = MiragePipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def config():
    return WorldScore(size=(32, 48), frames=9)


@pytest.fixture(scope="module")
def whole(dataset, pipeline, config, tmp_path_factory):
    """All items written."""
    out, told = tmp_path_factory.mktemp("runs"), []
    failed = write(config, read_items(dataset), out, pipeline, on_item=lambda *said: told.append(said))
    assert not failed and len(told) == 3
    return out


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def in_opencv(moves, frames=5, speed=1.0):
    data = camera_data(moves, frames, speed)
    return to_cameras(torch.tensor(data["cameras_interp"]).double(), (500.0, 500.0, 24.0, 16.0), 32, 48)


@pytest.mark.parametrize("name", MOVES)
def test_movements_end_where_the_worked_examples_say(name):
    last = in_opencv([name]).world_from_cam[-1]
    place, yaw = EXAMPLES[name]
    assert torch.allclose(last[:3, 3], torch.tensor(place).float(), atol=1e-6)
    ahead = last[:3, 2]
    assert math.degrees(math.atan2(ahead[0], ahead[2])) == pytest.approx(yaw, abs=1e-4) and abs(ahead[1]) < 1e-6


def test_the_speed_is_a_scale_of_the_path():
    fast, slow = (in_opencv(["orbit_left", "push_in"], speed=s).world_from_cam for s in (1.0, 0.002))
    assert torch.allclose(fast[:, :3, 3] * 0.002, slow[:, :3, 3], atol=1e-7)
    assert torch.allclose(fast[:, :3, :3], slow[:, :3, :3], atol=1e-6)


def test_movements_are_made_in_the_axes_of_the_camera_before():
    pose = in_opencv(["pan_right", "push_in", "pan_left", "pull_out"]).world_from_cam[::4]
    assert torch.allclose(pose[2, :3, 3], torch.tensor([SINE, 0.0, COSINE]), atol=1e-6)
    assert torch.allclose(pose[4, :3, 3], torch.tensor([SINE, 0.0, COSINE - 1]), atol=1e-6)
    assert rotation_angle(pose[4, :3, :3]) < 1e-5


def test_an_orbit_keeps_its_point_ahead_at_its_ends_only():
    """Translations of world-to-camera are interpolated, not centres: the point wanders on the way."""
    keys = key_cameras(["orbit_right"])
    path = all_cameras(keys, 9)
    point = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    seen = (path @ point)[:, :3]
    assert torch.allclose(seen[[0, -1]], point[:3].expand(2, 3), atol=1e-12)
    assert (seen[4] - point[:3]).norm() > 0.01
    assert torch.allclose(path[4, :3, 3], (keys[0] + keys[1])[:3, 3] / 2)
    assert rotation_angle(path[4, :3, :3]).item() == pytest.approx(math.radians(15))


def test_frames_and_anchors_of_several_scenes():
    path = ["push_in", "orbit_left", "pan_right"]
    data = camera_data(path, 33)
    assert len(data["cameras"]) == 4 and len(data["cameras_interp"]) == 3 * 32 + 1
    anchors = [data["cameras_interp"][n] for n in range(0, 97, 32)]
    assert np.allclose(anchors, data["cameras"], atol=1e-12)
    assert np.allclose(data["cameras"][0], np.diag([-1, 1, -1, 1])), "its world is PyTorch3D's"


def test_our_reader_of_the_format_agrees(tmp_path):
    path = ["pan_left", "orbit_right", "move_right"]
    (tmp_path / "camera_data.json").write_text(json.dumps(camera_data(path, 5, 0.5)))
    read = load_trajectory(tmp_path / "camera_data.json", 32, 48)
    assert read.format == "worldscore"
    assert torch.allclose(read.cameras.cam_from_world, in_opencv(path, speed=0.5).cam_from_world, atol=1e-5)
    assert read.cameras.intrinsics[0, 0, 0] == 500


def test_dynamic_items_hold_still():
    cameras = to_cameras(held(5), (500.0, 500.0, 24.0, 16.0), 32, 48)
    assert torch.equal(cameras.cam_from_world, torch.eye(4).expand(5, 4, 4))


@pytest.mark.parametrize("name, says", [("pull_left", "switched off"), ("fixed", "no movement"), ("up", "push_in")])
def test_what_is_no_movement_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        movement(name)


def test_items_and_their_texts(dataset):
    kitchen, alley, ball = read_items(dataset.parent)
    still = "Everything in the scene remains completely motionless."
    assert kitchen.prompts == (f"Camera push in. The stove. 35mm photo. {still}",)
    assert [text.split(".")[:2] for text in alley.prompts] == [
        ["Camera pan left", " A door"],
        ["Camera move left", " A yard"],
    ]
    assert ball.prompts == ("Camera fixed. A ball rolls. 35mm photo",)
    assert str(kitchen.folder) == "static/photorealistic/indoor/kitchens/003"
    assert str(ball.folder) == "dynamic/photorealistic/rigid/001"
    assert alley.count(33) == 65 and alley.anchors(33) == [0, 32, 64] and ball.count(33) == 33


@pytest.mark.parametrize(
    "change, says",
    [
        ({"camera_path": ["fixed"]}, "no movement"),
        ({"camera_path": []}, "empty"),
        ({"camera_path": "push_in"}, "camera_path"),
        ({"prompt_list": ["one"]}, "2 texts"),
        ({"image": "../../etc/passwd.png"}, "in the dataset"),
        ({"scene_type": "a/b"}, "plain names"),
        ({"visual_movement": "dynamic"}, "visual_movement"),
        ({"style": None}, "style"),
    ],
)
def test_items_that_the_harness_could_not_read_are_named(dataset, tmp_path, change, says):
    items = json.loads((dataset / "static" / "static.json").read_text())
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "static.json").write_text(json.dumps([items[0] | change]))
    with pytest.raises(ValueError, match=says):
        read_items(tmp_path, ("static",))


def test_two_items_of_one_folder_are_refused(dataset, tmp_path):
    items = json.loads((dataset / "static" / "static.json").read_text())
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "static.json").write_text(json.dumps([items[0], items[0]]))
    with pytest.raises(ValueError, match="is that of item 0"):
        read_items(tmp_path, ("static",))


def test_a_dataset_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="Howieeeee/WorldScore"):
        read_items(tmp_path)


def test_the_input_is_cropped_in_the_middle(dataset):
    kitchen = read_items(dataset)[0]
    picture = np.asarray(crop_input(kitchen.image, 32, 48))
    assert picture.shape == (32, 48, 3)
    wide = Image.fromarray(read_image(kitchen.image))
    expected = wide.crop((22, 0, 22 + 105, 70)).resize((48, 32))  # int(70 * 48 / 32) = 105
    assert np.array_equal(picture, np.asarray(expected))


def test_everything_is_where_the_harness_looks(whole, dataset, config):
    root = whole / "worldscore_output"
    kitchen, alley = (
        root / "static/photorealistic/indoor/kitchens/003",
        root / "static/photorealistic/outdoor/alleys/000",
    )
    ball = root / "dynamic/photorealistic/rigid/001"
    assert sorted(p.name for p in kitchen.iterdir()) == [
        *("camera_data.json", "frames", "image_data.json", "input_image.png", "time.txt", "videos")
    ]
    assert not (ball / "camera_data.json").exists()
    for place, count in {kitchen: 9, alley: 17, ball: 9}.items():
        names = sorted(p.name for p in (place / "frames").iterdir())
        assert names == [f"{n:03d}.png" for n in range(count)]
        assert all(read_image(place / "frames" / name).shape == (32, 48, 3) for name in names)
        record = json.loads((place / "image_data.json").read_text())
        assert record["total_frames"] == count and record["num_scenes"] == (count - 1) // 8
        assert record.get("anchor_frame_idx") == (None if place == ball else list(range(0, count, 8)))
        assert (place / "videos" / "output.mp4").stat().st_size > 0
    data = json.loads((alley / "camera_data.json").read_text())
    assert list(data) == ["focal_length", "scale", "cameras", "cameras_interp"] and data["focal_length"] == 500
    assert check(config, read_items(dataset), whole) == []


def test_the_cameras_reach_the_model(dataset, pipeline, config):
    """Of the same noise another path makes another video, and the same path the same."""
    picture = np.asarray(crop_input(read_items(dataset)[0].image, 32, 48))
    listed = torch.tensor(camera_data(["pan_left"], 9)["cameras_interp"], dtype=torch.float64)
    videos = [imagine(pipeline, config, picture, m, ("",), 3) for m in (listed, held(9), listed)]
    assert np.array_equal(videos[0], videos[2]) and not np.array_equal(videos[0], videos[1])


def test_both_intrinsics_are_reported(whole):
    told = json.loads((whole / "mirage.json").read_text())["intrinsics"]
    assert told["videos"] == {"fx": 500, "fy": 500, "cx": 24, "cy": 16} == told["corrected_evaluation"]
    assert told["stock_evaluation"] == {"fx": 500, "fy": 500, "cx": 256, "cy": 256}
    wide = WorldScore(size=(704, 1280)).lens_report()
    assert wide["principal_point_off_by"] == [-384, -96] and wide["field_of_view_degrees"][0] == pytest.approx(
        104, abs=0.1
    )
    assert not wide["stock_evaluation_is_right"]
    assert WorldScore(size=(512, 512)).lens_report()["stock_evaluation_is_right"]
    assert WorldScore(size=(704, 1280), lens="stock").intrinsics == (500, 500, 256, 256)


def test_what_is_there_is_kept_and_the_rest_goes_on(copy, dataset, pipeline, config):
    items = read_items(dataset)
    place = copy / "worldscore_output" / items[0].folder
    first = (copy / "worldscore_output" / items[1].folder / "frames" / "000.png").stat().st_mtime_ns
    before = (place / "frames" / "004.png").read_bytes()
    cameras = (place / "camera_data.json").read_bytes()
    (place / "frames" / "004.png").unlink()
    (place / ".mirage-1").mkdir()  # it was killed here
    told = []
    assert write(config, items, copy, pipeline, on_item=lambda *said: told.append(said[2])) == {}
    assert (place / "frames" / "004.png").read_bytes() == before, "the same noise makes the same frames"
    assert (place / "camera_data.json").read_bytes() == cameras and not (place / ".mirage-1").exists()
    assert (copy / "worldscore_output" / items[1].folder / "frames" / "000.png").stat().st_mtime_ns == first
    assert "there" not in told[0] and told[1].endswith("is there")
    with pytest.raises(ValueError, match="frames 9 and not 17"):
        write(replace(config, frames=17), items, copy, pipeline)


def test_the_harness_cameras_are_kept_and_followed(dataset, pipeline, config, tmp_path):
    """Its loader has written camera_data.json before: the bytes stay, the walk is theirs."""
    item = read_items(dataset)[0]
    place = tmp_path / "worldscore_output" / item.folder
    place.mkdir(parents=True)
    (place / "camera_data.json").write_text(json.dumps(camera_data(["pan_left"], 9), indent=4))
    before = (place / "camera_data.json").read_bytes()
    assert write(config, [item], tmp_path, pipeline) == {}
    assert (place / "camera_data.json").read_bytes() == before
    assert [fault.name for fault in check(config, [item], tmp_path)] == ["cameras", "cameras"]
    (place / "camera_data.json").write_text(json.dumps(camera_data(["pan_left"], 5)))
    (place / "frames" / "000.png").unlink()
    assert "must hold 9 cameras" in write(config, [item], tmp_path, pipeline)[str(item.folder)]


def test_one_bad_picture_does_not_stop_the_others(dataset, pipeline, config, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "data")
    (root / "static/photorealistic/indoor/kitchens/003.png").write_bytes(b"no picture")
    failed = write(config, read_items(root, ("static",)), tmp_path / "out", pipeline)
    assert (
        list(failed) == ["static/photorealistic/indoor/kitchens/003"] and "cannot be read" in failed[next(iter(failed))]
    )
    assert check(config, read_items(root, ("static",))[1:], tmp_path / "out") == []


def spoil(name, place):
    """Make one fault."""
    frames = place / "frames"
    record = json.loads((place / "image_data.json").read_text())
    data = json.loads((place / "camera_data.json").read_text())
    if name == "missing":
        (place / "time.txt").unlink()
    elif name == "count":
        (frames / "008.png").unlink()
    elif name == "names":
        (frames / "008.png").rename(frames / "0008.png")
    elif name == "size":
        Image.new("RGB", (32, 48)).save(frames / "002.png")
    elif name == "unreadable":
        (frames / "002.png").write_bytes((frames / "002.png").read_bytes()[:100])
    elif name == "record":
        (place / "image_data.json").write_text(json.dumps(record | {"total_frames": 8}))
    elif name == "anchors":
        (place / "image_data.json").write_text(json.dumps(record | {"anchor_frame_idx": [0, 7]}))
    elif name == "cameras":
        data["cameras_interp"][3][0][3] += 0.01
        (place / "camera_data.json").write_text(json.dumps(data))
    elif name == "input":
        Image.new("RGB", (48, 32)).save(place / "input_image.png")
    elif name == "stranger":
        shutil.copytree(place, place.with_name("017"))


@pytest.mark.parametrize(
    "name",
    ["missing", "count", "names", "size", "unreadable", "record", "anchors", "cameras", "input", "stranger"],
)
def test_each_fault_has_its_name(name, copy, dataset, config):
    spoil(name, copy / "worldscore_output/static/photorealistic/indoor/kitchens/003")
    faults = check(config, read_items(dataset), copy)
    assert [fault.name for fault in faults] == [name] and "kitchens" in faults[0].folder


def test_a_dynamic_item_with_cameras_is_a_fault(copy, dataset, config):
    (copy / "worldscore_output/dynamic/photorealistic/rigid/001/camera_data.json").write_text("{}")
    assert [fault.name for fault in check(config, read_items(dataset), copy)] == ["cameras"]


def test_more_frames_than_the_harness_can_order_are_refused(dataset, pipeline, tmp_path):
    items = read_items(dataset)
    with pytest.raises(ValueError, match=r"1000\.png would come before 101\.png; use frames up to 500"):
        write(WorldScore(size=(32, 48), frames=505), items, tmp_path, pipeline)
    with pytest.raises(ValueError, match="use 49 or 53"):
        write(WorldScore(size=(32, 48), frames=50), items, tmp_path, pipeline)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong, says",
    [({"frames": 1}, "frames"), ({"lens": "odd"}, "lens"), ({"lens": "stock"}, "outside"), ({"scale": 0.0}, "scale")],
)
def test_wrong_settings_are_refused(wrong, says, unchecked):
    with pytest.raises(ValueError, match=says):
        WorldScore(**{"size": (32, 48)} | wrong)


STAND_IN = {  # as little of the harness as the loop touches, by its documentation
    "benchmark/utils/modeltype.py": """
type2model = {
    "threedgen": [
        "a",
    ],
    "videogen": [
        "b",
    ]
}
""",
    "benchmark/utils/utils.py": """
import numpy as np, torch
from PIL import Image
def create_cameras(listed): return torch.stack([torch.from_numpy(np.array(c)).float() for c in listed])
def center_crop(path, resolution, out):
    Image.open(path).resize(resolution).save(f"{out}/input_image.png")
    return f"{out}/input_image.png"
def generate_prompt_from_list(prompts, path, static=False): return [f"Camera {m}" for m in path]
""",
    "benchmark/helpers/dataloader.py": """
import os
import numpy as np
from mirage.evaluation.worldscore.paths import camera_data
class DataLoader:
    def __init__(self, config): self.evaluation_config, self.data = config, []
    def set_interpframe_num(self):
        self.total = len(self.camera_path) * (self.evaluation_config["frames"] - 1) + 1
    def load_data(self, record, regenerate):
        out = os.path.join(self.evaluation_config["out"], record["visual_movement"], record["camera_path"][0])
        data = {"image_path": os.path.join(self.evaluation_config["root"], record["image"]), "image_data": record,
                "camera_path": record["camera_path"], "total_frames": self.total, "output_dir": out,
                "inpainting_prompt_list": []}
        if record["visual_movement"] == "dynamic":
            return data, False
        cameras = camera_data(record["camera_path"], self.evaluation_config["frames"])
        return data, np.array(cameras["cameras"]), np.array(cameras["cameras_interp"]), False
""",
    "benchmark/helpers/__init__.py": """
import os, json
CONFIG, SAVED = {}, []
class Helper:
    def __init__(self, config): self.config, self.adapter = config, None
    def adapt(self, data): return self.adapter(self.config, data, self)
    def prepare_data(self, out, data):
        os.makedirs(out)
        self.out = out
    def save(self, frames): SAVED.append((self.out, frames))
def GetHelpers(name, movement):
    config = CONFIG | {"json_path": f"{CONFIG['root']}/{movement}/{movement}.json", "regenerate": False}
    return None, Helper(config)
""",
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    root = tmp_path / "WorldScore"
    for name, text in STAND_IN.items():
        (root / "worldscore" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "worldscore" / name).write_text(text)
    metrics = root / "worldscore/benchmark/metrics"
    metrics.mkdir(parents=True)
    (metrics / "camera_error_metrics.py").write_text("calib = [500, 500, 256, 256]\n")
    (metrics / "reprojection_error_metrics.py").write_text("x = np.array([500.0, 500.0, 256.0, 256.0])\n")
    monkeypatch.syspath_prepend(str(root))
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "worldscore"]:
        del sys.modules[name]


def test_the_loop_runs_in_a_checkout(checkout, dataset, tiny_model, tmp_path):
    yaml = pytest.importorskip("yaml")
    config = WorldScore(size=(32, 48), frames=9, model=str(tiny_model))
    files = install(checkout, config)
    assert all(path.is_file() for path in files)
    again = {path: path.read_text() for path in files}
    assert install(checkout, config) == files and all(path.read_text() == text for path, text in again.items())
    listed = {}
    exec((checkout / "worldscore/benchmark/utils/modeltype.py").read_text(), listed)
    assert listed["type2model"] == {"threedgen": ["a"], "videogen": ["mirage", "b"]}
    settings = yaml.safe_load((checkout / "config/model_configs/mirage.yaml").read_text())
    assert settings["resolution"] == [48, 32] and settings["frames"] == 9 and settings["generate_type"] == "i2v"
    assert settings["runs_root"] == "${oc.env:MODEL_PATH}/mirage" and settings["model"] == "mirage"
    helpers = importlib.import_module("worldscore.benchmark.helpers")
    helpers.CONFIG.update(settings, root=str(dataset), out=str(tmp_path / "out"))
    loop = {"__name__": "loop"}
    exec(compile((checkout / "world_generators/run_mirage_worldscore.py").read_text(), "loop.py", "exec"), loop)
    loop["main"]()
    counts = [(Path(out).name, len(frames), frames[0].size) for out, frames in helpers.SAVED]
    assert counts == [("push_in", 9, (48, 32)), ("pan_left", 17, (48, 32)), ("fixed", 9, (48, 32))]


def test_the_intrinsics_of_the_evaluation_go_there_and_back(checkout, monkeypatch):
    install(checkout, WorldScore(size=(704, 1280)))
    monkeypatch.chdir(checkout)
    metrics = checkout / "worldscore/benchmark/metrics"
    texts = lambda: [path.read_text() for path in sorted(metrics.glob("*.py"))]

    def run(word):
        monkeypatch.setattr(sys, "argv", ["mirage_intrinsics.py", word])
        exec((checkout / "world_generators/mirage_intrinsics.py").read_text(), {"__doc__": "usage"})

    run("corrected")
    assert all("[500, 500, 640, 352]" in text for text in texts())
    run("corrected")
    run("stock")
    assert all("[500, 500, 256, 256]" in text for text in texts())
    (metrics / "camera_error_metrics.py").write_text("nothing of the kind\n")
    with pytest.raises(SystemExit, match="set it by hand"):
        run("corrected")


def test_a_list_of_models_of_another_shape_is_left_alone(checkout):
    listed = checkout / "worldscore/benchmark/utils/modeltype.py"
    listed.write_text("MODELS = []\n")
    with pytest.raises(ValueError, match="by hand"):
        install(checkout, WorldScore(size=(32, 48)))
    assert listed.read_text() == "MODELS = []\n" and not (checkout / "config").exists()


def test_the_files_without_a_checkout(tmp_path):
    files = install(tmp_path / "new", WorldScore(size=(32, 48)))
    assert {path.name for path in files} == {
        *("mirage.yaml", "adapter_mirage.py", "run_mirage_worldscore.py", "mirage_intrinsics.py")
    }
    for path in files:
        if path.suffix == ".py":
            compile(path.read_text(), path.name, "exec")


def test_the_command_writes_checks_and_installs(dataset, tiny_model, tmp_path, capsys):
    out, common = tmp_path / "out", ["evaluate", "worldscore", "--dataset", str(dataset), "--out"]
    made = [*common, str(out), "--model", str(tiny_model), "--frames", "9", "--device", "cpu", "--shard", "1/2"]
    assert main(made) == 0
    said = capsys.readouterr().out
    assert "alleys/000: 17 frames" in said and "kitchens" not in said and "off by [232.0, 240.0] pixels" in said
    assert main([*common, str(out), "--check", "--split", "dynamic"]) == 2
    captured = capsys.readouterr()
    assert "rigid/001: missing" in captured.out and "1 faults (1 missing)" in captured.err
    assert json.loads((out / "check.json").read_text())[0]["name"] == "missing"
    assert main([*common, str(out), "--check", "--shard", "1/2"]) == 0
    assert "1 items with 17 frames are as the harness wants them" in capsys.readouterr().out
    assert main([*common, str(tmp_path / "none"), "--check"]) == 2
    assert "say --size" in capsys.readouterr().err
    assert main(["evaluate", "worldscore", "--install", str(tmp_path / "files"), "--size", "512x512"]) == 0
    assert "256, the same" in capsys.readouterr().out
    assert main(["evaluate", "worldscore", "--out", str(out)]) == 2
    assert "--dataset is needed" in capsys.readouterr().err
