'use strict';
// What this page has of the list: the newest todos, without a gap, down to where the last page ended.

const byId = new Map();
// Newest last, so that a new todo is appended.
let order = [];
// Where the next page is; null: nothing is older than what is here.
let next = null;
let isLoaded = false;
// Counts lists, so that a page of an earlier one is not taken for one of this.
let epoch = 0;
// While a page is fetched: what the feed says of todos that are not here, since the page may be older than that.
let meanwhile = null;
// How many rows there were before the list came again: their places are kept until they are back.
let ghosts = 0;
let changes = 0;
// After a page that did not come, the list does not ask by itself before this time.
let loadAgainAt = 0, pauseMs = 1000;

const filter = { text: '', mine: false, open: false, list: null };

const $ = id => document.getElementById(id);
const get = (url, timeoutMs = 30000) => fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(timeoutMs) });
const compare = (a, b) => a.created_at < b.created_at ? -1 : a.created_at > b.created_at ? 1 : a.id < b.id ? -1 : a.id > b.id ? 1 : 0;

// The first place in a sorted list whose todo is not older.
function placeIn(list, todo) {
  let from = 0, to = list.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (compare(list[middle], todo) < 0) from = middle + 1; else to = middle;
  }
  return from;
}

function remember(todo) {
  todo.change = ++changes;
  byId.set(todo.id, todo);
  return todo;
}

// The feed's first page takes the place of everything.
function takeList(page) {
  ghosts = Math.max(ghosts, order.length);
  byId.clear();
  order = page.todos.map(remember).reverse();
  next = page.next;
  isLoaded = true;
  loadAgainAt = 0;
  epoch++;
  filter.list = null;
}

const isCovered = todo => next === null || (order.length > 0 && compare(todo, order[0]) > 0);

// Takes what has come since the last frame: todos as they are now, or {id, gone}.
function takeChanges(batch) {
  const removed = new Set(), added = [];
  for (const change of batch) {
    const known = byId.get(change.id);
    if (change.gone) {
      if (known) { byId.delete(change.id); removed.add(known); }
      // What was being written of it is kept as a write that has come too late.
      if (change.id === editing?.id) saveEdit();
      meanwhile?.set(change.id, null);
    } else if (known) {
      Object.assign(known, change);
      known.change = ++changes;
    } else if (isCovered(change)) {
      added.push(remember(change));
    } else {
      meanwhile?.set(change.id, change);
    }
  }
  // Each place costs what lies behind it, a pass costs all: a few are taken out one by one.
  if (removed.size > 8) order = order.filter(todo => !removed.has(todo));
  else for (const todo of removed) {
    const at = placeIn(order, todo);
    if (order[at] === todo) order.splice(at, 1);
  }
  for (const todo of added.sort(compare)) {
    if (byId.get(todo.id) !== todo) continue;
    const at = placeIn(order, todo);
    if (at === order.length) order.push(todo); else order.splice(at, 0, todo);
  }
  filter.list = null;
}

// Fetches the next page; `rows` more are wanted.
async function loadMore(rows) {
  if (next === null || meanwhile) return;
  const asked = epoch;
  meanwhile = new Map();
  try {
    const response = await get(next.replace(/limit=\d+/, `limit=${rows > 2000 ? 10000 : 1000}`));
    if (!response.ok) throw new Error((await problemOf(response)).detail);
    const page = await response.json();
    if (asked !== epoch) return;
    pauseMs = 1000;
    const older = [];
    for (const todo of page) {
      const later = meanwhile.get(todo.id);
      meanwhile.delete(todo.id);
      if (later !== null && !byId.has(todo.id)) older.push(remember(later ?? todo));
    }
    next = /<([^>]*)>; *rel="next"/.exec(response.headers.get('Link') ?? '')?.[1] ?? null;
    order = older.reverse().concat(order);
    takeChanges([...meanwhile.values()].filter(todo => todo !== null));
  } catch (error) {
    // At most 64 s, and not the same for all, so that pages do not come back together.
    pauseMs = Math.min(64000, pauseMs * (1.5 + Math.random()));
    loadAgainAt = performance.now() + pauseMs;
    setTimeout(draw, pauseMs);
    throw error;
  } finally {
    meanwhile = null;
    draw();
  }
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { status: response.status, detail: `the server answered ${response.status}` };
  }
}

const isFiltered = () => filter.text !== '' || filter.mine || filter.open;

// The todos that are shown, newest last.
function shown() {
  if (!isFiltered()) return order;
  filter.list ??= order.filter(todo =>
    (!filter.open || !todo.completed) && (!filter.mine || todo.user_id === who.user) &&
    (filter.text === '' || `${todo.title}\n${todo.description}\n${todo.user_id}`.toLowerCase().includes(filter.text)));
  return filter.list;
}
