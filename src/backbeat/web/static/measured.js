/* What a comparison says: medians and ranges over seeds, who needs least, and how a cadence is named in a table. */
"use strict";
(() => {
  const { words } = backbeat;
  const { known, count, percent, make, everyName } = words;
  const CLOCKS = ["examples", "updates", "seconds"];
  const LOSSES = { train_loss_mean: "training loss", held_out_loss_mean: "held-out loss" };

  const clockName = (clock) => (clock === "seconds" ? "time" : clock);
  const middle = (values) => {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };

  /* Median and range of a measure over the runs of a cadence; a run that diverged is shorter than the others. */
  function band(cadence, clock, measure, change = (v) => v) {
    const curves = (cadence.runs || []).map((run) => run.curve || {}).filter((c) => c[clock] && c[measure]);
    const points = [];
    for (let i = 0; i < Math.max(0, ...curves.map((c) => c[clock].length)); i++) {
      const here = curves.filter((c) => known(c[clock][i]) && known(c[measure][i]));
      if (!here.length) continue;
      const ys = here.map((c) => change(c[measure][i]));
      points.push({
        x: middle(here.map((c) => c[clock][i])),
        y: middle(ys),
        low: Math.min(...ys),
        high: Math.max(...ys),
      });
    }
    return points;
  }

  /* The height of a line at x, between its points. */
  function heightAt(points, x) {
    const next = points.findIndex((p) => p.x >= x);
    if (next < 0) return points.length ? points.at(-1).y : null;
    if (!next) return points[0].y;
    const [a, b] = [points[next - 1], points[next]];
    return a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x || 1);
  }

  function measuresOf(record) {
    const columns = new Set(
      (record.cadences || []).flatMap((c) =>
        (c.runs || []).flatMap((run) =>
          Object.entries(run.curve || {})
            .filter(([, values]) => (values || []).some(known))
            .map(([name]) => name),
        ),
      ),
    );
    const found = Object.entries(LOSSES)
      .filter(([name]) => columns.has(name))
      .map(([key, text]) => ({ key, text, loss: true }));
    for (const key of columns) {
      if (!key.startsWith("held_out_") || LOSSES[key]) continue;
      const name = key.slice("held_out_".length);
      found.push({
        key,
        name,
        text: `held-out ${words.scoreName(name)}`,
        loss: ["mse", "loss"].includes(name),
        share: ["accuracy", "r2"].includes(name),
      });
    }
    return found;
  }

  function targetOf(record) {
    const found = /^\s*(train(?:ing)?|held-out)?\s*(\w+)\s*(>=|<=|>|<)\s*([-+\d.eE]+)\s*$/.exec(record.target || "");
    if (!found) return null;
    const [, where, name, , value] = found;
    const key =
      name === "loss"
        ? where && where.startsWith("train")
          ? "train_loss_mean"
          : "held_out_loss_mean"
        : `held_out_${name}`;
    return { key, value: Number(value) };
  }
  const readable = (target) =>
    String(target)
      .replace(/\s*>=\s*/, " ≥ ")
      .replace(/\s*<=\s*/, " ≤ ")
      .replace(/\br2\b/, "R²");
  const capital = (text) => text && text[0].toUpperCase() + text.slice(1);
  const scoreText = (record) => `held-out ${words.scoreName(record.score || "score")}`;

  /* Who needs least, and who cannot be told apart from it because the ranges over seeds overlap. */
  function best(record, clock) {
    const rows = (record.cadences || []).filter(
      (c) => c.to_target && c.to_target[clock] && known(c.to_target[clock].median),
    );
    const sure = rows.filter((c) => !(c.reached_share < 1));
    const order = (sure.length ? sure : rows).sort((a, b) => a.to_target[clock].median - b.to_target[clock].median);
    if (!order.length) return null;
    const least = order[0].to_target[clock];
    return {
      cadence: order[0],
      value: least,
      near: order.slice(1).filter((c) => c.to_target[clock].low <= least.high),
    };
  }

  const tied = (found) =>
    found.near.length ? `, with no clear lead over ${words.list(found.near.map((c) => everyName(c.every)))}` : "";

  const paletteIndex = (i, n) => (n > 8 ? i % 8 : Math.floor((i * 14 + Math.max(n - 1, 1)) / (2 * Math.max(n - 1, 1))));

  function cadenceHead(record, i) {
    const cadence = record.cadences[i];
    return make(
      "th",
      { scope: "row" },
      make("i", { class: `swatch c${paletteIndex(i, record.cadences.length)}` }),
      make("span", { class: "every", text: everyName(cadence.every) }),
      make("span", {
        class: "usual",
        text: cadence.usual_name
          ? `${cadence.usual_name}${cadence.every === "dataset" ? `, M = ${count(cadence.batch_size)}` : ""}`
          : "",
      }),
    );
  }

  function share(part, runs) {
    if (!known(part)) return make("span", { class: "none", text: "–" });
    const n = (runs || []).length;
    return make("span", { class: "value", text: n ? `${Math.round(part * n)} of ${n}` : percent(part) });
  }

  /* A table with a row for each cadence; columns are [name, group, (cadence, i) => cell contents]. */
  function table(id, [corner], columns, record) {
    const groups = [];
    for (const [, group] of columns) {
      if (groups.length && groups.at(-1).name === group) groups.at(-1).n += 1;
      else groups.push({ name: group, n: 1 });
    }
    const head = make("thead", {});
    if (groups.some((g) => g.name)) {
      head.append(
        make(
          "tr",
          { class: "groups" },
          make("td", {}),
          ...groups.map((g) =>
            g.name ? make("th", { colspan: g.n, scope: "colgroup", text: g.name }) : make("td", { colspan: g.n }),
          ),
        ),
      );
    }
    head.append(
      make(
        "tr",
        {},
        make("th", { scope: "col", text: corner }),
        ...columns.map(([name]) => make("th", { scope: "col", text: name })),
      ),
    );
    const body = make(
      "tbody",
      {},
      ...record.cadences.map((cadence, i) =>
        make(
          "tr",
          {},
          cadenceHead(record, i),
          ...columns.map(([, , cell]) => make("td", {}, ...cell(cadence, i).filter(Boolean))),
        ),
      ),
    );
    return make("table", { id }, head, body);
  }

  backbeat.measured = {
    CLOCKS,
    clockName,
    middle,
    band,
    heightAt,
    measuresOf,
    targetOf,
    readable,
    capital,
    scoreText,
    best,
    tied,
    paletteIndex,
    cadenceHead,
    share,
    table,
  };
})();
