// What is shown: one view in time over all schedules, one cursor, and what is pointed at. Here is all that changes.

const LEAST_SPAN_TICKS = 4;
const SLIDER_STEPS = 10000;
const REST_DELAY_MS = 200;
const TIP_DISTANCE = 16;
const byId = (id) => document.getElementById(id);

const raws = JSON.parse(byId("data").textContent);
const schedules = raws.map((raw) => readSchedule(raw, raws[0].tick_seconds));
const sections = schedules.map(makeSection);
const sameTicks = raws.every((raw) => raw.tick_seconds === raws[0].tick_seconds);
const range = {
  from: Math.min(...sections.map(({ first }) => first)),
  to: Math.max(...sections.map(({ end }) => end)),
};
range.to = Math.max(range.to, range.from + 1); // ops measured as nothing at all
const page = {
  view: { ...range },
  cursor: null,
  target: null,
  rank: null,
  unit: "seconds",
  showsMarked: true,
  showsMemory: true,
  tickSeconds: raws[0].tick_seconds,
  mostBytes: Math.max(1, ...raws.flatMap(({ peaks, limits }) => [...peaks, ...(limits ?? [])])),
};
const frame = { isAwaited: false, rest: null };
let look;

// ---- drawing

// Draw the layer of cursor and pointer in the next frame, and what else has changed.
function redraw() {
  if (frame.isAwaited) return;
  frame.isAwaited = true;
  requestAnimationFrame(drawFrame);
}

function redrawAll() {
  for (const section of sections) section.isBaseStale = true;
  redraw();
}

// What is out of sight is drawn once nothing has changed for a while: printing and scrolling find it as it is.
function drawFrame() {
  frame.isAwaited = false;
  for (const section of sections) section.isStale = true;
  sections.filter(isInSight).forEach(drawBothLayers);
  showTime();
  clearTimeout(frame.rest);
  frame.rest = setTimeout(() => sections.filter(({ isStale }) => isStale).forEach(drawBothLayers), REST_DELAY_MS);
}

function drawBothLayers(section) {
  if (section.isBaseStale) drawSection(section, look, page);
  drawOverlay(section, look, page);
  section.isBaseStale = section.isStale = false;
}

function isInSight({ plot }) {
  const { top, bottom } = plot.getBoundingClientRect();
  return bottom > 0 && top < window.innerHeight;
}

function showTime() {
  const share = (time) => (100 * (time - range.from)) / (range.to - range.from);
  Object.assign(byId("window").style, {
    left: `${share(page.view.from)}%`, width: `${share(page.view.to) - share(page.view.from)}%`,
  });
  const words = page.cursor === null ? "no cursor" : cursorWords();
  byId("now").textContent = words;
  byId("time").setAttribute("aria-valuetext", words);
  const steps = Number(byId("time").max);
  byId("time").value = page.cursor === null ? 0 : Math.round((share(page.cursor) / 100) * steps);
}

function cursorWords() {
  const seconds = formatSeconds(page.cursor * page.tickSeconds, TIME_DIGITS);
  return sameTicks ? `${seconds} \u00b7 ${formatTicks(page.cursor)}` : seconds;
}

function readLook() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["panel", "row", "line", "ink", "dim", "memory", "static", "limit", "mark", "cursor"];
  look = {
    ...Object.fromEntries(names.map((name) => [name, colour(name)])),
    memoryLow: colour("memory-low"),
    font: getComputedStyle(document.body).fontFamily,
  };
}

function layOutAll() {
  if (!sections[0].plot.clientWidth) return; // not on the screen
  for (const section of sections) {
    section.lay = layOut(section.schedule, section.plot.clientWidth, page.showsMemory);
    section.plot.style.height = `${section.lay.height}px`;
  }
  redrawAll();
}

// ---- the view

function setView(from, to) {
  const whole = range.to - range.from;
  const span = clamp(Math.min(whole, LEAST_SPAN_TICKS), to - from, whole);
  const start = clamp(range.from, from, range.to - span);
  page.view = { from: start, to: start + span };
  if (page.rank) pointAtRank();
  redrawAll();
}

function zoom(factor, time) {
  const { from, to } = page.view;
  const span = clamp(LEAST_SPAN_TICKS, (to - from) / factor, range.to - range.from);
  const share = (time - from) / (to - from);
  setView(time - share * span, time - share * span + span);
}

function zoomAtCursor(factor) {
  const { from, to } = page.view;
  const isShown = page.cursor !== null && page.cursor >= from && page.cursor <= to;
  zoom(factor, isShown ? page.cursor : (from + to) / 2);
}

function pan(time) {
  const { from, to } = page.view;
  const moved = clamp(range.from - from, time, range.to - to);
  setView(from + moved, to + moved);
}

function panByShare(share) {
  pan(share * (page.view.to - page.view.from));
}

function showWhole() {
  setView(range.from, range.to);
}

// ---- the cursor and what is pointed at

function setCursor(time) {
  page.cursor = time === null ? null : clamp(range.from, sameTicks ? Math.round(time) : time, range.to);
  if (page.rank !== null) pointAtRank();
  redraw();
}

function stepCursor(direction) {
  const ranks = (section) => (page.rank?.section === section ? [page.rank.rank] : section.schedule.raw.peaks.keys());
  const chosen = page.rank ? [page.rank.section] : sections;
  const time = page.cursor ?? range.from - 1;
  const starts = chosen.map((section) => neighbourStart(section.schedule, ranks(section), time, direction))
    .filter((start) => start !== undefined);
  if (!starts.length) return;
  setCursor(direction > 0 ? Math.min(...starts) : Math.max(...starts));
  showCursor();
}

function showCursor() {
  const { from, to } = page.view;
  if (page.cursor < from || page.cursor >= to) pan(page.cursor - (from + to) / 2);
}

function chooseRank(direction) {
  const rows = sections.flatMap((section) => section.schedule.raw.peaks.map((_, rank) => ({ section, rank })));
  const current = rows.findIndex(({ section, rank }) => section === page.rank?.section && rank === page.rank.rank);
  const next = current < 0 ? (direction > 0 ? 0 : rows.length - 1) : clamp(0, current + direction, rows.length - 1);
  page.rank = rows[next];
  scrollToRank();
  if (page.cursor === null) setCursor((page.view.from + page.view.to) / 2);
  else pointAtRank();
}

function scrollToRank() {
  const { section, rank } = page.rank;
  const y = section.plot.getBoundingClientRect().top + rowTop(section.lay.ops, rank);
  const isVisible = y > document.querySelector("header").offsetHeight && y + section.lay.ops.pitch < window.innerHeight;
  if (!isVisible) window.scrollBy(0, y - window.innerHeight / 2);
}

// Point at what the chosen rank does at the cursor.
function pointAtRank() {
  const { section, rank } = page.rank;
  const target = { section, kind: "op", rank, time: page.cursor, op: opAt(section.schedule, rank, page.cursor) };
  const box = section.plot.getBoundingClientRect();
  const x = clamp(section.lay.left, xOf(section.lay, page.view, page.cursor), section.lay.width);
  pointAt(target, box.left + x, box.top + rowTop(section.lay.ops, rank) + section.lay.ops.height / 2);
}

function pointAt(target, x, y) {
  page.target = target;
  byId("tip").hidden = target === null;
  if (target) showTip(targetWords(target), x, y, TIP_DISTANCE + (target.op < 0 ? 0 : target.section.lay.ops.pitch));
  redraw();
}

// Below the point, or above where there is no room: at a distance that leaves the transfers of an op in sight.
function showTip([head, ...lines], x, y, distance) {
  const tip = byId("tip");
  tip.replaceChildren(element("b", { textContent: head }), ...lines.map((textContent) => element("div", { textContent })));
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const isBelow = y + distance + height <= window.innerHeight;
  tip.style.left = `${clamp(8, x + TIP_DISTANCE, window.innerWidth - width - 8)}px`;
  tip.style.top = `${Math.max(8, isBelow ? y + distance : y - height - distance)}px`;
}

function forget() {
  page.rank = null;
  setCursor(null);
  pointAt(null);
}
