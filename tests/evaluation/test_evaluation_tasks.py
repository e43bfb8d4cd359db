"""The other tasks of `mirage evaluate` end to end, with a tiny model: figures, resuming, pages, mistakes."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mirage.cli import main
from mirage.evaluation import ClosedLoop, evaluate
from mirage.evaluation.camera_control import CameraControl
from mirage.evaluation.camera_control import evaluate as evaluate_camera
from mirage.evaluation.drift import Drift, long_walk
from mirage.evaluation.drift import evaluate as evaluate_drift
from mirage.evaluation.drift import measure as measure_drift
from mirage.evaluation.metrics import CAP
from mirage.evaluation.novel_view import NovelView
from mirage.evaluation.novel_view import evaluate as evaluate_novel_view
from mirage.evaluation.novel_view import measure as measure_novel_view
from mirage.evaluation.worlds import HELD_OUT, make_walk
from mirage.video.io import read_video


class Links(HTMLParser):
    """What a page shows."""

    def __init__(self, text):
        super().__init__()
        self.files, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.files += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.cells.append(data.strip())


def check_page(out, words):
    """The page names its command, shows files that are there, and says how it was measured."""
    text = (out / "report.html").read_text()
    page = Links(text)
    assert page.files and all((out / file).is_file() for file in page.files)
    assert not [file for file in page.files if re.match(r"\w+:|/", file)], "it opens from disk, wherever it lies"
    for word in (*words, "How it is measured"):
        assert any(word in cell for cell in page.cells), word
    films = [file for file in page.files if file.endswith(".mp4")]
    assert films and all(len(read_video(out / file)) > 1 for file in films[:2])
    return page


def test_novel_views(tiny, tmp_path):
    config = NovelView(model=str(tiny), worlds=2, frames=9, sheets=1)
    first = evaluate_novel_view(replace(config, worlds=1), tmp_path, processes=1, command="mirage x < y")
    done = []
    results = evaluate_novel_view(
        config, tmp_path, processes=1, command="mirage x < y", on_scene=lambda a, b: done.append((a, b))
    )
    assert first["scenes"] == 1 and results["scenes"] == 2 and done == [(1, 2), (2, 2)]
    rows = results["rows"]
    assert list(rows) == ["latent", "none", "memory-only", "autoencoder", "first-frame"]
    assert rows["first-frame"]["all_detail"]["mean"] > 0.5 and rows["latent"]["all_psnr"]["n"] == 2
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    page = check_page(tmp_path, ["mirage x < y", "scikit-image", "Novel views"])
    assert sum(file.endswith(".mp4") for file in page.files) == 6, "one world, five rows and the truth"
    with pytest.raises(ValueError, match="frames 9 there, 13 here"):
        evaluate_novel_view(replace(config, frames=13), tmp_path, processes=1)


def test_the_truth_is_perfect_and_its_parts_make_the_whole():
    walk = make_walk(HELD_OUT, 9, 32, 48)
    figures = measure_novel_view(walk, walk.frames)
    for region in ("all", "seen", "unseen"):
        assert figures[f"{region}_psnr"] == CAP and figures[f"{region}_ssim"] == figures[f"{region}_detail"] == 1
    dim = (walk.frames * 0.8).astype(np.uint8)
    figures = measure_novel_view(walk, dim)
    share, error = figures["seen_share"], lambda name: 10 ** (-figures[f"{name}_psnr"] / 10)
    assert share * error("seen") + (1 - share) * error("unseen") == pytest.approx(error("all"), rel=1e-6)


def test_camera_control(tiny, tmp_path):
    results = evaluate_camera(CameraControl(model=str(tiny), worlds=1, frames=21, sheets=1), tmp_path, processes=1)
    rows = results["rows"]
    assert list(rows)[-2:] == ["first-frame", "truth"]
    assert rows["truth"]["flow"]["mean"] == 0 < rows["autoencoder"]["flow"]["mean"]
    check_page(tmp_path, ["SIFT", "floor"])
    assert "the true frames" in (tmp_path / "table.md").read_text()


def test_drift(tiny, tmp_path):
    config = Drift(model=str(tiny), worlds=1, chunks=4, sheets=1, rows=("latent",))
    results = evaluate_drift(config, tmp_path, processes=1)
    curves = results["curves"]
    sizes = curves["latent"]["memory_kib"]["mean"]
    assert len(sizes) == 4 and sizes == sorted(sizes)
    assert curves["latent"]["observed_psnr"]["mean"][0] is None is not curves["latent"]["observed_psnr"]["mean"][1]
    assert curves["latent"]["imagined_psnr"]["mean"][:2] == [None, None]
    assert curves["memory-only"]["imagined_psnr"]["mean"][2] == CAP
    assert all(value > 0 for value in curves["latent"]["depth"]["mean"])
    check_page(tmp_path, ["Return to observed, dB", "chunks"])


def test_a_loop_repeats_and_its_drift_is_what_was_added():
    """A video that loses a grey level per chunk drifts by that much, and the truth by nothing."""
    config = Drift(chunks=8)
    walk = long_walk(config, HELD_OUT, 8, 32, 48)
    assert len(walk.frames) == 65 and np.array_equal(walk.frames[8], walk.frames[24])
    assert np.array_equal(walk.frames[0], walk.frames[64]) and not np.array_equal(walk.frames[0], walk.frames[8])
    truth = measure_drift(walk, walk.frames, 8, loop=True)
    assert set(truth["all_psnr"]) == {CAP} and set(truth["colour"]) == {0.0}
    chunk = (np.arange(65) + 7) // 8
    darker = np.clip(walk.frames.astype(int) - chunk[:, None, None, None], 0, 255).astype(np.uint8)
    found = measure_drift(walk, darker, 8, loop=True)
    assert found["colour"] == sorted(found["colour"]) and found["colour"][3] == pytest.approx(4 * 3**0.5, rel=0.1)
    returns = [value for value in found["observed_psnr"] if value == value]
    assert len(returns) == 4 and returns == sorted(returns, reverse=True)


def test_a_picture_comes_back_to_itself(tiny, photo, tmp_path):
    config = ClosedLoop(model=str(tiny), sources=(str(photo),), frames=17, rows=("latent",), path="there-and-back:pan")
    results = evaluate(config, tmp_path, processes=1)
    rows = results["rows"]
    assert results["on"] == "pictures" and list(rows) == ["latent", "memory-only", "autoencoder"]
    assert rows["autoencoder"]["observed_psnr"]["mean"] > 0 and "all_psnr" not in rows["latent"]
    check_page(tmp_path, ["return to observed, dB", "there-and-back:pan"])


def test_a_damaged_recording_is_named_and_the_rest_goes_on(tiny, recorded, tmp_path, caplog):
    walk = make_walk(HELD_OUT, 10, 32, 48, kind="walk")
    folder = recorded(tmp_path / "hall", walk)
    (folder / "rgb/00007.png").write_bytes(b"no picture")
    config = NovelView(model=str(tiny), sources=(str(folder),), frames=5, rows=("none",), sheets=0)
    results = evaluate_novel_view(config, tmp_path / "out", processes=1)
    assert results["scenes"] == 1 and list(results["left_out"]) == ["hall-5-9"]
    for told in (caplog.text, (tmp_path / "out/table.md").read_text(), (tmp_path / "out/report.html").read_text()):
        assert "00007.png" in told and "left out" in told
    (folder / "rgb/00002.png").write_bytes(b"no picture either")
    with pytest.raises(ValueError, match=r"no scene could be measured.*00002\.png"):
        evaluate_novel_view(config, tmp_path / "new", processes=1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "words, said",
    [
        (["closedloop"], "did you mean closed-loop?"),
        (["novel-views"], "did you mean novel-view?"),
        (["novel-view", "nowhere"], "source not found: nowhere"),
        (["novel-view", "--frames", "10"], "use 9 or 13"),
        (["closed-loop", "PHOTO", "--path", "right 20deg"], "must end where it began"),
        (["camera", "PHOTO"], "measures on worlds or recordings"),
        (["drift", "--chunks", "6"], "for a loop a multiple of 4"),
        (["drift", "--model", "none-such"], "model must be nano"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence_and_write_nothing(words, said, tiny, photo, tmp_path, capsys):
    given = [str(photo) if word == "PHOTO" else word for word in words]
    model = [] if "--model" in words else ["--model", str(tiny)]
    out = tmp_path / "out"
    assert main(["evaluate", *given, *model, "--out", str(out), "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert said in told and told.startswith("mirage: error: ") and told.count("\n") == 1
    assert not out.exists()
