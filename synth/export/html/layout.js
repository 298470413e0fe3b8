// Where everything of a schedule lies in its drawing, its rows and the time axis. Lengths are in CSS pixels.

const AXIS_HEIGHT = 26;
const CAPTION_HEIGHT = 24;
const LEAST_WIDE = 640;
const WIDE_MARGIN = 158;
const NARROW_MARGIN = 110;
const LEAST_LABEL_STEP = 110;
const LARGEST_CANVAS_AREA = 64e6;

function clamp(low, value, high) {
  return Math.max(low, Math.min(high, value));
}

// Where everything of a schedule lies in a drawing of a given width.
function layOut(schedule, width, showsMemory) {
  const ranks = schedule.numRanks;
  const left = width < LEAST_WIDE ? NARROW_MARGIN : WIDE_MARGIN;
  const pitch = clamp(13, Math.round(440 / ranks), 34);
  const ops = { top: AXIS_HEIGHT, pitch, height: pitch - (pitch > 20 ? 4 : 2) };
  const memoryPitch = clamp(13, Math.round(420 / ranks), 48);
  const below = ops.top + ranks * pitch;
  const memory = { top: below + CAPTION_HEIGHT, pitch: memoryPitch, height: memoryPitch - (memoryPitch > 20 ? 6 : 3) };
  const height = showsMemory ? memory.top + ranks * memoryPitch : below;
  return { left, width, plot: width - left, height, ops, memory: showsMemory ? memory : null, font: pitch > 20 ? 12 : 10 };
}

function rowTop(rows, rank) {
  return rows.top + rank * rows.pitch;
}

function xOf(lay, view, time) {
  return lay.left + ((time - view.from) / (view.to - view.from)) * lay.plot;
}

function timeOf(lay, view, x) {
  return view.from + ((x - lay.left) / lay.plot) * (view.to - view.from);
}

// Give a canvas as many pixels as the screen has there, and return its context in CSS pixels.
function fitCanvas(canvas, lay) {
  const sharpest = Math.sqrt(LARGEST_CANVAS_AREA / (lay.width * lay.height));
  const ratio = Math.min(window.devicePixelRatio || 1, sharpest);
  const [width, height] = [Math.round(lay.width * ratio), Math.round(lay.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, lay.width, lay.height);
  return context;
}

function drawRows(context, rows, { lay, schedule }, look) {
  context.font = `${lay.font}px ${look.font}`;
  context.textAlign = "left";
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const top = rowTop(rows, rank);
    context.fillStyle = look.row;
    context.fillRect(lay.left, top, lay.plot, rows.height);
    context.fillStyle = look.dim;
    context.fillText(lay.left === WIDE_MARGIN ? `rank ${rank}` : rank, 0, top + rows.height / 2 + 0.5);
  }
}

// ---- the axis

function drawAxis(context, { lay, schedule }, look, page) {
  const [unit, name] = axisUnit(schedule, page);
  const least = (LEAST_LABEL_STEP / lay.plot) * (page.view.to - page.view.from);
  context.font = `11px ${look.font}`;
  context.textAlign = "center";
  for (const [time, label] of axisLabels(page.view, page.unit === "ticks" ? Math.max(1, least) : least, unit, name)) {
    const x = xOf(lay, page.view, time);
    context.fillStyle = look.line;
    context.fillRect(Math.round(x), AXIS_HEIGHT - 6, 1, lay.height - AXIS_HEIGHT + 6);
    context.fillStyle = look.dim;
    const half = context.measureText(label).width / 2;
    context.fillText(label, clamp(lay.left + half, x, lay.width - half), AXIS_HEIGHT / 2 - 3);
  }
}

// The length of the axis labels' unit in times of the axis, and its name.
function axisUnit(schedule, page) {
  if (page.unit === "ticks") return [1, ""];
  const [seconds, name] = secondUnit(Math.max(Math.abs(page.view.from), Math.abs(page.view.to)) * page.tickSeconds);
  return [seconds / page.tickSeconds, ` ${name}`];
}
