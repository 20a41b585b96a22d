/* Charts: uPlot with readable logarithmic axes, bands, names at line ends, a hover list and the keyboard. */
"use strict";
(() => {
  const { make, count, seconds, number, known } = backbeat.words;
  const MOST_POINTS = 2000; // of one line; more cannot be told apart
  const CROWD = 24; // lines; more are drawn in one go, by our own hand, and not given to uPlot one by one
  const NEAREST = 6; // lines of a crowd that are told of at a place
  const BUCKETS = 128;
  const all = new Set(); // the charts on the page, redrawn when the theme changes

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* The colour of cadence i of n: spread over the eight, in order of the batch size. */
  function colour(i, n) {
    const place = n > 8 ? i % 8 : Math.floor((i * 14 + Math.max(n - 1, 1)) / (2 * Math.max(n - 1, 1)));
    return css(`--cadence-${place}`);
  }

  function logTicks(low, high, pixels) {
    const span = Math.log10(high / low);
    const room = Math.max(2, pixels / 62);
    const leads = span * 3 <= room ? [1, 2, 5] : span * 2 <= room ? [1, 3] : [1];
    const every = leads.length > 1 ? 1 : Math.max(1, Math.ceil(span / room));
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      if (power % every) continue;
      for (const lead of leads) {
        const tick = Number(`${lead}e${power}`);
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks.length > 1 || span > 1
      ? ticks
      : [low, Math.sqrt(low * high), high].map((v) => Number(v.toPrecision(2)));
  }

  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
    return size >= 1000 ? count(value) : size >= 1e-4 || !size ? String(+value.toPrecision(4)) : number(value, 2);
  };
  const tickWriters = { seconds, count: short };

  /* Keeps the first and the last point and, of every stretch, its lowest and highest. */
  function thin(points) {
    if (points.length <= MOST_POINTS) return points;
    const kept = [points[0]];
    const width = (points.length - 2) / (MOST_POINTS / 2 - 1);
    for (let stretch = 0; stretch < MOST_POINTS / 2 - 1; stretch++) {
      const part = points.slice(1 + Math.floor(stretch * width), 1 + Math.floor((stretch + 1) * width));
      if (!part.length) continue;
      let [low, high] = [0, 0];
      part.forEach((point, i) => {
        if (point.y < part[low].y) low = i;
        if (point.y > part[high].y) high = i;
      });
      kept.push(...[...new Set([Math.min(low, high), Math.max(low, high)])].map((i) => part[i]));
    }
    return [...kept, points.at(-1)];
  }

  /* The lines as uPlot wants them: one common x, three rows (middle, low, high) a line. */
  function joined(lines, log) {
    const fits = (p) => known(p.x) && known(p.y) && (!log.x || p.x > 0) && (!log.y || p.y > 0);
    const tables = lines.map((line) => {
      const points = thin(line.points.filter(fits));
      const edge = (value, y) => (known(value) && (!log.y || value > 0) ? value : y);
      return [
        points.map((p) => p.x),
        points.map((p) => p.y),
        points.map((p) => edge(p.low, p.y)),
        points.map((p) => edge(p.high, p.y)),
      ];
    });
    return tables.length ? uPlot.join(tables) : [[]];
  }

  /* An exponential mean that starts at the first value: m₁ = y₁, mₖ = s mₖ₋₁ + (1 − s) yₖ. */
  function smooth(points, s) {
    let mean;
    return points.map((p) => {
      mean = mean === undefined ? p.y : s * mean + (1 - s) * p.y;
      return { ...p, y: mean };
    });
  }

  /* A slider for state.smooth, and what it does in a sentence. */
  function smoothing(state, changed) {
    const slider = make("input", { type: "range", min: "0", max: "0.98", step: "0.02", "aria-label": "smoothing" });
    const said = make("output", {});
    const say = () => {
      const s = state.smooth;
      said.textContent = s ? `${s.toFixed(2)} × the mean before + ${(1 - s).toFixed(2)} × the value` : "none";
    };
    slider.value = state.smooth;
    slider.oninput = () => {
      state.smooth = Number(slider.value);
      say();
      changed();
    };
    say();
    const title = "An exponential mean that starts at the first value: mₖ = s mₖ₋₁ + (1 − s) yₖ";
    return make("label", { class: "smooth", title }, "smoothing", slider, said);
  }

  /* What uPlot is told of a crowd: the lowest and the highest value in each part of the x axis. */
  function envelope(lines, log) {
    const place = (x) => (log.x ? Math.log(x) : x);
    let [least, most] = [Infinity, -Infinity];
    for (const points of lines) {
      for (const p of points) {
        if (p.x < least) least = p.x;
        if (p.x > most) most = p.x;
      }
    }
    if (!(most >= least)) return [[], [], []];
    const width = (place(most) - place(least)) / BUCKETS || 1;
    const parts = Array.from({ length: BUCKETS }, () => ({ x: null, low: Infinity, high: -Infinity }));
    for (const points of lines) {
      for (const p of points) {
        const part = parts[Math.min(BUCKETS - 1, Math.floor((place(p.x) - place(least)) / width))];
        part.x ??= p.x;
        if (p.y < part.low) part.low = p.y;
        if (p.y > part.high) part.high = p.y;
      }
    }
    const used = parts.filter((part) => part.x !== null).sort((a, b) => a.x - b.x);
    const { low, high } = used.at(-1);
    const table = [{ x: least, low: used[0].low, high: used[0].high }, ...used, { x: most, low, high }];
    const kept = table.filter((part, i) => !i || part.x > table[i - 1].x);
    return ["x", "low", "high"].map((name) => kept.map((part) => part[name]));
  }

  /* All lines of a crowd, each one path. */
  function drawCrowd(u, spec, crowd) {
    const { ctx } = u;
    const along = (which, length, start, flip) => {
      const f = spec.log[which] ? Math.log : Number;
      const { min, max } = u.scales[which];
      const factor = length / (f(max) - f(min) || 1);
      return (v) => (flip ? start + length - (f(v) - f(min)) * factor : start + (f(v) - f(min)) * factor);
    };
    const [x, y] = [along("x", u.bbox.width, u.bbox.left), along("y", u.bbox.height, u.bbox.top, true)];
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    ctx.lineWidth = devicePixelRatio * (crowd.length > 60 ? 1 : 1.5);
    ctx.globalAlpha = 0.75;
    const paints = new Map();
    crowd.forEach((points, i) => {
      const { stroke } = spec.lines[i];
      if (!paints.has(stroke)) paints.set(stroke, stroke());
      ctx.strokeStyle = paints.get(stroke);
      ctx.beginPath();
      points.forEach((p, k) => (k ? ctx.lineTo(x(p.x), y(p.y)) : ctx.moveTo(x(p.x), y(p.y))));
      ctx.stroke();
    });
    ctx.restore();
  }

  /* A little wider than the data, and wider still below where names of lines need room. */
  function range(log, names = 0) {
    return (u, low, high) => {
      if (!known(low) || !known(high)) return log ? [0.1, 10] : [0, 1];
      if (log) {
        const pad = low === high ? 2 : (high / low) ** 0.04;
        return [low / pad / (high / low) ** (0.012 * names), high * pad];
      }
      const pad = (high - low || Math.abs(high) || 1) * 0.04;
      return [low >= 0 && low < pad * 6 ? 0 : low - pad, high + pad];
    };
  }

  function axis(which, spec) {
    const log = spec.log[which];
    const side = spec[which];
    return {
      scale: which,
      stroke: () => css("--muted"),
      font: "12px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif",
      label: side.label,
      labelSize: 18,
      labelGap: 2,
      size: which === "x" ? 28 : side.unit === "seconds" ? 56 : 50,
      gap: 4,
      grid: { stroke: () => css("--grid"), width: 1 },
      ticks: { stroke: () => css("--grid"), width: 1, size: 4 },
      space: which === "x" ? 62 : 34,
      ...(side.ticks
        ? { splits: () => side.ticks.map((t) => t[0]), filter: (u, s) => s, values: () => side.ticks.map((t) => t[1]) }
        : {
            ...(log
              ? {
                  splits: (u, i, low, high) =>
                    logTicks(
                      low,
                      high,
                      (u.bbox[which === "x" ? "width" : "height"] / devicePixelRatio) * (which === "x" ? 1 : 1.6),
                    ),
                  filter: (u, splits) => splits,
                }
              : {}),
            values: (u, splits) => splits.map((v) => (known(v) ? (tickWriters[side.unit] || short)(v) : "")),
          }),
    };
  }

  /* Where a line runs on the canvas, as points no farther apart than a few pixels. */
  function trace(u, points, ratio) {
    const places = [];
    let before = null;
    for (const p of points) {
      const [x, y] = [u.valToPos(p.x, "x", true), u.valToPos(p.y, "y", true)];
      if (!known(x) || !known(y)) continue;
      const pieces = before ? Math.min(200, Math.ceil(Math.hypot(x - before[0], y - before[1]) / (4 * ratio))) : 1;
      for (let k = 1; k <= pieces; k++) {
        places.push(
          before ? [before[0] + ((x - before[0]) * k) / pieces, before[1] + ((y - before[1]) * k) / pieces] : [x, y],
        );
      }
      before = [x, y];
    }
    return places;
  }

  /* How far to move a name from the end of its line: little, and to where it covers little. */
  function nearestFree(u, end, lines, names, ratio) {
    const [w, h] = [end.width / 2, 6.5 * ratio];
    const beside = w + 6 * ratio;
    const right = u.ctx.canvas.width - w - ratio;
    let best = [Math.min(beside, right - end.x), 0];
    let least = Infinity;
    for (const dx of [beside, ...[-36, -30, -24, -18, -12, -6, 0, 6, 12, 18, 24, 30].map((v) => v * ratio)]) {
      for (let dy = -60 * ratio; dy <= 44 * ratio; dy += 4 * ratio) {
        const [x, y] = [end.x + dx, end.y + dy];
        if (x > right || x - w < u.bbox.left || y - h < u.bbox.top || y + h > u.bbox.top + u.bbox.height) continue;
        const away = Math.min(Math.hypot(dx - beside, dy), Math.hypot(dx, dy - 13 * ratio) + ratio) / ratio;
        if (away >= least || names.some((n) => Math.abs(n.x - x) < n.w + w && Math.abs(n.y - y) < 2 * h)) continue;
        const covered = lines.reduce(
          (sum, [px, py]) => sum + (Math.abs(px - x) < w + 2 && Math.abs(py - y) < h + 1),
          0,
        );
        if (away + 12 * covered < least) {
          best = [dx, dy];
          least = away + 12 * covered;
        }
      }
    }
    names.push({ x: end.x + best[0], y: end.y + best[1], w: w + 3 * ratio });
    return best;
  }

  /* Writes each name by the end of its line, joined to it by a thin stroke where it had to move away. */
  function endNames(u, spec) {
    const { ctx } = u;
    const ratio = devicePixelRatio;
    const named = spec.lines.filter((line, i) => line.name && u.series[1 + 3 * i].show);
    if (!named.length) return;
    const inside = (p) =>
      known(p.x) && known(p.y) && p.x <= u.scales.x.max && p.x >= u.scales.x.min && (!spec.log.y || p.y > 0);
    ctx.save();
    ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "center";
    ctx.lineJoin = "round";
    const lines = [];
    const ends = [];
    for (const line of named) {
      const places = trace(u, line.points.filter(inside), ratio);
      if (!places.length) continue;
      lines.push(...places);
      const [x, y] = places.at(-1);
      ends.push({ text: line.name, paint: line.stroke(), x, y, width: ctx.measureText(line.name).width });
    }
    const names = [];
    for (const end of ends.sort((a, b) => a.x - b.x)) {
      const [dx, dy] = nearestFree(u, end, lines, names, ratio);
      ctx.strokeStyle = end.paint;
      ctx.lineWidth = ratio;
      if (Math.hypot(dx, dy) > end.width / 2 + 16 * ratio) {
        ctx.beginPath();
        ctx.moveTo(end.x, end.y);
        ctx.lineTo(end.x + dx, end.y + dy);
        ctx.stroke();
      }
      ctx.strokeStyle = css("--card");
      ctx.lineWidth = 4 * ratio;
      ctx.strokeText(end.text, end.x + dx, end.y + dy);
      ctx.fillStyle = end.paint;
      ctx.fillText(end.text, end.x + dx, end.y + dy);
    }
    ctx.restore();
  }

  function drawMarks(u, spec) {
    const { ctx } = u;
    const ratio = devicePixelRatio;
    const at = (x, y) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left - 8 * ratio, u.bbox.top - 8 * ratio, u.bbox.width + 16 * ratio, u.bbox.height + 16 * ratio);
    ctx.clip();
    for (const mark of spec.marks || []) {
      if (mark.line !== undefined && !u.series[1 + 3 * mark.line].show) continue;
      if ((spec.log.x && !(mark.x > 0)) || (spec.log.y && mark.y !== undefined && !(mark.y > 0))) continue;
      const paint = mark.stroke();
      ctx.strokeStyle = ctx.fillStyle = paint;
      ctx.lineWidth = 2 * ratio;
      ctx.setLineDash([]);
      if (mark.kind === "bar") {
        const [x, low] = at(mark.x, mark.low);
        ctx.globalAlpha = 0.4;
        ctx.lineWidth = 6 * ratio;
        ctx.lineCap = "round";
        ctx.beginPath();
        ctx.moveTo(x, low);
        ctx.lineTo(x, at(mark.x, mark.high)[1]);
        ctx.stroke();
        ctx.globalAlpha = 1;
        continue;
      }
      const [x, y] = mark.kind === "never" ? [at(mark.x, 1)[0], u.bbox.top + 9 * ratio] : at(mark.x, mark.y);
      ctx.beginPath();
      if (mark.kind === "cross") {
        for (const [dx, dy] of [
          [1, 1],
          [1, -1],
        ]) {
          ctx.moveTo(x - 4 * dx * ratio, y - 4 * dy * ratio);
          ctx.lineTo(x + 4 * dx * ratio, y + 4 * dy * ratio);
        }
      } else if (mark.kind === "never") {
        ctx.moveTo(x - 5 * ratio, y + 4 * ratio);
        ctx.lineTo(x, y - 5 * ratio);
        ctx.lineTo(x + 5 * ratio, y + 4 * ratio);
        ctx.closePath();
      } else {
        ctx.arc(x, y, 4.5 * ratio, 0, 7);
        ctx.fillStyle = mark.kind === "dot" ? paint : css("--card");
        ctx.fill();
      }
      ctx.stroke();
    }
    ctx.restore();
  }

  /* Upright lines at one x, named at their top on the side that has more room. */
  function drawUprights(u, spec, named) {
    const { ctx } = u;
    const ratio = devicePixelRatio;
    const [left, right] = [u.bbox.left, u.bbox.left + u.bbox.width];
    ctx.save();
    ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    ctx.lineJoin = "round";
    for (const rule of (spec.rules || []).filter((r) => r.at !== undefined)) {
      const x = u.valToPos(rule.at, "x", true);
      if (!(x >= left && x <= right)) continue;
      const flip = x > (left + right) / 2;
      ctx.strokeStyle = css(named ? "--card" : "--accent");
      ctx.fillStyle = css("--accent");
      ctx.lineWidth = (named ? 4 : 1.5) * ratio;
      ctx.textAlign = flip ? "right" : "left";
      if (named) {
        const place = [rule.text, x + (flip ? -6 : 6) * ratio, u.bbox.top + 9 * ratio];
        ctx.strokeText(...place);
        ctx.fillText(...place);
        continue;
      }
      ctx.beginPath();
      ctx.moveTo(x, u.bbox.top);
      ctx.lineTo(x, u.bbox.top + u.bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  function drawRules(u, spec) {
    const { ctx } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.strokeStyle = ctx.fillStyle = css("--muted");
    ctx.lineWidth = ratio;
    for (const rule of spec.rules || []) {
      if (rule.low !== undefined) {
        const [a, b] = [u.valToPos(rule.low, "x", true), u.valToPos(rule.high, "x", true)];
        ctx.globalAlpha = 0.14;
        const left = Math.max(a, u.bbox.left);
        ctx.fillRect(left, u.bbox.top, Math.max(0, Math.min(b, u.bbox.left + u.bbox.width) - left), u.bbox.height);
        ctx.globalAlpha = 1;
        ctx.textAlign = "center";
        if (rule.text && rule.x >= u.scales.x.min && rule.x <= u.scales.x.max) {
          ctx.fillText(rule.text, u.valToPos(rule.x, "x", true), u.bbox.top + u.bbox.height - 6 * ratio);
        }
      } else if (rule.word) {
        ctx.textAlign = "center";
        if (rule.x > u.scales.x.min && rule.x < u.scales.x.max)
          ctx.fillText(rule.word, u.valToPos(rule.x, "x", true), u.bbox.top + u.bbox.height - 6 * ratio);
      } else if (rule.y !== undefined) {
        const y = u.valToPos(rule.y, "y", true);
        if (!(y >= u.bbox.top && y <= u.bbox.top + u.bbox.height)) continue;
        ctx.setLineDash([5 * ratio, 4 * ratio]);
        ctx.beginPath();
        ctx.moveTo(u.bbox.left, y);
        ctx.lineTo(u.bbox.left + u.bbox.width, y);
        ctx.stroke();
        ctx.textAlign = "left";
        ctx.fillText(rule.text, u.bbox.left + 4 * ratio, y - 5 * ratio);
      }
    }
    ctx.restore();
  }

  /* The value of a line nearest to a place on the x axis, if the line reaches that far. */
  function nearest(points, x, log) {
    const where = (p) => (log ? Math.log(p.x) : p.x);
    const usable = points.filter((p) => known(p.x) && known(p.y) && (!log || p.x > 0));
    if (!usable.length) return null;
    const at = log ? Math.log(x) : x;
    const reach = (where(usable.at(-1)) - where(usable[0])) * 0.02 || (log ? 0.05 : Math.abs(at) * 0.02);
    if (at > where(usable.at(-1)) + reach || at < where(usable[0]) - reach) return null;
    let [low, high] = [0, usable.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (where(usable[middle]) <= at) low = middle;
      else high = middle;
    }
    return at - where(usable[low]) < where(usable[high]) - at ? usable[low] : usable[high];
  }

  /*
   * Draws a chart into `host`. spec = {label, height, x: {label, unit, ticks?}, y: {label, unit, write},
   *   log: {x, y}, lines: [{name, title, points: [{x, y, low?, high?}], stroke(), band, dash, width, quiet, bare,
   *   say(point)?, write(y, point)?}], marks: [{kind, line, x, y, stroke()}], hidden: Set of line titles,
   *   rules: [{y, text} or {low, high, x, text} or {at, text} or {word, x}]}. A bare line has values and no stroke.
   * Returns {redraw, hide(titles), destroy}.
   */
  function chart(host, spec) {
    const list = make("div", { class: "hover", hidden: true, "aria-live": "polite" });
    const lineOptions = (line) => {
      const shown = !spec.hidden || !spec.hidden.has(line.title);
      const edge = { stroke: "transparent", width: 0, points: { show: false }, show: shown };
      const points = { show: !line.bare && line.points.length === 1, size: 7, fill: () => line.stroke() };
      return [
        {
          stroke: () => (line.bare ? "transparent" : line.stroke()),
          width: line.width || 2,
          dash: line.dash,
          points,
          show: shown,
        },
        edge,
        edge,
      ];
    };
    function hover(u) {
      const { idx, left } = u.cursor;
      if (!known(left) || left < 0 || idx === null || idx === undefined) {
        list.hidden = true;
        return;
      }
      const x = u.posToVal(left, "x");
      let rows = [];
      spec.lines.forEach((line, i) => {
        const seen = crowd || (!line.quiet && u.series[1 + 3 * i].show);
        const point = seen && nearest(crowd ? crowd[i] : line.points, x, spec.log.x);
        if (point) rows.push({ line, point });
      });
      if (crowd) {
        const away = ({ point }) => Math.abs(u.valToPos(point.y, "y") - u.cursor.top);
        rows = rows.sort((a, b) => away(a) - away(b)).slice(0, NEAREST);
      }
      if (!rows.length) {
        list.hidden = true;
        return;
      }
      const head = make("p", {
        text: spec.x.at ? spec.x.at(x, rows) : `${(spec.x.write || count)(x)} ${spec.x.word || ""}`,
      });
      list.replaceChildren(
        head,
        ...rows.map(({ line, point }) => {
          const swatch = make("i");
          swatch.style.background = line.stroke();
          const said = line.say ? line.say(point) : line.title;
          const value = (line.write || spec.y.write)(point.y, point);
          return make("p", {}, swatch, make("span", { text: said }), make("b", { text: value }));
        }),
      );
      list.hidden = false;
      const wide = host.clientWidth;
      const place = u.over.offsetLeft + left;
      list.style.left = "0px"; // as wide as it likes, before it is measured
      const start = place > wide / 2 ? place - list.offsetWidth - 12 : place + 12;
      list.style.left = `${Math.max(0, Math.min(start, wide - list.offsetWidth))}px`;
      list.style.top = `${u.over.offsetTop + 6}px`;
    }
    const size = () => ({ width: Math.max(200, Math.floor(host.clientWidth)), height: spec.height || 300 });
    const fits = (p) => known(p.x) && known(p.y) && (!spec.log.x || p.x > 0) && (!spec.log.y || p.y > 0);
    const crowd = spec.lines.length > CROWD ? spec.lines.map((line) => thin(line.points.filter(fits))) : null;
    const data = crowd ? envelope(crowd, spec.log) : joined(spec.lines, spec.log);
    const unseen = { stroke: "transparent", width: 0, points: { show: false } };
    const back = make("button", { type: "button", class: "back", hidden: true, text: "Show all", onclick: () => showAll() });
    let handle = null;
    let whole = null; // how far the x axis goes before anybody looks closer
    const plot = new uPlot(
      {
        ...size(),
        legend: { show: false },
        padding: [12, spec.room ?? 34, 0, 0],
        cursor: { points: { show: false }, y: false, drag: { x: true, y: false, setScale: true } },
        scales: {
          x: { time: false, distr: spec.log.x ? 3 : 1, range: spec.x.range || range(spec.log.x) },
          y: {
            distr: spec.log.y ? 3 : 1,
            range: spec.y.range || range(spec.log.y, spec.lines.filter((line) => line.name).length),
          },
        },
        axes: [axis("x", spec), axis("y", spec)],
        series: [{}, ...(crowd ? [unseen, unseen] : spec.lines.flatMap(lineOptions))],
        bands: (crowd ? [] : spec.lines).flatMap((line, i) =>
          line.band ? [{ series: [3 + 3 * i, 2 + 3 * i], fill: () => `${line.stroke()}2e` }] : [],
        ),
        hooks: {
          drawClear: [
            (u) => {
              drawRules(u, spec);
              drawUprights(u, spec, false);
            },
          ],
          draw: [
            (u) => {
              if (crowd) drawCrowd(u, spec, crowd);
              drawMarks(u, spec);
              drawUprights(u, spec, true);
              endNames(u, spec);
            },
          ],
          setCursor: [hover],
          ready: [(u) => (whole = { ...u.scales.x })],
          setScale: [() => (back.hidden = !handle?.zoomed())],
        },
      },
      data,
      host,
    );
    host.append(list, back);
    host.plot = plot;
    host.setAttribute("tabindex", "0");
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", `Chart: ${spec.label}. Arrow keys read values, plus looks closer there, Escape shows all.`);
    let place = null;
    host.onkeydown = (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") {
        plot.setCursor({ left: -10, top: -10 });
        if (handle.zoomed()) showAll();
      }
      if (event.key === "+" || event.key === "=") closer(place ?? plot.over.clientWidth / 2);
      if (!move) return;
      event.preventDefault();
      const wide = plot.over.clientWidth;
      place = Math.min(wide, Math.max(0, (place ?? wide / 2) + (move * wide) / 50));
      plot.setCursor({ left: place, top: 10 });
    };
    host.onblur = () => plot.setCursor({ left: -10, top: -10 });
    const watch = new ResizeObserver(() => {
      if (host.clientWidth && Math.floor(host.clientWidth) !== plot.width) plot.setSize(size());
    });
    watch.observe(host);
    /* Half as much of the x axis, around a place on it. */
    function closer(left) {
      const [f, inverse] = spec.log.x ? [Math.log, Math.exp] : [Number, Number];
      const { min, max } = plot.scales.x;
      const [at, half] = [f(plot.posToVal(left, "x")), (f(max) - f(min)) / 4];
      const start = Math.max(f(min), Math.min(at - half, f(max) - 2 * half));
      plot.setScale("x", { min: inverse(start), max: inverse(start + 2 * half) });
      place = plot.valToPos(inverse(at), "x");
    }
    function showAll() {
      plot.setScale("x", { min: data[0][0], max: data[0].at(-1) });
    }
    handle = {
      plot,
      /* Whether somebody has dragged to look closer; a double click shows all again. */
      zoomed: () => whole && (plot.scales.x.min > whole.min || plot.scales.x.max < whole.max),
      redraw: () => plot.redraw(false, true),
      fit: () => plot.setSize(size()),
      hide(titles) {
        plot.batch(() =>
          spec.lines.forEach((line, i) => {
            for (const part of [1, 2, 3]) plot.setSeries(3 * i + part, { show: !titles.has(line.title) });
          }),
        );
      },
      destroy() {
        watch.disconnect();
        all.delete(handle);
        plot.destroy();
        list.remove();
        back.remove();
      },
    };
    all.add(handle);
    return handle;
  }

  /* A chart in a card: a title, one sentence that says what is seen, switches, and the drawing itself. */
  function card(title, sentence, ...switches) {
    const host = make("div", { class: "chart" });
    const said = make("p", { class: "seen", text: sentence });
    const box = make(
      "figure",
      { class: "card" },
      make("figcaption", {}, make("h3", { text: title }), said),
      switches.length ? make("div", { class: "switches" }, ...switches) : null,
      host,
    );
    return { box, host, said };
  }

  backbeat.charts = {
    chart,
    card,
    smooth,
    smoothing,
    colour,
    css,
    redrawAll: () => all.forEach((handle) => handle.redraw()),
    fitAll: () => all.forEach((handle) => handle.fit()),
    zoomed: () => [...all].some((handle) => handle.zoomed()),
    clear: () => [...all].forEach((handle) => handle.destroy()),
  };
})();
