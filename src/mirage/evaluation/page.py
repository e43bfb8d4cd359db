"""The page of a measurement: tables, plots, videos side by side; it opens from disk without a server."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import UInt8

from mirage.evaluation.bench.tables import Table
from mirage.video.io import atomic, write_video

FPS = 16
CRF = 20


@dataclass(frozen=True, kw_only=True)
class Film:
    """Videos of one scene, shown side by side and in step."""

    title: str
    videos: Mapping[str, str]
    """Label to file, relative to the page."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with what it shows."""

    path: str
    """Relative to the page."""
    caption: str = ""


def write_film(out: Path, name: str, frames: UInt8[np.ndarray, "f h w 3"]) -> str:
    """Write a video that every browser plays.

    Args:
        out: Folder of the page.
        name: Of the video, without a suffix.
        frames: Colour, 0 to 255.

    Returns:
        The file, relative to the page.
    """
    path = f"films/{name}.mp4"
    write_video(out / path, frames, fps=FPS, crf=CRF)
    return path


def film(out: Path, title: str, scene: str, rows: Mapping[str, str], note: str = "") -> Film | None:
    """The videos of a scene that are there.

    Args:
        out: Folder of the page.
        title: Of the film.
        scene: Its name; its videos were written as `SCENE-ROW`.
        rows: Row to label.
        note: Below the title.

    Returns:
        The film; None if it has no video.
    """
    found = {label: f"films/{scene}-{row}.mp4" for row, label in rows.items()}
    found = {label: path for label, path in found.items() if (out / path).exists()}
    return Film(title=title, videos=found, note=note) if found else None


def write_page(
    out: Path,
    *,
    title: str,
    lead: str,
    tables: Sequence[Table],
    command: str = "",
    hardware: str = "",
    pictures: Sequence[Picture] = (),
    films: Sequence[Film] = (),
    settings: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write `table.md` and `report.html`.

    Args:
        out: Folder, which holds pictures and videos.
        title: Of the page.
        lead: What was measured, in a few sentences.
        tables: The figures.
        command: That made them.
        hardware: That it ran on.
        pictures: Plots and sheets.
        films: Videos.
        settings: Figure, library and exact setting of each metric.
    """
    text = markdown(tables, settings)
    with atomic(out / "table.md") as aside:
        aside.write_text(text, encoding="utf-8")
    measured = [_table(_measured_by(settings), "words")] if settings else []
    facts = [f"<p class=command><code>{html.escape(command)}</code></p>"] if command else []
    facts += [f"<p class=faint>{html.escape(hardware)}</p>"] if hardware else []
    page = Template(PAGE).substitute(
        title=html.escape(title),
        lead=_inline(lead),
        facts="\n".join(facts),
        tables="\n".join(map(_table, tables)),
        films="\n".join(["<h2>Side by side</h2>", *map(_film, films)] if films else []),
        pictures="\n".join(["<h2>Pictures</h2>", *map(_picture, pictures)] if pictures else []),
        settings="\n".join(measured),
        style=STYLE,
        script=SCRIPT,
    )
    with atomic(out / "report.html") as aside:
        aside.write_text(page, encoding="utf-8")


def markdown(tables: Sequence[Table], settings: Sequence[tuple[str, str, str]] = ()) -> str:
    """The tables in Markdown, and how they were measured.

    Args:
        tables: The figures.
        settings: Figure, library and exact setting of each metric.

    Returns:
        Markdown.
    """
    every = [*tables, *([_measured_by(settings)] if settings else [])]
    return "\n".join(table.markdown() for table in every)


def _measured_by(settings: Sequence[tuple[str, str, str]]) -> Table:
    return Table(title="How it is measured", columns=["figure", "library", "setting"], rows=[list(s) for s in settings])


def _inline(text: str) -> str:
    """Bold, emphasis and code of Markdown."""
    text = html.escape(text, quote=False)
    for mark, tag in ((r"\*\*(.+?)\*\*", "strong"), (r"\*(.+?)\*", "em"), (r"`(.+?)`", "code")):
        text = re.sub(mark, rf"<{tag}>\1</{tag}>", text)
    return text


def _table(table: Table, kind: str = "numbers") -> str:
    cells = table.markdown().splitlines()[2:]  # as Markdown shows them
    rows = [line.strip("| ").split(" | ") for line in cells if line.startswith("| ")]
    head, *body = [[_cell(text) for text in row] for row in rows]
    lines = [f"<section class={kind}><h2>{_inline(table.title)}</h2><div class=wide><table>"]
    lines.append("<thead><tr>" + "".join(f"<th>{c}</th>" for c in head) + "</tr></thead><tbody>")
    for row in body:
        style = " class=control" if "<em>control" in row[0] or "<em>control" in "".join(row[:2]) else ""
        lines.append(f"<tr{style}>" + "".join(_column(c) for c in row) + "</tr>")
    note = f"<p class=faint>{_inline(table.note)}</p>" if table.note else ""
    return "\n".join(lines) + f"</tbody></table></div>{note}</section>"


def _cell(text: str) -> str:
    found = re.fullmatch(r"(\S+) (\([^)]*, [^)]*\))", text)
    return f"{found[1]}<small>{found[2]}</small>" if found else _inline(text)


def _column(cell: str) -> str:
    return f"<td>{cell}</td>" if re.match(r"[+-]?\d|-$", cell) else f"<td class=word>{cell}</td>"


def _film(film: Film) -> str:
    note = f"<p class=faint>{_inline(film.note)}</p>" if film.note else ""
    videos = "\n".join(
        f'<figure><video src="{html.escape(path)}" muted playsinline preload="auto"></video>'
        f"<figcaption>{_inline(label)}</figcaption></figure>"
        for label, path in film.videos.items()
    )
    return (
        f"<section class=film><h3>{_inline(film.title)}</h3>{note}<div class=videos>{videos}</div>"
        '<div class=bar><button type=button aria-label="Play or pause">&#9654;</button>'
        '<input type=range min=0 max=0 value=0 step=1 aria-label="Frame"><output>0</output></div></section>'
    )


def _picture(picture: Picture) -> str:
    path, caption = html.escape(picture.path), _inline(picture.caption)
    return (
        f'<figure class=picture><a href="{path}"><img src="{path}" alt="{html.escape(picture.caption)}" '
        f'loading="lazy"></a><figcaption>{caption}</figcaption></figure>'
    )


STYLE = """
:root { color-scheme: light dark; --ink: #1b1d22; --faint: #666d7a; --line: #dde0e6; --ground: #fff; --panel: #f4f5f8;
  --mark: #1f6feb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --faint: #98a0ae; --line: #343945; --ground: #14161b;
  --panel: #1c1f26; --mark: #5eb1ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; } .lead { max-width: 62rem; margin: 0 0 .8rem; }
.faint, figcaption { color: var(--faint); font-size: .87rem; } .command { margin: .2rem 0; overflow-x: auto; }
code { background: var(--panel); border-radius: 4px; padding: .1rem .35rem; font-size: .87em; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .42rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--panel); font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 5rem; }
th:first-child, td:first-child { text-align: left; min-width: 9rem; } tr:last-child td { border-bottom: 0; }
td.word { text-align: left; }
td small { display: block; color: var(--faint); font-size: .78em; } tr.control { color: var(--faint); }
.words td, .words th { text-align: left; white-space: normal; }
.film { background: var(--panel); border-radius: 10px; padding: .9rem 1rem; margin: 0 0 1rem; }
.videos { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.videos figure { margin: 0; } video { width: 100%; display: block; border-radius: 6px; background: #000; }
.bar { display: flex; gap: .7rem; align-items: center; margin-top: .6rem; }
.bar button { width: 2.2rem; height: 2.2rem; border: 0; border-radius: 50%; background: var(--mark); color: #fff;
  font-size: .8rem; cursor: pointer; } .bar input { flex: 1; accent-color: var(--mark); }
.bar output { width: 4.5rem; text-align: right; color: var(--faint); font-variant-numeric: tabular-nums; }
.picture { margin: 0 0 1.2rem; } .picture img { max-width: 100%; border-radius: 8px; background: #fff; }
"""

SCRIPT = """
for (const film of document.querySelectorAll(".film")) {
  const videos = [...film.querySelectorAll("video")], fps = $fps;
  const [button, range, shown] = ["button", "input", "output"].map((name) => film.querySelector(name));
  const first = videos[0];
  let playing = false, frame = 0;
  const last = () => Math.max(0, Math.round((first.duration || 0) * fps) - 1);
  const show = (n) => {
    frame = n; range.max = last(); range.value = n; shown.textContent = n + " / " + last();
    if (!playing) for (const v of videos) v.currentTime = (Math.min(n, last()) + 0.5) / fps;
  };
  const step = () => {
    if (!playing) return;
    const now = first.currentTime;
    if (first.ended || now >= first.duration - 0.5 / fps) { begin(0); return requestAnimationFrame(step); }
    for (const v of videos) if (Math.abs(v.currentTime - now) > 0.6 / fps) v.currentTime = now;
    show(Math.min(last(), Math.floor(now * fps)));
    requestAnimationFrame(step);
  };
  const paused = (e) => { if (e.name !== "AbortError") throw e; };  // before it had begun
  const begin = (n) => { for (const v of videos) { v.currentTime = n / fps; v.play().catch(paused); } };
  const toggle = () => {
    playing = !playing;
    button.innerHTML = playing ? "&#10074;&#10074;" : "&#9654;";
    if (playing) { begin(frame >= last() ? 0 : frame); requestAnimationFrame(step); }
    else { for (const v of videos) v.pause(); show(frame); }
  };
  button.onclick = toggle;
  range.oninput = () => { if (playing) toggle(); show(+range.value); };
  first.addEventListener("loadedmetadata", () => show(0));
  if (first.readyState) show(0);
}
""".replace("$fps", str(FPS))

PAGE = """<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
<p class=lead>$lead</p>
$facts
$tables
$films
$pictures
$settings
<script>$script</script>
</body>
</html>
"""
