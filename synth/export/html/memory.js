// Drawing what every rank holds, below its limit.

function drawMemory(context, section, look, page) {
  const { schedule, lay } = section;
  const rows = lay.memory;
  drawRows(context, rows, section, look);
  drawCaption(context, `memory, every row up to ${formatBytes(page.mostBytes)}`, rows.top - CAPTION_HEIGHT / 2 + 1, look);
  const columns = Math.ceil(lay.plot);
  const [low, high] = [new Float64Array(columns), new Float64Array(columns)];
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const bottom = rowTop(rows, rank) + rows.height;
    const height = (bytes) => (bytes / page.mostBytes) * rows.height;
    findEnvelope(low, high, schedule, rank, page.view, lay.plot);
    context.fillStyle = look.memory;
    fillCurve(context, high, lay, bottom, height);
    context.fillStyle = look.memoryLow;
    fillCurve(context, low, lay, bottom, height);
    if (schedule.raw.limits) drawExcess(context, schedule.raw.limits[rank], look, high, lay, bottom, height);
    drawLevels(context, section, look, rank, bottom, height);
  }
}

function drawCaption(context, text, y, look) {
  context.fillStyle = look.panel;
  context.fillRect(0, y - 8, context.measureText(text).width + 6, 16);
  context.fillStyle = look.dim;
  context.fillText(text, 0, y);
}

// What is held above the limit, in the limit's colour.
function drawExcess(context, limit, look, high, lay, bottom, height) {
  if (high.every((live) => live <= limit)) return;
  context.save();
  context.beginPath();
  context.rect(lay.left, 0, lay.plot, bottom - height(limit));
  context.clip();
  context.fillStyle = look.limit;
  fillCurve(context, high, lay, bottom, height);
  context.restore();
}

// The least and the most that a rank holds in the time of every pixel.
function findEnvelope(low, high, schedule, rank, view, plot) {
  low.fill(Infinity);
  high.fill(-Infinity);
  const last = schedule.memory.rank_start[rank + 1];
  const scale = plot / (view.to - view.from);
  let step = memoryStepAfter(schedule, rank, view.from);
  let live = liveBefore(schedule, rank, step);
  let from = 0;
  for (;;) {
    const to = step < last ? Math.min(low.length, (schedule.memoryTime[step] - view.from) * scale) : low.length;
    for (let column = Math.floor(from); column < to; column++) {
      if (live < low[column]) low[column] = live;
      if (live > high[column]) high[column] = live;
    }
    if (to >= low.length) return;
    from = to;
    live = schedule.memory.live[step++];
  }
}

function fillCurve(context, values, lay, bottom, height) {
  context.beginPath();
  context.moveTo(lay.left, bottom);
  let level = NaN;
  for (let column = 0; column < values.length; column++) {
    if (values[column] === level) continue;
    if (column > 0) context.lineTo(lay.left + column, bottom - height(level));
    level = values[column];
    context.lineTo(lay.left + column, bottom - height(level));
  }
  context.lineTo(lay.width, bottom - height(level));
  context.lineTo(lay.width, bottom);
  context.fill();
}

// A rank's static bytes as a darker floor, and its limit as a line.
function drawLevels(context, { schedule, lay }, look, rank, bottom, height) {
  const { limits, static: held } = schedule.raw;
  context.fillStyle = look.static;
  context.fillRect(lay.left, bottom - height(held[rank]), lay.plot, height(held[rank]));
  if (!limits) return;
  context.strokeStyle = look.limit;
  context.lineWidth = 1;
  context.setLineDash([5, 3]);
  const y = Math.round(bottom - height(limits[rank])) + 0.5;
  context.beginPath();
  context.moveTo(lay.left, y);
  context.lineTo(lay.width, y);
  context.stroke();
  context.setLineDash([]);
}
