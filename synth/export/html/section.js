// A schedule's part of the page: heading, numbers, legend, drawing and notes.

const MOST_SWATCHES = 8;

function element(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

function makeSection(schedule, index) {
  const [base, overlay] = [element("canvas"), element("canvas")];
  const heading = element("h2", { textContent: schedule.raw.title, id: `title-${index}` });
  const plot = element("div", { className: "plot", tabIndex: 0 }, base, overlay);
  plot.setAttribute("role", "application");
  plot.setAttribute("aria-label", `${schedule.raw.title}, ranks as rows over time; press ? for the keys`);
  const root = element("section", {}, heading, makeAbout(schedule),
    makeNumbers(schedule), makeLegend(schedule), plot, ...makeNotes(schedule));
  root.setAttribute("aria-labelledby", heading.id);
  return {
    schedule, root, plot, base, overlay, lay: null,
    strip: element("canvas"),
    shades: readShades(schedule),
    ...lengthsOf(schedule),
    ...extentOf(schedule),
  };
}

function makeAbout(schedule) {
  const { name, facts, source } = aboutParts(schedule);
  const own = (textContent) => element("bdi", { textContent });
  return element("p", { className: "about" }, ...(name ? [own(name), ": "] : []), facts, ...(source ? [". ", own(source)] : []));
}

// The least, the greatest and the mean length of an op, and the mean turn of a microbatch on a rank.
function lengthsOf({ raw, numRanks, start, end }) {
  let [shortest, longest, sum] = [Infinity, 0, 0];
  for (let op = 0; op < start.length; op++) {
    const length = end[op] - start[op];
    shortest = Math.min(shortest, length);
    longest = Math.max(longest, length);
    sum += length;
  }
  return { shortest, longest, mean: sum / start.length, turn: sum / numRanks / raw.num_microbatches };
}

function extentOf({ start, end, ops: { rank_start } }) {
  return {
    first: Math.min(...rank_start.slice(0, -1).map((first) => start[first])),
    end: Math.max(...rank_start.slice(1).map((next) => end[next - 1])),
  };
}

function makeNumbers(schedule) {
  const pair = ({ name, text, small, over }) => element("div", { className: over ? "over" : "" },
    element("dt", { textContent: name }),
    element("dd", {}, `${text} `, element("small", { textContent: small })));
  return element("dl", { className: "numbers" }, ...numbersOf(schedule).map(pair));
}

function makeLegend(schedule) {
  const used = new Set(schedule.ops.kind);
  const items = schedule.raw.kinds.flatMap((kind, code) => (used.has(code) ? [kindItem(schedule, kind, code)] : []));
  if (schedule.raw.shades[0].length > 1) items.push(element("li", { textContent: `shade: ${schedule.raw.reading ? "a rank's stages" : "chunk"}` }));
  if (schedule.raw.reading) items.push(element("li", { textContent: schedule.raw.reading }));
  if (schedule.marked.length) items.push(element("li", {}, element("i", { className: "outline" }), " marked"));
  if (schedule.raw.limits) items.push(element("li", {}, element("i", { className: "limit" }), " memory limit"));
  if (schedule.raw.static.some((bytes) => bytes > 0)) {
    items.push(element("li", {}, element("i", { className: "static" }), " static memory"));
  }
  return element("ul", { className: "legend" }, ...items);
}

function kindItem(schedule, kind, code) {
  const shades = schedule.raw.shades[code];
  const shown = shades.map((shade, chunk) => [shade, chunk])
    .filter(([, chunk]) => shades.length <= MOST_SWATCHES || chunk === 0 || chunk === shades.length - 1);
  const swatches = shown.map(([{ fill, text }, chunk]) => {
    const swatch = element("i", { textContent: shades.length > 1 ? chunk : "" });
    Object.assign(swatch.style, { background: fill, color: text });
    return swatch;
  });
  return element("li", {}, ...swatches, ` ${kind} ${KIND_WORDS[kind]}`);
}

function makeNotes(schedule) {
  const { certificate, notes } = schedule.raw;
  const lines = [...(certificate?.bound_from ? [`Lower bound from: ${certificate.bound_from}`] : []), ...notes];
  if (!lines.length) return [];
  return [element("ul", { className: "notes" }, ...lines.map((textContent) => element("li", { textContent })))];
}

// The layer that changes with the view only; overlay.js draws the one above it.
function drawSection(section, look, page) {
  const { lay } = section;
  const context = fitCanvas(section.base, lay);
  context.textBaseline = "middle";
  drawRows(context, lay.ops, section, look);
  drawAxis(context, section, look, page);
  drawOps(context, section, page.view);
  drawNames(context, section, look, page.view);
  if (page.showsMarked) drawMarked(context, section, look, page.view);
  if (lay.memory) drawMemory(context, section, look, page);
}

// What lies under a point of a section's drawing: a rank's op (-1 where it is idle) or its memory, or null.
function targetAt(section, view, x, y) {
  const { schedule, lay } = section;
  if (x < lay.left || x >= lay.width) return null;
  const time = timeOf(lay, view, x);
  for (const [kind, rows] of [["op", lay.ops], ["memory", lay.memory]]) {
    const rank = rows ? Math.floor((y - rows.top) / rows.pitch) : -1;
    if (rank < 0 || rank >= schedule.numRanks) continue;
    return { section, kind, rank, time, op: kind === "op" ? opAt(schedule, rank, time) : -1 };
  }
  return null;
}

function targetWords({ section, kind, rank, time, op }) {
  if (kind === "memory") return memoryWords(section.schedule, rank, time);
  return op < 0 ? idleWords(section.schedule, rank, time) : opWords(section.schedule, op);
}
