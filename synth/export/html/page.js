// The page itself: what it lets scripts read, and its beginning.

// What a test or a script may ask of the page; nothing here changes it.
function expose() {
  const nameAt = ({ section, op }) => (op < 0 ? null : nameOf(section.schedule, op));
  window.pipesynth = Object.freeze({
    range: Object.freeze({ ...range }),
    get view() { return { ...page.view }; },
    get cursor() { return page.cursor; },
    get pointedAt() { return page.target && nameAt(page.target); },
    get theme() { return document.documentElement.dataset.theme; },
    get unit() { return page.unit; },
    get readings() {
      return schedules.map((schedule) => schedule.raw.peaks.map((_, rank) => readingOf(schedule, rank, page.cursor)));
    },
    // The middle of an op on the screen.
    place(index, name) {
      const { schedule, plot, lay } = sections[index];
      const op = schedule.start.findIndex((_, number) => nameOf(schedule, number) === name);
      const box = plot.getBoundingClientRect();
      return {
        x: box.left + xOf(lay, page.view, (schedule.start[op] + schedule.end[op]) / 2),
        y: box.top + rowTop(lay.ops, rankOf(schedule, op)) + lay.ops.height / 2,
      };
    },
  });
}

function begin() {
  byId("sections").replaceChildren(...sections.map(({ root }) => root));
  byId("time").max = sameTicks ? Math.min(SLIDER_STEPS, range.to - range.from) : SLIDER_STEPS;
  byId("unit").disabled = !sameTicks;
  byId("marked").hidden = !schedules.some(({ marked }) => marked.length);
  followSystemTheme();
  layOutAll();
  listen();
  expose();
  requestAnimationFrame(() => setTimeout(() => performance.mark("drawn")));
}

begin();
