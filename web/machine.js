'use strict';
// The machine behind the list: plots of /metrics, what /ready says, and the banner over a list that may be old.

const POLL_MS = 2000;
const POINTS = 60;
// The list is compared with the store every few seconds; older than this, something keeps it from that.
const STALE_MS = 30000;
// What a reason of /ready begins with when the list does not follow the store.
const MAKES_STALE = /^(feed|feed_link|store|store_link|data_folder|worker|workers|snapshot|start|draining):/;

const machine = { todos: 0, ready: null, isSilent: false, last: null };

const rounded = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 2, notation: 'compact' });
const seconds = value => value >= 1 ? `${rounded.format(value)} s` : value >= 1e-3 ? `${rounded.format(1e3 * value)} ms` : `${rounded.format(1e6 * value)} µs`;
const plots = [
  { name: 'Requests/s, by shard', show: values => rounded.format(values.reduce((sum, value) => sum + value, 0)),
    lines: (now, last, passed) => now.byShard('responses_total').map((value, shard) => Math.max(0, value - (last.byShard('responses_total')[shard] ?? 0)) / passed) },
  { name: 'Write latency, 50 / 99 %', show: values => values.every(Number.isFinite) ? values.map(seconds).join(' / ') : 'no writes',
    lines: (now, last) => [0.5, 0.99].map(share => quantile(now, last, share)) },
  { name: 'Writes in the queue', show: values => rounded.format(values[0]), lines: now => [now.sum('commands_in_flight')] },
  { name: 'Worker behind, records', show: values => Number.isFinite(values[0]) ? rounded.format(values[0]) : 'elsewhere', lines: now => [now.sum('worker_lag_records')] },
  { name: 'Age of the list', show: values => Number.isFinite(values[0]) ? seconds(values[0]) : 'not loaded', lines: now => [now.sum('snapshot_age_seconds')] },
  { name: 'Followers', show: values => rounded.format(values[0]), lines: now => [now.sum('followers')] },
];

// The text of /metrics, by name: [labels, value] of each sample.
function readMetrics(text) {
  const families = new Map();
  for (const line of text.split('\n')) {
    const [, name, labels, value] = /^million_rps_(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (!name) continue;
    if (!families.has(name)) families.set(name, []);
    families.get(name).push([labels ?? '', +value]);
  }
  return {
    at: performance.now(),
    samples: name => families.get(name) ?? [],
    sum: name => families.has(name) ? families.get(name).reduce((sum, sample) => sum + sample[1], 0) : NaN,
    byShard(name) {
      const sums = [];
      for (const [labels, value] of this.samples(name)) {
        const shard = +/shard="(\d+)"/.exec(labels)[1];
        sums[shard] = (sums[shard] ?? 0) + value;
      }
      return sums;
    },
  };
}

// The upper end of the class that this share of the writes since the last look is in.
function quantile(now, last, share) {
  const name = 'acknowledgement_latency_seconds_bucket';
  const before = new Map(last.samples(name));
  const classes = now.samples(name).map(([labels, value]) => [+/le="([^"]*)"/.exec(labels)[1], value - (before.get(labels) ?? 0)]);
  const all = classes.at(-1)?.[1] ?? 0;
  if (all === 0) return NaN;
  const at = classes.findIndex(([, value]) => value >= share * all);
  return Number.isFinite(classes[at][0]) ? classes[at][0] : classes[at - 1][0];
}

function drawPlots(now) {
  const last = machine.last;
  machine.last = now;
  if (!last) return;
  for (const plot of plots) {
    const values = plot.lines(now, last, (now.at - last.at) / 1000);
    plot.history.push(values);
    if (plot.history.length > POINTS) plot.history.shift();
    const max = Math.max(...plot.history.flat().filter(Number.isFinite), 1e-9);
    const lines = values.map((_, line) => plot.history.map((point, at) => Number.isFinite(point[line])
      ? `${POINTS - plot.history.length + at},${(23 - 22 * point[line] / max).toFixed(1)}` : '').filter(Boolean).join(' '));
    const svg = plot.figure.querySelector('svg');
    while (svg.childElementCount < lines.length) svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'polyline'));
    lines.forEach((points, line) => svg.children[line].setAttribute('points', points));
    const text = plot.show(values);
    plot.figure.querySelector('output').textContent = text;
    svg.setAttribute('aria-label', `${plot.name}: ${text}`);
  }
}

async function look() {
  try {
    machine.ready = await (await get('/ready', 3 * POLL_MS)).json();
    machine.isSilent = false;
    if (machine.ready.snapshot) machine.todos = machine.ready.snapshot.todos;
    $('reasons').replaceChildren(...machine.ready.reasons.map(reason => element('li', '', reason)));
  } catch {
    machine.isSilent = true;
  }
  judge();
  if (!$('machine').open || machine.isSilent) return;
  try {
    const response = await get('/metrics', 3 * POLL_MS);
    if (!response.ok) throw new Error();
    drawPlots(readMetrics(await response.text()));
    $('machine-note').textContent = '';
  } catch {
    $('machine-note').textContent = '/metrics is not shown here.';
  }
}

// Whether what is shown may be old, and why.
function judge() {
  const { ready, isSilent } = machine, reasons = [];
  if (isSilent) reasons.push('The server does not answer.');
  else if (feed.state === 'lost') reasons.push(`The feed is lost: ${feed.reason}. It is tried again.`);
  if (!isSilent && ready) {
    const stale = ready.reasons.filter(reason => MAKES_STALE.test(reason));
    reasons.push(...stale);
    if (stale.length === 0 && ready.snapshot?.age_ms > STALE_MS) reasons.push(`It was last compared with the store ${count.format(Math.round(ready.snapshot.age_ms / 1000))} s ago.`);
  }
  const text = reasons.length ? `This list may be out of date. ${reasons.join(' ')}` : '';
  // Words that have not changed are not read out again.
  if ($('banner').textContent !== text) $('banner').textContent = text;
  $('banner').hidden = !text;
}

async function startMachine() {
  for (const plot of plots) {
    plot.history = [];
    plot.figure = $('plot').content.firstElementChild.cloneNode(true);
    plot.figure.querySelector('figcaption').textContent = plot.name;
    plot.figure.querySelector('svg').setAttribute('aria-label', plot.name);
    $('plots').append(plot.figure);
  }
  if (matchMedia('(max-width: 60rem)').matches) $('machine').open = false;
  for (;;) {
    if (!document.hidden) await look();
    await pause(POLL_MS);
  }
}
