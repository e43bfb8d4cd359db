"""The command: what it writes, and that every mistake is one sentence, exit code 2 and nothing written."""

import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "geometry"))
import small_checkpoints

from mirage.camera.path import LEGS, PRESETS
from mirage.cli import PATH_HELP, main
from mirage.video.io import read_image, read_video


@pytest.fixture
def mirage(capsys, tiny_model, tmp_path):
    """Run the command on the tiny model; give exit code, stdout and stderr."""

    def run(*words) -> tuple[int, str, str]:
        words = [str(word) for word in words]
        for option, value in {"--model": tiny_model, "--device": "cpu"}.items():
            words += [option, str(value)] * (option not in words)
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def spatia(tmp_path):
    """Write a camera path in Spatia's format; rows replace those of the first poses."""

    def write(poses: int = 9, lens: str = "[1.0 1.5 0.5 0.5]", first: str | None = None) -> str:
        folder = tmp_path / "path"
        folder.mkdir()
        matrices = []
        for i in range(poses):
            pose = np.eye(4)
            pose[2, 3] = -0.05 * i
            matrices.append(json.dumps(pose.tolist()))
        if first is not None:
            matrices[0] = first
        (folder / "w2c.txt").write_text("\n".join(matrices))
        (folder / "intrinsics.txt").write_text(lens)
        return str(folder)

    return write


def test_generate_writes_a_video_a_sheet_and_a_report(mirage, photo, tmp_path):
    out = tmp_path / "new" / "out"
    code, said, _ = mirage("generate", photo, "--path", "there-and-back:forward 0.5", "--frames", 17, "--out", out)
    assert code == 0
    assert {p.name for p in out.iterdir()} == {"video.mp4", "contact.jpg", "report.json"}
    assert {p.name for p in tmp_path.iterdir()} == {"photo.png", "new"}
    assert read_video(out / "video.mp4").shape == (17, 32, 48, 3)
    assert read_image(out / "contact.jpg").shape[1] > 5 * 48
    report = json.loads((out / "report.json").read_text())
    assert len(report["coverage"]) == 5 and report["coverage"][0] == 1.0
    assert len(report["memory_bytes"]) == 3 and report["memory_bytes"][0] > 0
    assert report["seconds"].keys() >= {"encode", "depth", "denoise", "decode", "read", "write", "video file"}
    assert report["size"] == [32, 48] and report["seed"] == 0 and report["path"]["poses"] == 17
    assert report["return_psnr"] > 0 and report["frames_per_second"] > 0
    for words in ("17 poses", "scene depth", "frames per second", "denoise", str(out / "video.mp4")):
        assert words in said


def test_same_seed_same_video_other_seed_other_video(mirage, photo, tmp_path):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        mirage("generate", photo, "--path", "dolly", "--frames", 9, "--seed", seed, "--out", tmp_path / name)
    a, b, c = (read_video(tmp_path / name / "video.mp4") for name in "abc")
    assert (a == b).all() and (a != c).any()


@pytest.mark.parametrize("memory", ["colour", "none"])
def test_other_memories(mirage, photo, tmp_path, memory):
    code, *_ = mirage(
        "generate", photo, "--path", "pan", "--frames", 9, "--memory", memory, "--out", tmp_path, "--size", "32x32"
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0 and report["size"] == [32, 32]
    assert (report["memory_bytes"][-1] == 0) == (memory == "none")


def test_a_camera_file_brings_frames_and_intrinsics(mirage, photo, spatia, tmp_path):
    code, said, _ = mirage("generate", photo, "--path", spatia(poses=11), "--out", tmp_path / "out")
    assert code == 0 and "the first 9 of 11 poses" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["frames"] == 9
    assert report["path"]["intrinsics"][0] == pytest.approx([48.0, 0.0, 24.0])


def test_scale_auto_brings_a_path_into_the_scene(mirage, photo, tmp_path):
    code, said, _ = mirage(
        "generate", photo, "--path", "dolly:distance=500", "--frames", 9, "--scale", "auto", "--out", tmp_path / "out"
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert code == 0 and report["path"]["scale"] < 0.1
    assert report["path"]["reach"] < 0.5 * report["scene_depth_percentiles"]["50"]
    assert "warning" not in said


def test_known_depth_is_used(mirage, photo, tmp_path):
    depth = np.full((60, 90), 3000, np.uint16)
    depth[:, :30] = 0  # filled by the estimate
    Image.fromarray(depth).save(tmp_path / "depth.png")
    code, said, _ = mirage(
        "preview", photo, "--path", "still", "--frames", 5, "--out", tmp_path / "out",
        "--depth", tmp_path / "depth.png", "--depth-scale", 1000,
    )  # fmt: skip
    assert code == 0 and "3 (p50)" in said and "the depth is known" in said


def test_depth_and_movers_by_other_models(mirage, photo, tmp_path):
    models = {kind: getattr(small_checkpoints, kind)(tmp_path / kind) for kind in ("glpn", "segformer")}
    words = [photo, "--path", "forward 0.1", "--frames", "9", "--size", "32x48"]
    words += ["--depth-model", models["glpn"], "--movers", models["segformer"]]
    code, out, err = mirage("generate", *words, "--out", tmp_path / "out")
    assert code == 0 and "movers" in out, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["depth_model"] == str(models["glpn"]) and report["movers"] == str(models["segformer"])
    code, out, err = mirage("preview", *words, "--out", tmp_path / "look")
    assert code == 0, err
    code, out, err = mirage("generate", *words, "--world", tmp_path / "world")
    assert code == 0, err
    report = json.loads((tmp_path / "world" / "report.json").read_text())
    assert report["settings"]["movers"] == str(models["segformer"])
    code, out, err = mirage("generate", *words[:-2], "--world", tmp_path / "world")
    assert code == 2 and err.count("\n") == 1 and "another picture, size, seed or --movers" in err
    on = ["--path", "forward 0.1", "--frames", "9", "--depth-model", models["glpn"], "--world", tmp_path / "world"]
    code, out, err = mirage("generate", *on, "--movers", "other")
    assert code == 2 and "--movers of world" in err
    code, out, err = mirage("generate", *on)
    assert code == 0 and "movers 0." in out, err


def test_preview_tells_coverage_scale_and_collisions(mirage, photo, tmp_path):
    code, said, _ = mirage("preview", photo, "--path", "dolly:distance=50", "--frames", 17, "--out", tmp_path / "out")
    assert code == 0 and {p.name for p in (tmp_path / "out").iterdir()} == {"preview.jpg", "preview.mp4"}
    assert "100%" in said and "warning: the camera passes into or behind surfaces" in said
    suggested = float(said.split("suggested --scale ")[1].split()[0])
    again = mirage(
        "preview", photo, "--path", "dolly:distance=50", "--frames", 17, "--scale", suggested, "--out", tmp_path / "out"
    )[1]
    assert "warning: the camera" not in again
    assert float(again.split("suggested --scale ")[1].split()[0]) == pytest.approx(suggested, rel=0.01)


def test_demo_shows_the_return_and_its_controls(mirage, photo, tmp_path):
    code, said, _ = mirage("demo", "--image", photo, "--frames", 17, "--out", tmp_path / "out")
    assert code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"demo.mp4", "walk.jpg", "return.png", "report.json"}
    assert len(read_video(tmp_path / "out" / "demo.mp4")) == 17 + 24
    for words in ("with memory", "without memory", "memory only", "ceiling of the autoencoder", "frames per second"):
        assert words in said
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["return_psnr"]) == 4


@pytest.mark.usefixtures("unchecked")
def test_demo_refuses_a_path_that_does_not_return(mirage, photo, tmp_path):
    done = mirage("demo", "--image", photo, "--path", "forward 1", "--frames", 17, "--out", tmp_path / "out")
    assert_refused(done, "path must end where it began, 'forward 1' does not")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["cv2", "matplotlib", "skimage"])
def test_evaluation_without_its_packages_says_what_to_install(capsys, monkeypatch, tmp_path, package):
    for name in [n for n in sys.modules if n.startswith(("mirage.evaluation", f"{package}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code = main(["evaluate", "closed-loop", "--out", str(tmp_path / "out")])
    assert_refused((code, *capsys.readouterr()), f"needs {package}: pip install 'mirage-world[evaluate]'")


def test_cameras_tells_what_a_file_means_and_converts_it(capsys, spatia, tmp_path):
    place, out = spatia(), tmp_path / "model"
    assert main(["cameras", place, "--to", "colmap", str(out)]) == 0
    said = capsys.readouterr().out
    assert "spatia (camera from world, OpenCV axes" in said and "9 poses, path 0.4 units" in said
    assert "a letter is 0.0125 units wide" in said and f"{out}: COLMAP, 9 poses" in said
    assert main(["cameras", str(out), "--format", "colmap", "--scale", "2"]) == 0
    said = capsys.readouterr().out
    assert "path 0.8 units" in said and "at 720 x 480 pixels" in said
    assert main(["cameras", "there-and-back:forward 2", "--frames", "33", "--size", "90x160"]) == 0
    assert "33 poses, path 4 units" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["nothing.txt"], "no such file"),
        (["forward 1", "--to", "fbx", "out"], "spatia, realestate10k, nerfstudio, colmap, not as 'fbx'"),
        (["README.md"], "not a camera path of a known format"),
        (["README.md", "--format", "fbx"], "unknown camera format 'fbx'"),
    ],
)
def test_mistakes_with_cameras(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("no path")
    assert_refused((main(["cameras", *words]), *capsys.readouterr()), said)


def test_help_names_every_kind_of_path():
    assert [name for name in [*PRESETS, *LEGS] if name not in PATH_HELP] == []


def bad_images(folder):
    folder.mkdir()
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (90, 60)).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("no picture")
    return folder


MISTAKES = {
    "missing image": (["{images}/none.png"], "image not found"),
    "corrupt image": (["{images}/cut.png"], "damaged"),
    "no image": (["{images}/text.jpg"], "no known format"),
    "one pixel": (["{images}/one.png"], "at least 16 x 16"),
    "unknown model": (["--model", "none-such"], "model must be nano"),
    "wrong frames": (["--frames", "64"], "use 61 or 65"),
    "no frames": (["--frames", "0"], "whole number from 1 to 10001"),
    "one frame": (["--frames", "1"], "use 5"),
    "endless frames": (["--frames", "100000000000"], "whole number from 1 to 10001"),
    "frames per second": (["--fps", "100000000000"], "whole number from 1 to 240"),
    "huge seed": (["--seed", "99999999999999999999"], "whole number from 0 to 9223372036854775807"),
    "negative seed": (["--seed", "-1"], "whole number from 0 to 9223372036854775807"),
    "absurd size": (["--size", "1600000x1600000"], "at most 4096 each"),
    "wrong size": (["--size", "30x48"], "multiples of 16"),
    "size in words": (["--size", "large"], "128x192"),
    "no path": (["--path", "sideways fast"], "A path is a preset"),
    "no path file": (["--path", "none/w2c.txt"], "no such file"),
    "wrong option": (["--path", "orbit:radios=2"], "is not an option"),
    "wrong scale": (["--scale", "-1"], "number from 0.0001 to 10000 or auto"),
    "tiny scale": (["--scale", "1e-300"], "number from 0.0001 to 10000 or auto"),
    "wrong fov": (["--fov", "200"], "number from 5 to 160"),
    "tiny fov": (["--fov", "0.001"], "number from 5 to 160"),
    "endless path": (["--path", "dolly:distance=1e30"], "at most 100000 units long"),
    "no radius": (["--path", "orbit:radius=0"], "radius must be positive"),
    "focal length": (["--intrinsics", "1e9,1e9,45,30"], "view of 5 to 160 degrees"),
    "intrinsics outside": (["--intrinsics", "50,50,500,30"], "principal point inside"),
    "unknown device": (["--device", "abacus"], "device abacus"),
    "unknown memory": (["--memory", "good"], "invalid choice"),
    "unknown option": (["--colour", "red"], "unrecognized arguments"),
    "steps": (["--steps", "0"], "whole number from 1 on"),
    "depth missing": (["--depth", "none.png"], "depth not found"),
    "depth is a picture": (["--depth", "{photo}"], "one number per pixel"),
    "unwritable": (["--out", "{photo}/out"], "cannot write the results"),
    "long name of results": (["--out", "x" * 300], "cannot write the results to xxx"),
    "long name of an image": (["{images}/" + "x" * 300], "xxx: file name too long"),
}


def assert_refused(done: tuple[int, str, str], words: str) -> None:
    code, _, err = done
    assert code == 2
    assert err.startswith("mirage: error: ") and err.count("\n") == 1, err
    assert words in err


@pytest.mark.usefixtures("unchecked")
class TestMistakes:
    @pytest.fixture(autouse=True)
    def _place(self, mirage, photo, tmp_path):
        self.mirage, self.photo, self.out = mirage, photo, tmp_path / "out"
        self.tmp = tmp_path

    def refuse(self, words: str, *more) -> None:
        image = [] if more and str(more[0]).startswith(str(self.tmp / "images")) else [self.photo]
        given = [str(word) for word in more]
        rest = ["--out", self.out] * ("--out" not in given) + ["--path", "dolly"] * ("--path" not in given)
        before = sorted(self.tmp.rglob("*"))
        assert_refused(self.mirage("generate", *image, *given, *rest), words)
        assert sorted(self.tmp.rglob("*")) == before

    @pytest.mark.parametrize("name", MISTAKES)
    def test_one_sentence_and_nothing_written(self, name):
        images = bad_images(self.tmp / "images")
        words, said = MISTAKES[name]
        self.refuse(said, *(word.format(images=images, photo=self.photo) for word in words))

    def test_path_of_another_format(self):
        (self.tmp / "notes.txt").write_text("the path goes\nthere and back\n")
        self.refuse("not a camera path of a known format", "--path", self.tmp / "notes.txt")

    def test_zero_poses(self, spatia):
        self.refuse("no poses", "--path", spatia(poses=0))

    def test_nan_pose(self, spatia):
        row = json.dumps([[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        self.refuse("not finite", "--path", spatia(first=row))

    def test_stretched_pose(self, spatia):
        row = json.dumps([[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        self.refuse("not orthonormal", "--path", spatia(first=row))

    def test_intrinsics_of_another_picture(self, spatia):
        self.refuse("intrinsics are those of an image", "--path", spatia(lens="[1.0 0.7 0.5 0.5]"))

    def test_intrinsics_missing(self, spatia):
        folder = spatia()
        os.remove(f"{folder}/intrinsics.txt")
        self.refuse("needs an intrinsics.txt", "--path", folder)

    @pytest.mark.parametrize(
        "depth, said",
        [
            (np.full((60, 90), -1.0), "must not be negative"),
            (np.full((60, 90), np.nan), "must be finite"),
            (np.zeros((60, 90)), "known somewhere"),
            (np.ones((60, 60)), "of the shape of the image"),
            (np.ones((60, 90, 3)), "one number per pixel"),
        ],
        ids=["negative", "nan", "unknown", "shape", "colour"],
    )
    def test_bad_depth(self, depth, said):
        np.save(self.tmp / "depth.npy", depth.astype(np.float32))
        self.refuse(said, "--depth", self.tmp / "depth.npy")

    def test_damaged_depth(self):
        (self.tmp / "depth.npy").write_bytes(b"\x93NUMPY\x01\x00")
        self.refuse("damaged", "--depth", self.tmp / "depth.npy")

    @pytest.mark.parametrize("part", ["transformer", "vae", "depth_head"])
    def test_damaged_weights(self, tiny_model, part):
        model = self.tmp / "model"
        shutil.copytree(tiny_model, model)
        weights = next((model / part).glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-100])
        self.refuse("cannot be loaded", "--model", model)

    def test_folder_without_a_model(self):
        (self.tmp / "model").mkdir()
        self.refuse("model_index.json", "--model", self.tmp / "model")

    @pytest.mark.parametrize("limit", [1000, 5000], ids=["at once", "at the end"])
    def test_full_disk(self, limit):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # what is longer fails as on a full disk
        try:
            self.refuse("cannot write the results", "--frames", "9")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_nothing(mirage, photo, tmp_path, number):
    def interrupt():
        while not list(tmp_path.glob(".mirage-*")):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = sorted(tmp_path.iterdir())
    threading.Thread(target=interrupt).start()
    code, _, err = mirage("generate", photo, "--path", "dolly", "--frames", 401, "--out", tmp_path / "out")
    assert code == 130 and "interrupted, nothing was written" in err
    assert sorted(tmp_path.iterdir()) == before


def test_an_early_interruption_says_what_is_left(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("mirage.cli._parser", interrupt)
    assert main([]) == 130
    assert capsys.readouterr().err == "\nmirage: interrupted, nothing was written\n"


def test_an_older_result_survives_a_failure(mirage, photo, tmp_path):
    (tmp_path / "report.json").write_text("old")
    code, *_ = mirage("generate", photo, "--path", "dolly", "--frames", 64, "--out", tmp_path)
    assert code == 2 and (tmp_path / "report.json").read_text() == "old"


def test_evaluate_prints_the_table(mirage, tmp_path):
    words = ["--worlds", "1", "--frames", "17", "--rows", "latent", "--processes", "1", "--sheets", "0"]
    code, said, _ = mirage("evaluate", "closed-loop", "--out", tmp_path / "results", *words)
    assert code == 0 and "memory only" in said and str(tmp_path / "results") in said
    assert (tmp_path / "results" / "results.json").exists()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "words, said",
    [
        (["train", "nano", "--stage", "polish"], "stages must be of"),
        (["train", "nano", "--stage", "pack"], "is not there yet"),
        (["evaluate", "closed-loop", "--frames", "64"], "use 49 or 65"),
        (["evaluate", "closed-loop", "--model", "none-such"], "model must be nano"),
        (["evaluate"], "the following arguments are required: TASK"),
        (["evaluate", "closedloop"], "did you mean closed-loop?"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_of_the_other_commands(capsys, tmp_path, words, said):
    out = ["--out", str(tmp_path / "out"), "--device", "cpu"] if len(words) > 1 else []
    code = main([*words, *out])
    assert_refused((code, *capsys.readouterr()), said)
    assert not (tmp_path / "out").exists()
