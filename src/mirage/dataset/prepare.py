"""From a source to shards: a plan that fixes every shard, and one job per shard that makes the same bytes anywhere.

A job that is killed leaves nothing or a whole shard; what is there is not made again. See docs/data.md.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from mirage.camera.trajectory import measure_motion
from mirage.checkpoint.codecs import ModelCodec, model_codec
from mirage.checkpoint.named import depth_estimator, segmenter
from mirage.dataset.clips import DEPTHS, Tools, make_clip
from mirage.dataset.footage import Footage
from mirage.dataset.shards import MANIFEST, ShardRecord, check_size, write_manifest, write_shard
from mirage.dataset.sources import Found, Reading, open_footage, survey
from mirage.results import alone_in
from mirage.video.io import write_json

PLAN = "plan.json"
Run = Callable[[Callable, Sequence[tuple]], Iterable[tuple[int, object]]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How clips are made; two runs with the same settings make the same bytes.

    Attributes:
        model: Whose autoencoder encodes, see `model_codec`.
        size: Height and width in pixels; if None the model's area in the shape of each footage.
        frames: Frames of a clip, 1 + a multiple of the temporal stride; three chunks of the model if 0.
        step: Every so-many-th frame of the footage is taken.
        stride: Frames of the clip between the beginnings of two clips; a chunk of the model if 0.
        min_motion: Least way (world units) plus turning (radians) of a clip's camera.
        depth: "auto" (known, else estimated), "known", "filled" (known, holes estimated) or "estimated".
        depth_model: What estimates, a name for `depth_estimator`; the model's own head if empty.
        movers: What finds movers, a name for `segmenter`; none if empty.
        per_shard: Clips of a shard.
        reading: What the source does not say of itself.
    """

    model: str = "nano"
    size: tuple[int, int] | None = None
    frames: int = 0
    step: int = 1
    stride: int = 0
    min_motion: float = 0.05
    depth: str = "auto"
    depth_model: str = ""
    movers: str = ""
    per_shard: int = 8
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(DEPTHS)}, got {self.depth}")
        if min(self.step, self.per_shard) < 1 or min(self.frames, self.stride) < 0 or not 0 <= self.min_motion < 1e9:
            raise ValueError(f"step and per_shard must be at least 1, the rest not negative, got {self}")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A clip to be made: which frames of which footage."""

    name: str
    found: Found
    start: int
    frames: int
    step: int

    @property
    def wanted(self) -> range:
        """Numbers of its frames."""
        return range(self.start, self.start + (self.frames - 1) * self.step + 1, self.step)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of a source."""

    clips: int
    shards: int
    made: int
    """Shards that this run made; the others were there."""
    bytes: int
    skipped: list[dict[str, str]]


def prepare(
    source: str,
    out: str | Path,
    settings: Settings,
    *,
    run: Run | None = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Make shards of a source; an interrupted run goes on where it was.

    Args:
        source: See `survey`.
        out: Folder of the shards; new, or one that the same source and settings began.
        settings: How clips are made.
        run: Calls a function with each of many arguments and yields (which, result) in any order; one after another
            in this process if None.
        device: Where models compute.
        tell: Called with what is done.

    Returns:
        Counts, and what was skipped.

    Raises:
        ValueError: If source or settings cannot be used, nothing came out, or `out` holds something else.
        OSError: If the disk is full or cannot be written; shards that are done stay.
    """
    model = model_codec(settings.model)
    settings = resolved(settings, model)
    check_tools(settings, model)
    if Path(out).is_file():
        raise ValueError(f"--out must be a folder, {out} is a file")
    with alone_in(out) as folder:
        return _prepare(source, folder, settings, model, run or one_by_one, device, tell)


def _prepare(
    source: str,
    out: Path,
    settings: Settings,
    model: ModelCodec,
    run: Run,
    device: str,
    tell: Callable[[str], None],
) -> Prepared:
    """See `prepare`."""
    planned = _read_plan(out, source, settings) or _new_plan(out, source, settings, model, tell)
    codec, skipped, slices = planned["codec"], planned["skipped"], planned["slices"]
    told = model.told()
    if told != codec:
        raise ValueError(f"{out} was begun with another autoencoder ({codec['fingerprint']}): give a new folder")
    parts = [slices[i : i + settings.per_shard] for i in range(0, len(slices), settings.per_shard)]
    records = {number: record for number in range(len(parts)) if (record := _read_record(out, number))}
    jobs = [(str(out), n, part, settings, device) for n, part in enumerate(parts) if n not in records]
    if records:
        tell(f"{len(records)} of {len(parts)} shards are there")
    numbers = [job[1] for job in jobs]
    for index, _ in run(make_shard, jobs):
        number = numbers[index]
        record = _read_record(out, number)
        assert record is not None, "a job that ends well leaves its record"
        records[number] = record
        lost = f", {len(record['skipped'])} skipped" if record["skipped"] else ""
        tell(f"shard {number}: {len(record['clips'])} clips{lost} ({len(records)} of {len(parts)} shards)")
    ordered = [records[n] for n in range(len(parts))]
    skipped = [*skipped, *(one for record in ordered for one in record["skipped"])]
    shards = [ShardRecord.read(record) for record in ordered]
    count = sum(len(shard.clips) for shard in shards)
    if not count:
        for file in (PLAN, MANIFEST, *(_record_name(n) for n in records)):
            (out / file).unlink(missing_ok=True)
        raise ValueError(f"nothing could be prepared of {source}: {_summary(skipped)}")
    write_manifest(out, shards, codec=codec, settings=_json(settings), source=source, skipped=skipped)
    size = sum(shard.bytes for shard in shards)
    return Prepared(clips=count, shards=len(shards), made=len(jobs), bytes=size, skipped=skipped)


def one_by_one(work: Callable, jobs: Sequence[tuple]) -> Iterator[tuple[int, object]]:
    """Call a function with each of many arguments, here and now."""
    for index, job in enumerate(jobs):
        yield index, work(*job)


def resolved(settings: Settings, model: ModelCodec) -> Settings:
    """Settings with what the model decides filled in, as the index keeps them."""
    chunk = model.chunk_frames - 1
    frames = settings.frames or 1 + 3 * chunk
    span = (frames - 1) * settings.step + 1
    reading = replace(settings.reading, size=settings.size or model.size, frames=span)
    return replace(settings, frames=frames, stride=settings.stride or chunk, reading=reading)


def check_tools(settings: Settings, model: ModelCodec) -> None:
    """Refuse, before anything is read, settings that do not fit the model or name models that are not there."""
    if settings.size:
        height, width = settings.size
        if min(height, width) < model.step or height % model.step or width % model.step:
            raise ValueError(f"size must be multiples of {model.step} for {model.name}, got {height} x {width}")
    if model.codec.latent_frames(settings.frames) < 2:
        raise ValueError(f"frames must make at least two latent frames, got {settings.frames}")
    if settings.depth in ("filled", "estimated") and not settings.depth_model and model.head is None:
        raise ValueError(f"depth {settings.depth} needs a depth model: {model.name} has no depth of its own")
    _named(settings.depth_model, settings.movers, "cpu")


def make_shard(out: str, number: int, part: Sequence[Slice], settings: Settings, device: str) -> int:
    """Make one shard and its record; the job of one worker.

    Args:
        out: Folder of the shards.
        number: Of the shard.
        part: Its clips.
        settings: How they are made.
        device: Where models compute.

    Returns:
        How many clips it has.

    Raises:
        OSError: If it cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bytes must not depend on how many there are
    try:
        tools = _tools(settings.model, settings.depth_model, settings.movers, device)
        clips, skipped = [], []
        opened: tuple[Found, Footage] | None = None
        for one in part:
            try:
                if opened is None or opened[0] != one.found:
                    opened = one.found, open_footage(one.found, settings.reading)
                clips.append(make_clip(opened[1], one.wanted, one.name, settings.size, settings.depth, tools))
            except (ValueError, FileNotFoundError, PermissionError) as error:
                skipped.append({"name": one.name, "why": " ".join(str(error).split())})
        record = write_shard(out, number, clips)
        write_json(Path(out) / _record_name(number), record.told() | {"skipped": skipped})
        return len(clips)
    finally:
        torch.set_num_threads(threads)


@functools.lru_cache(maxsize=1)
def _tools(model: str, depth_model: str, movers: str, device: str) -> Tools:
    loaded = model_codec(model).to(device)
    estimator, finder = _named(depth_model, movers, device)
    return Tools(model=loaded, estimator=estimator or loaded.head, segmenter=finder, device=device)


@functools.lru_cache(maxsize=1)
def _named(depth_model: str, movers: str, device: str) -> tuple:
    estimator = depth_estimator(depth_model, device=device) if depth_model else None
    return estimator, segmenter(movers, device=device) if movers else None


def _new_plan(
    out: Path, source: str, settings: Settings, model: ModelCodec, tell: Callable[[str], None]
) -> dict[str, object]:
    """Decide which clips there are and in which shard each goes, and keep it."""
    if held := sorted(path.name for path in out.iterdir()):
        raise ValueError(f"--out must be a new folder, {out} holds {held[0]}")
    found = survey(source, settings.reading)
    skipped, slices = list(found.skipped), []
    for n, one in enumerate(found.found):
        if n and n % 1000 == 0:
            tell(f"looked at {n} of {len(found.found)}")
        try:
            slices += _slices(one, settings)
        except ValueError as error:
            skipped.append({"name": one.name, "why": " ".join(str(error).split())})
    if not slices:
        raise ValueError(f"nothing to prepare in {source}: {_summary(skipped)}")
    told = {
        "source": source,
        "settings": _json(settings),
        "codec": model.told(),
        "skipped": skipped,
        "slices": [asdict(one) for one in slices],
    }
    write_json(out / PLAN, told)
    what = f"{len(slices)} clips of {settings.frames} frames in {len(found.found)} pieces of footage"
    tell(f"{what}, {len(skipped)} skipped")
    return told | {"slices": slices}


def _slices(found: Found, settings: Settings) -> list[Slice]:
    frames, stride = settings.frames, settings.stride
    span = (frames - 1) * settings.step + 1
    if found.kind == "world":
        return [Slice(name=found.name, found=found, start=0, frames=frames, step=settings.step)]
    footage = open_footage(found, settings.reading)
    if len(footage) < span:
        by = f" with every {settings.step}th taken" if settings.step > 1 else ""
        raise ValueError(f"too short: it has {len(footage)} frames, a clip of {frames}{by} needs {span}")
    slices, still = [], 0
    for start in range(0, len(footage) - span + 1, stride * settings.step):
        one = Slice(name=f"{found.name}-{start:05}", found=found, start=start, frames=frames, step=settings.step)
        motion = measure_motion(footage.cameras[list(one.wanted)])
        if motion.length + motion.rotation < settings.min_motion:
            still += 1
        else:
            slices.append(one)
    if not slices:
        raise ValueError(f"the camera stands still in all of its {still} clips (--min-motion {settings.min_motion:g})")
    return slices


def _read_plan(out: Path, source: str, settings: Settings) -> dict[str, object] | None:
    """The plan that an earlier run made, if it is the same."""
    path = out / PLAN
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        slices = [Slice(**{**one, "found": Found(**one["found"])}) for one in told["slices"]]
        before, now = {"source": told["source"], **told["settings"]}, {"source": source, **_json(settings)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): give a new folder") from error
    if differ := [key for key in now if now[key] != before.get(key)]:
        key = differ[0]
        raise ValueError(
            f"{out} was begun with {key} {before.get(key)!r}, now it is {now[key]!r}: give that again, or a new folder"
        )
    return told | {"slices": slices}


def _record_name(number: int) -> str:
    return f"shard-{number:05}.json"


def _read_record(out: Path, number: int) -> dict | None:
    """What an earlier run says of a shard, if the shard is there and whole."""
    path = out / _record_name(number)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        record = ShardRecord.read(told)
        if record.file:
            check_size(out, record)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told


def _json(settings: Settings) -> dict:
    return json.loads(json.dumps(asdict(settings)))


def _summary(skipped: list[dict[str, str]]) -> str:
    if not skipped:
        return "it is empty"
    rest = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
    return f"{skipped[0]['name']}: {skipped[0]['why']}{rest}"
