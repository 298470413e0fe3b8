// The ways to change what is shown: pointer, wheel, touch, buttons and keys.

const DRAG_THRESHOLD = 4;
const ZOOM_STEP = 1.5;
const PAN_SHARE = 0.1;
let hasChosenTheme = false;

function listenToPointers(section) {
  const { plot } = section;
  const held = new Map();
  const place = (event) => {
    const box = plot.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const point = (event) => {
    const { x, y } = place(event);
    page.rank = null;
    pointAt(targetAt(section, page.view, x, y), event.clientX, event.clientY);
  };
  let moved = false;
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    plot.setPointerCapture(event.pointerId);
    if (!held.size) moved = false;
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  plot.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return point(event);
    const now = { x: event.clientX, y: event.clientY };
    if (!moved && held.size === 1 && Math.hypot(now.x - before.x, now.y - before.y) < DRAG_THRESHOLD) return undefined;
    moved = true;
    plot.classList.add("held");
    pointAt(null);
    drag(section, held, event, before, now);
    return held.set(event.pointerId, now);
  });
  const release = (event) => {
    if (!held.delete(event.pointerId) || held.size) return;
    plot.classList.remove("held");
    if (moved || event.type !== "pointerup") return;
    const { x } = place(event);
    if (x >= section.lay.left) setCursor(timeOf(section.lay, page.view, x));
    point(event);
  };
  plot.addEventListener("pointerup", release);
  plot.addEventListener("pointercancel", release);
  // A finger leaves with every tap, and what it tapped stays.
  plot.addEventListener("pointerleave", ({ pointerType }) => pointerType === "touch" || held.size || page.rank || pointAt(null));
  plot.addEventListener("wheel", (event) => turnWheel(section, event, place(event).x), { passive: false });
}

// One pointer pans in time and scrolls the page; two zoom as well.
function drag(section, held, event, before, now) {
  const perPixel = (page.view.to - page.view.from) / section.lay.plot;
  if (held.size === 1) {
    pan((before.x - now.x) * perPixel);
    if (event.pointerType === "mouse") window.scrollBy(0, before.y - now.y);
    return;
  }
  const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
  const apart = (at) => Math.max(10, Math.hypot(at.x - other.x, at.y - other.y));
  const middle = (now.x + other.x) / 2 - section.plot.getBoundingClientRect().left;
  pan(((before.x - now.x) / 2) * perPixel);
  zoom(apart(now) / apart(before), timeOf(section.lay, page.view, middle));
}

function turnWheel(section, event, x) {
  if (x < section.lay.left) return;
  event.preventDefault();
  const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
  const [sideways, towards] = [event.deltaX * pixels, event.deltaY * pixels];
  const perPixel = (page.view.to - page.view.from) / section.lay.plot;
  if (event.shiftKey || Math.abs(sideways) > Math.abs(towards)) pan((sideways || towards) * perPixel);
  else zoom(Math.exp(-clamp(-120, towards, 120) * (event.ctrlKey ? 0.01 : 0.003)), timeOf(section.lay, page.view, x));
  const box = section.plot.getBoundingClientRect();
  pointAt(targetAt(section, page.view, x, event.clientY - box.top), event.clientX, event.clientY);
}

// ---- buttons and keys

function toggle(name, id) {
  page[name] = !page[name];
  byId(id).setAttribute("aria-pressed", String(page[name]));
  layOutAll();
}

function switchUnit() {
  if (!sameTicks) return;
  page.unit = page.unit === "ticks" ? "seconds" : "ticks";
  byId("unit").textContent = page.unit === "ticks" ? "seconds" : "ticks";
  redrawAll();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "light" : "dark";
  readLook();
  redrawAll();
}

function followSystemTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => hasChosenTheme || setTheme(system.matches ? "dark" : "light");
  system.addEventListener("change", follow);
  follow();
}

function switchTheme() {
  hasChosenTheme = true;
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function switchHelp() {
  if (byId("keys").open) byId("keys").close();
  else byId("keys").showModal();
}

const KEYS = {
  ArrowLeft: () => panByShare(-PAN_SHARE),
  ArrowRight: () => panByShare(PAN_SHARE),
  ArrowUp: () => chooseRank(-1),
  ArrowDown: () => chooseRank(1),
  "+": () => zoomAtCursor(ZOOM_STEP),
  "=": () => zoomAtCursor(ZOOM_STEP),
  "-": () => zoomAtCursor(1 / ZOOM_STEP),
  _: () => zoomAtCursor(1 / ZOOM_STEP),
  0: showWhole,
  Home: showWhole,
  ",": () => stepCursor(-1),
  "[": () => stepCursor(-1),
  ".": () => stepCursor(1),
  "]": () => stepCursor(1),
  m: () => toggle("showsMemory", "memory"),
  c: () => toggle("showsMarked", "marked"),
  u: switchUnit,
  t: switchTheme,
  "?": switchHelp,
  Escape: forget,
};

function pressKey(event) {
  const isSlider = event.target === byId("time") && /^(Arrow|Home)/.test(event.key);
  if (event.ctrlKey || event.altKey || event.metaKey || isSlider || !Object.hasOwn(KEYS, event.key)) return;
  if (byId("keys").open && event.key !== "?") return;
  event.preventDefault();
  KEYS[event.key]();
}

function listen() {
  const onClick = (id, act) => byId(id).addEventListener("click", act);
  onClick("zoom-in", KEYS["+"]);
  onClick("zoom-out", KEYS["-"]);
  onClick("whole", showWhole);
  onClick("memory", KEYS.m);
  onClick("marked", KEYS.c);
  onClick("unit", switchUnit);
  onClick("theme", switchTheme);
  onClick("help", switchHelp);
  byId("time").addEventListener("input", ({ target }) => {
    setCursor(range.from + (target.value / target.max) * (range.to - range.from));
    showCursor();
  });
  document.addEventListener("keydown", pressKey);
  document.addEventListener("scroll", redraw, { passive: true });
  window.addEventListener("resize", redraw);
  sections.forEach(listenToPointers);
  new ResizeObserver(layOutAll).observe(byId("sections"));
}
