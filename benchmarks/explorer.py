"""How fast the explorer answers, and what many walkers at once cost: latency, first chunk, load, memory of the server.

python benchmarks/explorer.py latency
python benchmarks/explorer.py load --sessions 8 --minutes 5
"""

import argparse
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mirage.explorer.client import Explorer, RemoteWorld


@contextmanager
def server(sessions: int) -> Iterator[tuple[Explorer, int]]:
    """`mirage explore` in a process of its own, and its number."""
    with tempfile.TemporaryDirectory(prefix="mirage-") as folder:
        command = [
            sys.executable,
            "-m",
            "mirage",
            "explore",
            "--port",
            "0",
            "--out",
            folder,
            "--sessions",
            str(sessions),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = re.match(r"open (\S+)", process.stdout.readline())[1]
            yield Explorer(address), process.pid
        finally:
            process.terminate()
            process.wait(60)


def resident(pid: int) -> float:
    """Memory of a process, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def turned(degrees: float, forward: float = 0.0) -> list[float]:
    """The pose after a turn to the right and a step forward from the start."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [c, 0, -s, 0, 0, 1, 0, 0, s, 0, c, -forward]


def percentiles(milliseconds: list[float]) -> str:
    """p50, p95 and most."""
    ordered = sorted(milliseconds)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return f"p50 {at(0.5):6.1f}   p95 {at(0.95):6.1f}   most {ordered[-1]:6.1f} ms   ({len(ordered)} pictures)"


def looks(world: RemoteWorld, count: int, spread: float = 8.0) -> tuple[list[float], float]:
    """Milliseconds from a pose to its picture, one after the other; and pictures per second."""
    taken = []
    with world.live() as live:
        for i in range(count):
            pose = turned(spread * math.sin(i / 9), 0.3 * math.sin(i / 23))
            start = time.perf_counter()
            live.look(pose, walk=False)
            taken.append(1000 * (time.perf_counter() - start))
    return taken, 1000 * len(taken) / sum(taken)


def browser_latency(server: Explorer, presses: int) -> list[float] | None:
    """Milliseconds from the key press to the changed picture on the page's canvas, in headless Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    watch = """
      window.waits = []; let pressed = 0;
      addEventListener("keydown", (e) => { if (!e.repeat) pressed = performance.now(); }, true);
      const draw = CanvasRenderingContext2D.prototype.drawImage;
      CanvasRenderingContext2D.prototype.drawImage = function (...a) {
        draw.apply(this, a);
        if (this.canvas.id !== "view" || !pressed || !(a[0] instanceof ImageBitmap)) return;
        window.waits.push(performance.now() - pressed);
        pressed = 0;
      };"""
    with sync_playwright() as play:
        page = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        page.add_init_script(watch)
        page.goto(server.base)
        page.click("[data-picture=garden]")
        page.wait_for_selector("#known:not(:empty)")
        page.locator("#auto").uncheck()
        for i in range(presses):
            key = ("KeyL", "KeyJ")[i % 2]
            page.keyboard.down(key)
            page.wait_for_timeout(60)
            page.keyboard.up(key)
            page.wait_for_timeout(240)
        return page.evaluate("window.waits")


def latency(arguments: argparse.Namespace) -> None:
    """One walker alone."""
    with server(4) as (explorer, _):
        world = explorer.begin("garden")
        looks(world, 20)  # warm
        alone, rate = looks(world, arguments.pictures)
        print(f"pose to picture, WebSocket            {percentiles(alone)}, {rate:.0f} per second")

        busy: list[float] = []
        other = explorer.begin("parlour")
        other.move(turned(30))
        other.generate(wait=False)
        while other.state["working"]:
            busy += looks(world, 10)[0]
        print(f"the same while a chunk is imagined    {percentiles(busy)}")

        first = []
        for turn in (20, -20, 30):
            world = explorer.begin("bedroom")
            with world.live() as live:
                live.socket.send('{"type": "auto", "on": false}')
                known = live.look(turned(turn)).known
                start = time.perf_counter()
                world.generate(wait=False)
                while live.look(turned(turn), walk=False).known <= known:
                    time.sleep(0.005)
                first.append(time.perf_counter() - start)
        print(f"'imagine' to the chunk in the picture {', '.join(f'{s:.2f}' for s in first)} s (aim: below 2)")

        pressed = browser_latency(explorer, arguments.presses)
        if pressed:
            print(f"key to picture, headless Chromium     {percentiles(pressed)} (aims: p50 below 50, p95 below 150)")
        else:
            print("key to picture: no Chromium here, not measured")


def load(arguments: argparse.Namespace) -> None:
    """Many walkers at once, each going its own way and imagining."""
    with server(arguments.sessions) as (explorer, pid):
        names = explorer.about()["pictures"]
        worlds = [explorer.begin(names[i % len(names)], seed=i) for i in range(arguments.sessions)]
        waits: list[list[float]] = [[] for _ in worlds]
        troubles: list[str] = []
        end = time.monotonic() + 60 * arguments.minutes

        def walk(index: int) -> None:
            try:
                with worlds[index].live() as live:
                    step = 0
                    while time.monotonic() < end:
                        step += 1
                        angle = 40 * math.sin(step / (90 + 7 * index))
                        start = time.perf_counter()
                        live.look(turned(angle, 0.4 * math.sin(step / 151)))
                        took = time.perf_counter() - start
                        waits[index].append(1000 * took)
                        time.sleep(max(0.0, 1 / arguments.rate - took))
            except Exception as error:
                troubles.append(f"session {index}: {error!r}")

        threads = [threading.Thread(target=walk, args=(i,)) for i in range(len(worlds))]
        for thread in threads:
            thread.start()
        sizes = []
        while any(thread.is_alive() for thread in threads):
            sizes.append(resident(pid))
            time.sleep(min(5.0, 6 * arguments.minutes))
        states = [world.state for world in worlds]
        print(
            f"{len(worlds)} sessions for {arguments.minutes:g} minutes, {arguments.rate:g} pictures a second asked for"
        )
        print(f"pose to picture       {percentiles([wait for one in waits for wait in one])}")
        per = [len(one) / (60 * arguments.minutes) for one in waits]
        print(f"pictures per second   {min(per):.1f} to {max(per):.1f} for each, {sum(per):.0f} in all")
        print(f"chunks imagined       {', '.join(str(len(state['chunks'])) for state in states)}")
        print(f"memory of all worlds  {sum(state['memory_bytes'] for state in states) / 2**20:.1f} MiB")
        third = max(1, len(sizes) // 3)
        print(
            f"server, resident      {sizes[0]:.0f} MiB at first, {max(sizes):.0f} at most; medians of the thirds "
            f"{', '.join(f'{statistics.median(sizes[i : i + third]):.0f}' for i in range(0, 3 * third, third))} MiB"
        )
        print("troubles              " + ("; ".join(troubles) or "none"))


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("latency", help="one walker alone")
    one.set_defaults(run=latency)
    one.add_argument("--pictures", type=int, default=300, help="poses that are timed")
    one.add_argument("--presses", type=int, default=60, help="key presses in the browser")
    one = kinds.add_parser("load", help="many at once")
    one.set_defaults(run=load)
    one.add_argument("--sessions", type=int, default=8)
    one.add_argument("--minutes", type=float, default=5.0)
    one.add_argument("--rate", type=float, default=10.0, help="pictures per second that each asks for")
    arguments = parser.parse_args()
    print("$ python", *sys.argv)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, torch {torch.__version__}, model nano, 192 x 192 pixels")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
