/* A comparison or advice that is still measured: how far it is, and what comes next, where the answer will stand. */
"use strict";
(() => {
  const { words } = backbeat;
  const { known, seconds, kept, make } = words;
  const STAGES = {
    timing: "Measuring what an update costs",
    tuning: "Tuning the learning rate",
    measuring: "Measuring at the tuned learning rates",
    searching: "Finding what each batch size needs",
    confirming: "Running the recommended settings for real",
  };
  const FULL = { comparison: "of the comparison", advice: "of the advice" };

  function sentence({ state, stage, at_every: every }) {
    if (state !== "running") return "It was cut off; below is what had been found.";
    const what = STAGES[stage] || (stage ? stage[0].toUpperCase() + stage.slice(1) : "It begins");
    if (!every || stage === "timing") return `${what}.`;
    return `${what}: ${/^\d+$/.test(every) ? (every === "1" ? "each example" : `every ${every} examples`) : words.everyName(every)}.`;
  }

  backbeat.underway = (record) => {
    const { underway } = record;
    const bar = make("progress", { max: "1", "aria-label": `how much ${FULL[record.kind]} is done` });
    bar.value = underway.progress || 0;
    const left = known(underway.seconds_left) ? `, about ${seconds(underway.seconds_left)} left` : "";
    const spent = known(underway.wall_seconds) ? `${seconds(underway.wall_seconds)} so far${left}` : "";
    return make(
      "section",
      { id: "answer", class: "underway", "aria-label": "How far it is" },
      make("p", { class: "lead long", text: kept(sentence(underway)) }),
      underway.state === "running" ? make("p", { class: "more" }, bar, make("span", { text: spent })) : null,
    );
  };
})();
