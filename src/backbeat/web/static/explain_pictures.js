/*
 * The pictures of the explanation, drawn on canvases: examples with what was passed, the gradients of a batch, and the path
 * over the loss. Each takes (lesson, column, frame, at), where at = {j, phase}: how many of the batch's examples were begun,
 * and whether the newest goes forward (1), back (2), or the batch is applied if it is complete (3).
 */
"use strict";
(() => {
  const { known } = backbeat.words;
  const { css } = backbeat.charts;
  const CLASSES = ["--cadence-0", "--cadence-5"];

  /* A canvas drawn in units of CSS pixels; `draw(pen, width, height)` is called again when it is resized. */
  function canvas(label, ratio = 1) {
    const element = document.createElement("canvas");
    element.className = "picture";
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", label);
    let work = null;
    const redraw = () => {
      const width = element.clientWidth;
      if (!width || !work) return;
      const height = Math.round(width * ratio);
      const dots = devicePixelRatio;
      if (element.width !== Math.round(width * dots) || element.height !== Math.round(height * dots)) {
        element.width = Math.round(width * dots);
        element.height = Math.round(height * dots);
      }
      const pen = element.getContext("2d");
      pen.setTransform(dots, 0, 0, dots, 0, 0);
      pen.clearRect(0, 0, width, height);
      pen.lineJoin = pen.lineCap = "round";
      work(pen, width, height);
    };
    new ResizeObserver(redraw).observe(element);
    return {
      element,
      redraw,
      draw(next, sentence) {
        work = next;
        if (sentence) element.setAttribute("aria-label", sentence);
        redraw();
      },
    };
  }

  /* What an example is just now: "" outside the batch, "waits", "forward", "back" or "passed". */
  function stateOf(frame, at) {
    const states = new Map();
    (frame.batch || []).forEach((i, place) => {
      const newest = place === at.j - 1;
      states.set(i, place >= at.j ? "waits" : newest && at.phase === 1 ? "forward" : newest && at.phase === 2 ? "back" : "passed");
    });
    return (i) => states.get(i) || "";
  }

  /* The ring around an example: dashed while it waits, open forward, double back, filled once its gradient is there. */
  function ring(pen, x, y, size, state) {
    if (!state) return;
    pen.save();
    pen.strokeStyle = css(state === "waits" ? "--muted" : "--accent");
    pen.lineWidth = state === "waits" ? 1 : 2;
    if (state === "waits") pen.setLineDash([2, 3]);
    pen.beginPath();
    pen.arc(x, y, size, 0, 7);
    pen.stroke();
    if (state === "back") {
      pen.beginPath();
      pen.arc(x, y, size + 4, 0, 7);
      pen.stroke();
    }
    if (state === "passed") {
      pen.globalAlpha = 0.22;
      pen.fillStyle = css("--accent");
      pen.fill();
    }
    pen.restore();
  }

  /* Class 0 is a disc and class 1 a triangle, so that colour is not all that tells them apart. */
  function dot(pen, x, y, label, wrong) {
    pen.fillStyle = css(CLASSES[label] || "--ink");
    pen.strokeStyle = css("--card");
    pen.lineWidth = 1;
    pen.beginPath();
    if (label === 1) {
      pen.moveTo(x, y - 5);
      pen.lineTo(x + 5, y + 4);
      pen.lineTo(x - 5, y + 4);
      pen.closePath();
    } else pen.arc(x, y, 4.4, 0, 7);
    pen.fill();
    pen.stroke();
    if (!wrong) return;
    pen.strokeStyle = css("--card");
    pen.lineWidth = 1.6;
    pen.beginPath();
    pen.moveTo(x - 3, y - 3);
    pen.lineTo(x + 3, y + 3);
    pen.moveTo(x + 3, y - 3);
    pen.lineTo(x - 3, y + 3);
    pen.stroke();
  }

  const mix = (share) => {
    const [a, b] = CLASSES.map((name) => css(name));
    return share < 50 ? [a, (50 - share) / 50] : [b, (share - 50) / 50];
  };

  /* The decision as a small picture, a dot for each place, to be drawn larger. */
  function shades(field, side) {
    const picture = document.createElement("canvas");
    picture.width = picture.height = side;
    const pen = picture.getContext("2d");
    field.forEach((share, n) => {
      const [colour, strength] = mix(share);
      pen.globalAlpha = 0.05 + 0.3 * strength;
      pen.fillStyle = colour;
      pen.fillRect(n % side, side - 1 - Math.floor(n / side), 1, 1);
    });
    return picture;
  }

  function inPlane(lesson, column, frame, at) {
    const [low, high] = lesson.bounds;
    const side = Math.round(Math.sqrt(frame.field.length));
    const state = stateOf(frame, at);
    return (pen, w, h) => {
      const px = (x) => ((x - low[0]) / (high[0] - low[0])) * w;
      const py = (y) => h - ((y - low[1]) / (high[1] - low[1])) * h;
      const [dx, dy] = [w / (side - 1), h / (side - 1)];
      pen.imageSmoothingEnabled = true;
      pen.drawImage(shades(frame.field, side), -dx / 2, -dy / 2, w + dx, h + dy);
      border(pen, frame.field, side, dx, dy, h);
      lesson.x.forEach(([x, y], i) => {
        dot(pen, px(x), py(y), lesson.y[i], frame.right && !frame.right[i]);
        ring(pen, px(x), py(y), 9, state(i));
      });
    };
  }

  /* The line at which both classes are as likely: short strokes through the cells that it crosses. */
  function border(pen, field, side, dx, dy, h) {
    pen.strokeStyle = css("--ink");
    pen.lineWidth = 1.5;
    pen.beginPath();
    const cut = (a, b) => (a - 50) / (a - b);
    for (let r = 0; r < side - 1; r++) {
      for (let c = 0; c < side - 1; c++) {
        const [a, b, d, e] = [field[r * side + c], field[r * side + c + 1], field[(r + 1) * side + c], field[(r + 1) * side + c + 1]];
        const over = (v) => v > 50;
        const points = [];
        if (over(a) !== over(b)) points.push([c + cut(a, b), r]);
        if (over(d) !== over(e)) points.push([c + cut(d, e), r + 1]);
        if (over(a) !== over(d)) points.push([c, r + cut(a, d)]);
        if (over(b) !== over(e)) points.push([c + 1, r + cut(b, e)]);
        for (let n = 0; n + 1 < points.length; n += 2) {
          pen.moveTo(points[n][0] * dx, h - points[n][1] * dy);
          pen.lineTo(points[n + 1][0] * dx, h - points[n + 1][1] * dy);
        }
      }
    }
    pen.stroke();
  }

  function asCurve(lesson, column, frame, at) {
    const state = stateOf(frame, at);
    const low = Math.min(...lesson.y) - 0.5;
    const high = Math.max(...lesson.y) + 0.5;
    return (pen, w, h) => {
      const px = (x) => ((x + 1.15) / 2.3) * w;
      const py = (y) => h - ((y - low) / (high - low)) * h;
      lesson.x.forEach(([x], i) => {
        if (!state(i)) return;
        pen.strokeStyle = css("--faint-line"); // how far the network is off: ŷ − y
        pen.lineWidth = 1;
        pen.beginPath();
        pen.moveTo(px(x), py(lesson.y[i]));
        pen.lineTo(px(x), py(frame.guesses[i]));
        pen.stroke();
      });
      pen.strokeStyle = css("--accent");
      pen.lineWidth = 2.5;
      pen.beginPath();
      frame.curve.forEach((y, n) => pen[n ? "lineTo" : "moveTo"](px(lesson.curve_x[n]), py(y)));
      pen.stroke();
      lesson.x.forEach(([x], i) => {
        dot(pen, px(x), py(lesson.y[i]), 0, false);
        ring(pen, px(x), py(lesson.y[i]), 9, state(i));
      });
    };
  }

  const images = new Map(); // of the newest lesson, each drawn once a theme
  function image(lesson, i) {
    const key = `${css("--ink")}|${css("--card")}`;
    if (images.lesson !== lesson || images.key !== key) images.clear();
    [images.lesson, images.key] = [lesson, key];
    if (images.has(i)) return images.get(i);
    const picture = document.createElement("canvas");
    const rows = lesson.x[i];
    [picture.width, picture.height] = [rows[0].length, rows.length];
    const pen = picture.getContext("2d");
    pen.fillStyle = css("--ink");
    rows.forEach((row, y) =>
      row.forEach((value, x) => {
        pen.globalAlpha = Math.max(0, Math.min(1, value));
        pen.fillRect(x, y, 1, 1);
      }),
    );
    images.set(i, picture);
    return picture;
  }

  function asImages(lesson, column, frame, at) {
    const state = stateOf(frame, at);
    const across = lesson.n > 60 ? 10 : 8;
    const rows = Math.ceil(lesson.n / across);
    return (pen, w, h) => {
      const [cw, ch] = [w / across, h / rows];
      const size = Math.min(cw * 0.52, ch * 0.62);
      pen.imageSmoothingEnabled = false;
      pen.textAlign = "left";
      pen.textBaseline = "middle";
      pen.font = `600 ${Math.max(9, size * 0.42)}px system-ui, sans-serif`;
      for (let i = 0; i < lesson.n; i++) {
        const [x, y] = [(i % across) * cw + 2, Math.floor(i / across) * ch + (ch - size) / 2];
        const now = state(i);
        if (now) {
          pen.save();
          pen.strokeStyle = css(now === "waits" ? "--muted" : "--accent");
          pen.lineWidth = now === "waits" ? 1 : 2;
          if (now === "waits") pen.setLineDash([2, 3]);
          pen.strokeRect(x - 1, y - 2, cw - 3, size + 4);
          if (now === "back") pen.strokeRect(x + 2, y + 1, cw - 9, size - 2);
          if (now === "passed") {
            pen.globalAlpha = 0.2;
            pen.fillStyle = css("--accent");
            pen.fillRect(x - 1, y - 2, cw - 3, size + 4);
          }
          pen.restore();
        }
        pen.drawImage(image(lesson, i), x, y, size, size);
        const right = frame.right[i];
        pen.fillStyle = css(right ? "--good" : "--warn");
        pen.fillText(`${lesson.names[frame.guesses[i]]}${right ? "" : "✗"}`, x + size + 2, y + size / 2);
      }
    };
  }

  const examples = (lesson, ...rest) => ({ plane: inPlane, curve: asCurve, images: asImages })[lesson.view](lesson, ...rest);

  function arrow(pen, x0, y0, x1, y1, head) {
    const length = Math.hypot(x1 - x0, y1 - y0);
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x1, y1);
    pen.stroke();
    if (length < 2) return;
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
    const size = Math.min(head, length);
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x1 - size * ux + 0.5 * size * uy, y1 - size * uy - 0.5 * size * ux);
    pen.lineTo(x1 - size * ux - 0.5 * size * uy, y1 - size * uy + 0.5 * size * ux);
    pen.closePath();
    pen.fill();
  }

  /* Where each example alone would have the weights go, −∇ℓᵢ, and where their mean lets them go. */
  function fan(lesson, column, frame, at) {
    return (pen, w, h) => {
      pen.fillStyle = css("--muted");
      pen.font = "12px system-ui, sans-serif";
      if (frame.done) {
        pen.textAlign = "center";
        pen.fillText("no update is left", w / 2, h / 2);
        return;
      }
      const reach = Math.max(...frame.gradients.map(([x, y]) => Math.hypot(x, y)), Math.hypot(...frame.mean), 1e-9);
      const scale = (0.45 * Math.min(w, h)) / reach;
      const at0 = [w / 2, h / 2];
      const end = ([x, y]) => [at0[0] - x * scale, at0[1] + y * scale];
      pen.strokeStyle = css("--grid");
      pen.lineWidth = 1;
      for (const r of [0.5, 1]) {
        pen.beginPath();
        pen.arc(...at0, r * 0.45 * Math.min(w, h), 0, 7);
        pen.stroke();
      }
      const there = at.phase === 1 ? at.j - 1 : at.j;
      frame.gradients.forEach((gradient, place) => {
        if (place >= there) return;
        const newest = place === at.j - 1 && at.phase < 3;
        pen.globalAlpha = newest ? 1 : Math.max(0.25, Math.min(0.7, 6 / there));
        pen.strokeStyle = pen.fillStyle = css(newest ? "--accent" : "--faint-line");
        pen.lineWidth = newest ? 2.2 : 1.3;
        arrow(pen, ...at0, ...end(gradient), 7);
      });
      pen.globalAlpha = 1;
      if (at.phase === 3 && at.j === frame.batch.length) {
        pen.strokeStyle = pen.fillStyle = css("--warn");
        pen.lineWidth = 3.5;
        arrow(pen, ...at0, ...end(frame.mean), 12);
      }
      pen.fillStyle = css("--ink");
      pen.beginPath();
      pen.arc(...at0, 3, 0, 7);
      pen.fill();
      pen.fillStyle = css("--muted");
      pen.textAlign = "left";
      pen.fillText("θ", at0[0] + 7, at0[1] + 13);
    };
  }

  /* The loss in the plane, darker where it is lower, with lines of equal loss. */
  const surfaces = new WeakMap();
  function shaded(lesson) {
    const theme = css("--accent");
    const kept = surfaces.get(lesson);
    if (kept && kept.theme === theme) return kept.picture;
    const [rows, across] = [lesson.surface.length, lesson.surface[0].length];
    const values = lesson.surface.flat().filter(known);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const level = (v) => (known(v) ? Math.sqrt((v - low) / (high - low || 1)) : 1);
    const picture = document.createElement("canvas");
    picture.width = across;
    picture.height = rows;
    const pen = picture.getContext("2d");
    pen.fillStyle = theme;
    lesson.surface.forEach((row, r) =>
      row.forEach((value, c) => {
        pen.globalAlpha = 0.05 + 0.5 * (1 - level(value));
        pen.fillRect(c, rows - 1 - r, 1, 1);
      }),
    );
    surfaces.set(lesson, { theme, picture, level });
    return picture;
  }

  function contours(pen, lesson, px, py) {
    const { level } = surfaces.get(lesson);
    pen.strokeStyle = css("--card");
    pen.lineWidth = 1;
    for (let n = 1; n < 10; n++) {
      const line = n / 10;
      pen.beginPath();
      for (let r = 0; r + 1 < lesson.ys.length; r++) {
        for (let c = 0; c + 1 < lesson.xs.length; c++) {
          const corner = (i, k) => level(lesson.surface[r + k][c + i]) - line;
          const [a, b, d, e] = [corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)];
          const points = [];
          const cross = (u, v) => u / (u - v);
          if (a > 0 !== b > 0) points.push([c + cross(a, b), r]);
          if (d > 0 !== e > 0) points.push([c + cross(d, e), r + 1]);
          if (a > 0 !== d > 0) points.push([c, r + cross(a, d)]);
          if (b > 0 !== e > 0) points.push([c + 1, r + cross(b, e)]);
          for (let m = 0; m + 1 < points.length; m += 2) {
            pen.moveTo(px(points[m][0]), py(points[m][1]));
            pen.lineTo(px(points[m + 1][0]), py(points[m + 1][1]));
          }
        }
      }
      pen.stroke();
    }
  }

  function surface(lesson, column, frame, at) {
    const moved = !frame.done && at.phase === 3 && at.j === frame.batch.length;
    return (pen, w, h) => {
      const [xs, ys] = [lesson.xs, lesson.ys];
      const cell = (n, length) => (n / (length - 1)) * w;
      const px = (c) => cell(c, xs.length);
      const py = (r) => h - (r / (ys.length - 1)) * h;
      const place = ([x, y]) => [
        ((x - xs[0]) / (xs.at(-1) - xs[0])) * w,
        h - ((y - ys[0]) / (ys.at(-1) - ys[0])) * h,
      ];
      pen.imageSmoothingEnabled = true;
      const half = w / (xs.length - 1) / 2;
      pen.drawImage(shaded(lesson), -half, -half, w + 2 * half, h + 2 * half);
      contours(pen, lesson, px, py);
      const path = column.path.slice(0, frame.update + 1 + (moved ? 1 : 0)).map(place);
      pen.strokeStyle = css("--ink");
      pen.lineWidth = 1.6;
      pen.beginPath();
      path.forEach(([x, y], n) => pen[n ? "lineTo" : "moveTo"](x, y));
      pen.stroke();
      if (path.length <= 60) {
        pen.fillStyle = css("--ink");
        for (const [x, y] of path) {
          pen.beginPath();
          pen.arc(x, y, 2, 0, 7);
          pen.fill();
        }
      }
      if (moved && path.length > 1) {
        pen.strokeStyle = pen.fillStyle = css("--warn");
        pen.lineWidth = 3;
        arrow(pen, ...path.at(-2), ...path.at(-1), 9);
      }
      const [x, y] = path.at(-1);
      pen.fillStyle = css("--warn");
      pen.strokeStyle = css("--card");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x, y, 5.5, 0, 7);
      pen.fill();
      pen.stroke();
      const [sx, sy] = path[0];
      pen.strokeStyle = css("--ink");
      pen.beginPath();
      pen.rect(sx - 4, sy - 4, 8, 8);
      pen.stroke();
    };
  }

  backbeat.explainPictures = { canvas, examples, fan, surface, ring, dot };
})();
