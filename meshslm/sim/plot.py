"""A film as pictures: a page that needs nothing but a browser, and a PNG by matplotlib.

Rules:
- The page holds its data and its code; it loads nothing from anywhere.
- Names and words enter it as JSON whose `<` is escaped: nothing of a scenario becomes markup.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any, Final

import msgspec

from meshslm.errors import OurFault
from meshslm.sim.film import Film, Frame
from meshslm.sim.report import Report

PANELS: Final = (
    ("nodes there", "living", ""),
    ("views that are right", "views", "share"),
    ("tasks open", "tasks_open", ""),
    ("first token, median", "first_token_ms", "ms"),
    ("traffic of all nodes", "kilobytes", "kB/s"),
)
"""Title, field of a frame, and unit of each curve."""


def html(film: Film, report: Report) -> str:
    """One page with curves, and the mesh at any moment under a slider."""
    data = {
        "title": f"{report.scenario}, seed {report.seed}, {report.nodes} nodes",
        "verdict": "PASS" if report.ok else "FAIL",
        "names": film.names,
        "hostile": film.hostile,
        "panels": PANELS,
        "frames": [asdict(frame) for frame in film.frames],
        "changes": [(entry.at_ms / 1000, entry.change) for entry in report.convergence],
    }
    text = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    return _PAGE.replace("__DATA__", text)


def png(film: Film, report: Report) -> bytes:
    """The curves, and the mesh at four moments. Raises `OurFault` without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        fault = OurFault(f"a PNG needs matplotlib, which is not installed ({error})")
        fault.add_note("pip install 'meshslm[plot]', or write an .html file, which needs nothing")
        raise fault from error
    figure = Figure(figsize=(12, 14), layout="constrained")
    verdict = "PASS" if report.ok else "FAIL"
    figure.suptitle(f"{report.scenario}, seed {report.seed}, {report.nodes} nodes: {verdict}")
    rows: Any = figure.subfigures(2, 1, height_ratios=(5, 2))
    times = [frame.at_s for frame in film.frames]
    for axes, (title, field, unit) in zip(
        rows[0].subplots(len(PANELS), 1, sharex=True), PANELS, strict=True
    ):
        axes.plot(times, [_value(frame, field) for frame in film.frames])
        axes.set_ylabel(f"{title}\n{unit}".strip(), fontsize=8)
        axes.set_ylim(bottom=0)
        for entry in report.convergence:
            axes.axvline(entry.at_ms / 1000, color="0.8", linewidth=0.8)
    axes.set_xlabel("virtual seconds")
    for axes, frame in zip(rows[1].subplots(1, 4), _moments(film.frames), strict=False):
        _topology(axes, film, frame)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)  # which makes itself the figure's
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _value(frame: Frame, field: str) -> float:
    value = getattr(frame, field)
    return float("nan") if value is None else float(value)


def _moments(frames: list[Frame]) -> list[Frame]:
    last = len(frames) - 1
    return [frames[last * part // 4] for part in (1, 2, 3, 4)] if frames else []


def _topology(axes: Any, film: Film, frame: Frame) -> None:
    from math import cos, pi, sin  # noqa: PLC0415 - beside its only use

    count = max(1, len(film.names))
    places = [(cos(2 * pi * n / count), sin(2 * pi * n / count)) for n in range(count)]
    for one, other in frame.links:
        xs, ys = zip(places[one], places[other], strict=True)
        axes.plot(xs, ys, color="0.8", linewidth=0.4, zorder=1)
    colours = {"a": "tab:green", "h": "tab:orange", "l": "tab:blue", "d": "0.6"}
    shown = [colours[letter] for letter in frame.states]
    edges = ["red" if hostile else "none" for hostile in film.hostile]
    xs, ys = zip(*places, strict=True)
    axes.scatter(xs, ys, c=shown, edgecolors=edges, s=40, zorder=2)
    axes.set_title(f"{frame.at_s:.0f} s", fontsize=9)
    axes.set_aspect("equal")
    axes.axis("off")


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>meshslm simulation</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body { font: 14px system-ui, sans-serif; margin: 1.5em; max-width: 70em; }
canvas { width: 100%; display: block; } #at { width: 100%; }
.key span { margin-right: 1em; }
</style>
<h1 id="title"></h1>
<canvas id="mesh" width="1200" height="640"></canvas>
<input id="at" type="range" min="0" value="0" aria-label="moment">
<p id="words"></p>
<p class="key"><span style="color:#2a2">&#9679; there</span>
<span style="color:#e80">&#9679; stopped</span><span style="color:#26c">&#9679; leaving</span>
<span style="color:#999">&#9679; dead</span><span style="color:#d00">&#9711; means ill</span></p>
<div id="curves"></div>
<script>
const data = __DATA__, frames = data.frames, $ = id => document.getElementById(id);
$("title").textContent = data.title + ": " + data.verdict;
const colours = { a: "#2a2", h: "#e80", l: "#26c", d: "#999" };
const end = frames.length ? frames[frames.length - 1].at_s : 1;
function mesh(frame) {
  const c = $("mesh"), g = c.getContext("2d"), n = data.names.length;
  const place = i => [600 + 290 * Math.cos(2 * Math.PI * i / n),
                      320 + 290 * Math.sin(2 * Math.PI * i / n)];
  g.clearRect(0, 0, c.width, c.height); g.strokeStyle = "#ccc"; g.lineWidth = 0.7;
  for (const [a, b] of frame.links) {
    g.beginPath(); g.moveTo(...place(a)); g.lineTo(...place(b)); g.stroke();
  }
  for (let i = 0; i < n; i++) {
    const [x, y] = place(i);
    g.beginPath(); g.arc(x, y, 7, 0, 7); g.fillStyle = colours[frame.states[i]]; g.fill();
    if (data.hostile[i]) { g.strokeStyle = "#d00"; g.lineWidth = 3; g.stroke(); }
    g.fillStyle = "#333"; g.fillText(data.names[i], x + 10, y + 4);
  }
}
function curve(title, field, unit) {
  const c = document.createElement("canvas"); c.width = 1200; c.height = 130;
  const g = c.getContext("2d"), values = frames.map(f => f[field]);
  const most = Math.max(1e-9, ...values.filter(v => v !== null));
  g.strokeStyle = "#ddd";
  for (const [at] of data.changes) {
    const x = 1200 * at / end; g.beginPath(); g.moveTo(x, 20); g.lineTo(x, 125); g.stroke();
  }
  g.strokeStyle = "#26c"; g.lineWidth = 2; g.beginPath(); let down = false;
  frames.forEach((f, i) => {
    if (values[i] === null) { down = false; return; }
    const x = 1200 * f.at_s / end, y = 125 - 100 * values[i] / most;
    down ? g.lineTo(x, y) : g.moveTo(x, y); down = true;
  });
  g.stroke(); g.fillStyle = "#333"; g.font = "14px sans-serif";
  g.fillText(title + ", at most " + +most.toPrecision(4) + " " + unit, 4, 14);
  $("curves").append(c);
}
function show(i) {
  const f = frames[i]; if (!f) return; mesh(f);
  const past = data.changes.filter(([at]) => at <= f.at_s).pop();
  $("words").textContent = f.at_s.toFixed(0) + " s: " + f.living + " nodes there, " +
    (100 * f.views).toFixed(0) + " % of views right, " + f.tasks_open + " tasks open" +
    (past ? "; last change: " + past[1] : "");
}
$("at").max = frames.length - 1; $("at").oninput = e => show(+e.target.value);
data.panels.forEach(p => curve(...p)); show(0);
</script></html>
"""
