// A schedule as arrays, and the questions asked of it. `start`, `end`, `memoryTime` and the transfers' times are
// on the axis, in ticks of the page's first schedule; `raw` holds what was embedded, in the schedule's own ticks.
// `shade` counts kinds and chunks together.

const READERS = { u1: Uint8Array, u2: Uint16Array, i4: Int32Array, f8: Float64Array };

function readColumn({ type, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new READERS[type](bytes.buffer);
}

function readColumns(group) {
  const read = ([name, column]) => [name, column.type ? readColumn(column) : column];
  return Object.fromEntries(Object.entries(group).map(read));
}

function readSchedule(raw, axisTickSeconds) {
  const scale = raw.tick_seconds / axisTickSeconds;
  const onAxis = (ticks) => (scale === 1 ? ticks : Float64Array.from(ticks, (tick) => tick * scale));
  const ops = readColumns(raw.ops);
  const memory = readColumns(raw.memory);
  const transfers = readColumns(raw.transfers);
  return {
    raw, scale, ops, memory, transfers,
    shade: Uint16Array.from(ops.kind, (kind, op) => kind * raw.shades[0].length + raw.chunk_of_stage[ops.stage[op]]),
    numRanks: raw.peaks.length,
    start: onAxis(ops.start),
    end: onAxis(ops.end),
    memoryTime: onAxis(memory.tick),
    transferStart: onAxis(transfers.start),
    transferEnd: onAxis(transfers.end),
    marked: readColumn(raw.marked),
    markedSet: new Set(readColumn(raw.marked)),
  };
}

// The last place in [low, high) whose value is at most `value`; low - 1 where there is none.
function lastAtMost(values, low, high, value) {
  let [first, end] = [low, high];
  while (first < end) {
    const middle = (first + end) >> 1;
    if (values[middle] <= value) first = middle + 1;
    else end = middle;
  }
  return first - 1;
}

function opsOfRank(schedule, rank) {
  return [schedule.ops.rank_start[rank], schedule.ops.rank_start[rank + 1]];
}

function rankOf(schedule, op) {
  return schedule.raw.rank_of_stage[schedule.ops.stage[op]];
}

function chunkOf(schedule, op) {
  return schedule.raw.chunk_of_stage[schedule.ops.stage[op]];
}

function nameOf(schedule, op) {
  const { kind, stage, microbatch } = schedule.ops;
  return `${stage[op]}${schedule.raw.kinds[kind[op]]}${microbatch[op]}`;
}

// The microbatch's number, or R for a sum of gradients, which has none.
function shortNameOf(schedule, op) {
  const { kind, microbatch } = schedule.ops;
  return schedule.raw.kinds[kind[op]] === "R" ? "R" : String(microbatch[op]);
}

function shadeOf(schedule, op) {
  return schedule.raw.shades[schedule.ops.kind[op]][chunkOf(schedule, op)];
}

// The op that a rank runs at a time, or -1.
function opAt(schedule, rank, time) {
  const [low, high] = opsOfRank(schedule, rank);
  const op = lastAtMost(schedule.start, low, high, time);
  return op >= low && time < schedule.end[op] ? op : -1;
}

// The first op of a rank that ends after a time.
function firstEndingAfter(schedule, rank, time) {
  const [low, high] = opsOfRank(schedule, rank);
  return lastAtMost(schedule.end, low, high, time) + 1;
}

// From when to when a rank is idle around a time at which it runs nothing; infinite at its first and last op.
function idleAround(schedule, rank, time) {
  const [low, high] = opsOfRank(schedule, rank);
  const next = firstEndingAfter(schedule, rank, time);
  return [next > low ? schedule.end[next - 1] : -Infinity, next < high ? schedule.start[next] : Infinity];
}

// The first memory step of a rank after a time.
function memoryStepAfter(schedule, rank, time) {
  const [low, high] = [schedule.memory.rank_start[rank], schedule.memory.rank_start[rank + 1]];
  return lastAtMost(schedule.memoryTime, low, high, time) + 1;
}

function liveBefore(schedule, rank, step) {
  return step > schedule.memory.rank_start[rank] ? schedule.memory.live[step - 1] : schedule.raw.static[rank];
}

function liveAt(schedule, rank, time) {
  return liveBefore(schedule, rank, memoryStepAfter(schedule, rank, time));
}

// The transfers that an op receives or sends: numbers into the columns of `transfers`.
function transfersOf(schedule, side, op) {
  const found = [];
  schedule.transfers[side].forEach((other, transfer) => {
    if (other === op) found.push(transfer);
  });
  return found;
}

// The nearest start of an op before or after a time, over some ranks; undefined where there is none.
function neighbourStart(schedule, ranks, time, direction) {
  let best;
  for (const rank of ranks) {
    const [low, high] = opsOfRank(schedule, rank);
    let op = lastAtMost(schedule.start, low, high, time);
    if (direction > 0) op += 1;
    else while (op >= low && schedule.start[op] >= time) op -= 1;
    if (op < low || op >= high) continue;
    const start = schedule.start[op];
    if (best === undefined || (direction > 0 ? start < best : start > best)) best = start;
  }
  return best;
}
