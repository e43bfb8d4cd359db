"""The measurement of the memory: its rivals are what they are said to be, its rulers measure, all of it runs."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mirage.camera.cameras import Cameras
from mirage.cli import main
from mirage.evaluation.bench import PARTS, MemoryBench, exactness, run
from mirage.evaluation.bench.clock import Machine, Times, interleaved
from mirage.evaluation.bench.growth import slope, tiled
from mirage.evaluation.bench.rivals import ReleasedMemory
from mirage.evaluation.bench.speed import share_in_view, wrong_cells
from mirage.evaluation.bench.tables import Aim, Curves, Part, Table
from mirage.evaluation.bench.video import Scale, Video
from mirage.kernels.backend import use
from mirage.memory import LatentMemory, MemoryRead
from mirage.scenes.halls import ROOM, WALL, placed


@pytest.fixture
def one_thread():
    """With several, the released algorithm is not defined."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["memory_s8", "memory_s16"])
def golden(request, shared):
    return load_file(shared / "golden" / f"{request.param}.safetensors")


def released_and_queries(golden: dict[str, torch.Tensor]) -> tuple[ReleasedMemory, Cameras]:
    latents, depths = golden["latents"], golden["depths"]
    height, (rows, columns) = latents.shape[2], depths.shape[1:]
    pose = torch.linalg.inv(golden["cam2world"].double()).float()
    k = golden["intrinsics"].expand(len(pose), 3, 3).contiguous()
    cameras = Cameras(k, pose, rows, columns)
    memory = ReleasedMemory(latents.shape[1], rows // height)
    keep = golden["exclude_masks"] == 0
    memory.update(latents[:1], depths[:1], cameras[:1], keep=keep[:1])
    memory.update(latents[1:], depths[1:], cameras[1:], keep=keep[1:])
    queries = torch.linalg.inv(golden["query_cam2world"].double()).float()
    k = golden["intrinsics"].reshape(-1, 3, 3)[:1].expand(len(queries), 3, 3).contiguous()
    return memory, Cameras(k, queries, rows, columns)


def test_the_released_algorithm_is_that_of_the_golden_vectors(golden, one_thread):
    memory, queries = released_and_queries(golden)
    valid = golden["memory_valid"].bool()
    assert torch.allclose(memory.points, golden["memory_points"][valid], atol=1e-4)
    assert memory.features.equal(golden["memory_features"][valid].float())
    image, mask = memory.read(queries)
    assert mask.equal(golden["readout_mask"].bool())
    assert (image - golden["readout"]).abs().max() <= 1e-5


def test_wrong_cells_of_the_released_algorithm_are_counted(one_thread):
    """On one thread none is wrong; swapping what lies behind for what is in front makes half of them wrong."""
    memory = ReleasedMemory(1, 4)
    cells = torch.arange(6.0).reshape(1, 1, 2, 3)
    view = placed(8, 12, torch.zeros(1, 3), torch.zeros(1))
    memory.update(cells, torch.full((1, 8, 12), 2.0), view)
    memory.update(cells + 10, torch.full((1, 8, 12), 1.0), view)
    assert wrong_cells(memory, view) == (0.0, 6)
    image, _ = memory.read(view)
    assert image.equal(cells + 10)
    memory.read = lambda cameras: (torch.cat([cells[..., :1], image[..., 1:]], -1), torch.ones(1, 2, 3).bool())
    assert wrong_cells(memory, view) == (2 / 6, 6)


def test_displacement_is_in_pixels():
    """A field that is read where it belongs is off by nothing, and one shifted by a pixel's width by one pixel."""
    camera = placed(32, 48, torch.zeros(1, 3), torch.zeros(1))
    field = camera.unproject(WALL.depth(camera, 4, 6)).permute(0, 3, 1, 2)
    none = torch.zeros(1, 4, 6, dtype=torch.bool)
    read = lambda f: MemoryRead(features=f, visible=~none, depth=f[:, 2], observed=none, unmoved=none)
    assert exactness.displaced(read(field), camera).max() < 1e-4
    pixel = 3.0 / camera.intrinsics[0, 0, 0]
    shifted = field + torch.tensor([0.0, 2 * pixel, 0.0])[:, None, None]
    assert (exactness.displaced(read(shifted), camera) - 2).abs().max() < 1e-3


def test_exactness_of_known_cases():
    """A step towards a wall 3 m away by 1 m: nearest leaves about 1 - (2/3)^2 of the cells empty, gathering none."""
    with use("reference"):
        found = exactness.displacements("wall", WALL, 352, 640, 16)
    of = lambda read, motion: [one for one in found if one.read == read and one.motion == motion]
    near, ours = of("nearest", "push-in 1 m"), of("gather", "push-in 1 m")
    assert abs(exactness.empty(near) - 100 * (1 - 4 / 9)) < 5 and exactness.empty(ours) == 0
    assert exactness.rms(near) > 3 and exactness.rms(ours) < 0.5
    assert {one.fillable for one in ours} == {22 * 40}


def test_cells_that_are_too_far_off_are_counted():
    """97 cells in their place and 3 that are 10 px off: one of these alone is 1 px RMS."""
    squares = torch.tensor([0.0] * 97 + [100.0] * 3, dtype=torch.float64)
    about = dict(world="", motion="", read="gather", empty=0, filled={}, square={})
    found = [exactness.Displacement(**about, fillable=100, squares=some) for some in (squares, squares[:97])]
    assert exactness.too_many(found) == 100 * 3 / 200 and exactness.too_many(found[1:]) == 0


def test_edges_of_cells():
    depth = torch.full((1, 8, 12), 2.0)
    depth[:, :, 6:] = 3.0  # inside the second column of cells
    depth[:, 4:, 8:] = 0.0  # between two cells
    assert exactness.straddles(depth, 4)[0].tolist() == [[False, True, False], [False, True, False]]
    between = [[False, True, False, False], [False, True, True, True], [False, True, True, False]]
    assert exactness.between_centres(depth, 4)[0].tolist() == between
    assert not exactness.straddles(
        ROOM.depth(placed(704, 1280, torch.zeros(1, 3), torch.zeros(1)), 704, 1280), 16
    ).any()


def test_a_video_is_remembered_chunk_by_chunk():
    scale = Scale(height=48, width=64, stride=8, channels=3, chunk_frames=9, chunks=3)
    video = Video.make(scale, path="returns")
    assert len(video.cameras) == 7 and [video.views(i) for i in range(3)] == [slice(1, 3), slice(3, 5), slice(5, 7)]
    assert video.views(1, shared=True) == slice(2, 5)
    centers = video.cameras.centers
    assert torch.allclose(centers[0], centers[-1] - torch.tensor([0.03, 0, 0]), atol=1e-4)
    assert len(list(video.first(2).remembered())) == 3


def test_who_stays_has_nearly_all_in_view_and_who_explores_has_not():
    scale = Scale(height=96, width=160, chunk_frames=33, chunks=4)
    share = {}
    for path in ("explores", "stays"):
        video = Video.make(scale, path=path)
        *_, memory = video.remembered(read="nearest")
        targets = video.cameras[video.views(3)]
        share[path] = share_in_view(memory, targets)
        assert share_in_view(memory, targets[:0]) == 0
    assert share["stays"] > 0.85 > share["explores"] > 0


@pytest.mark.parametrize("count", [1, 20, 47, 100])
def test_tiled_memories_read_the_same(count):
    """More of the same elements change nothing of what is read but for the copies that are cut off."""
    view = placed(24, 40, torch.zeros(1, 3), torch.zeros(1))
    latents = torch.arange(15.0).reshape(1, 1, 3, 5)
    memory = LatentMemory.from_view(latents, WALL.depth(view, 24, 40), view)
    surfels = tiled(memory.surfels, count)
    assert len(surfels) == count
    got = LatentMemory(surfels, 8, read="gather").read(view)
    whole = torch.arange(15).view(3, 5) < count
    assert got.visible[0].equal(whole) and got.features[0, 0][whole].equal(latents[0, 0][whole])


def test_times_are_compared_round_by_round():
    slow, fast = Times(cold=9.0, rounds=[4.0, 6.0, 100.0]), Times(cold=9.0, rounds=[2.0, 2.0, 10.0])
    assert slow.over(fast) == 3.0 and slow.median == 6.0
    calls = []
    contenders = {name: lambda name=name: lambda: calls.append(name) for name in "ab"}
    times = interleaved(contenders, rounds=4, seconds=60.0)
    assert [len(t.rounds) for t in times.values()] == [4, 4]
    assert "".join(calls) == "ab" + "ab" + "aabb" + "bbaa" + "aabb" + "bbaa"  # cold, warm, then in turn


def test_the_limit_is_between_the_worst_and_the_sum():
    machine = Machine(bandwidth=10.0, flops=100.0, lookups=1.0)
    assert machine.least(nbytes=20.0, flops=100.0, lookups=0.5) == (2.0, 3.5)


def test_slope_of_a_power_law():
    assert slope([(x, 7 * x**1.5) for x in (1.0, 3.0, 10.0, 200.0)]) == pytest.approx(1.5)


def test_a_part_survives_the_file_and_says_what_is_missed():
    part = Part(
        tables=[Table(title="t", columns=["a", "b"], rows=[["x", 1.5], ["y", None]], note="n")],
        aims=[Aim(wish="w", found="f", met=None)],
        curves=[Curves(title="c", x="x", y="y", series={"s": [[1, 2.0]]}, log=True)],
    )
    again = Part.from_json(json.loads(json.dumps(part.to_json(), allow_nan=False)))
    assert again.to_json() == part.to_json()
    assert again.tables[0].markdown() == "### t\n\n| a | b |\n|---|--:|\n| x | 1.5 |\n| y | - |\n\nn\n"


def test_quick_runs_end_to_end_and_says_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MIRAGE_SHARED", raising=False)
    monkeypatch.setenv("MIRAGE_KERNELS", "reference")  # nothing to compile
    assert main(["bench", "memory", "--quick", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "memory.md").read_text()
    assert page in capsys.readouterr().out and "mirage bench memory --quick" in page
    values = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert tuple(values) == PARTS and (tmp_path / "out" / "memory.png").stat().st_size > 10_000
    for row in ("released algorithm (a)", "| explores | nearest, reference", "| stays | nearest, reference",
                "gather, all cells, reference",
                "gather, merged, reference", "push-in 1 m", "yaw 30°", "truck 0.6 m", "orbit 20°", "hall with pillars",
                "| gather | ", "| slope |", "Real sequences were skipped"):  # fmt: skip
        assert row in page, row
    aims = [aim for part in values.values() for aim in part["aims"]]
    assert len(aims) == 16 and all(aim["met"] is not None for aim in aims)
    assert "nan" not in page.lower().split()


def test_parts_are_added_to_those_of_an_earlier_run(tmp_path, monkeypatch):
    told = []
    monkeypatch.setenv("MIRAGE_KERNELS", "reference")
    for part in ("growth", "loops"):
        config = MemoryBench(parts=(part,), quick=True)
        page = run(config, tmp_path, command=f"measure {part}", tell=told.append)
    assert "`measure growth`" in page and "`measure loops`" in page
    assert "Not measured here: speed, bytes, exactness." in page
    assert tuple(json.loads((tmp_path / "memory.json").read_text())) == ("loops", "growth")


def test_parts_that_another_run_measures_meanwhile_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MIRAGE_KERNELS", "reference")

    def tell(text: str) -> None:
        if "growth" in text and not (tmp_path / "memory.json").exists():
            run(MemoryBench(parts=("loops",), quick=True), tmp_path, command="another", tell=str)

    page = run(MemoryBench(parts=("growth",), quick=True), tmp_path, command="this one", tell=tell)
    assert "`another`" in page and "`this one`" in page


def test_the_script_for_a_gpu_runs_at_toy_size(monkeypatch, capsys):
    script = Path(__file__).parents[2] / "benchmarks" / "gpu" / "memory.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--small"])
    assert runpy.run_path(str(script))["main"]() == 0
    page = capsys.readouterr().out
    assert "features to rounding: yes" in page and page.count("| gather, ") == 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "words, said",
    [
        (["--parts", "speed,colour"], "parts must be of speed, bytes, exactness, loops, growth, got colour"),
        (["--parts", ""], "parts must be of"),
        (["--budget-minutes", "-1"], "must be a number from 0"),
        (["--data", "nowhere"], "must name a folder that holds data/"),
        (["--threads", "5000"], "threads must be from 1 to 1024"),
    ],
)
def test_mistakes_are_refused_before_anything_is_measured(words, said, tmp_path, capsys):
    assert main(["bench", "memory", "--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_found_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    for out in ("taken", "taken/in"):
        assert main(["bench", "memory", "--out", str(tmp_path / out)]) == 2
        assert f"out must be a folder, or the name of a new one, got {tmp_path / out}" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_results_of_something_else_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "memory.json").write_text('{"other": 1}')
    assert main(["bench", "memory", "--quick", "--parts", "growth", "--out", str(tmp_path)]) == 2
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "memory.json").read_text() == '{"other": 1}'
