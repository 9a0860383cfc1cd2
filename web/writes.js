'use strict';
// Writes under way: queued (sent, or behind another of the same todo), durable (202), shown (the feed has it), or refused.

const writes = new Set();
// By id of the todo, the first one first.
const writesOf = new Map();
const SHOWN_MS = 2000;
// What is through sooner does not flicker up above the list.
const SEEN_MS = 200;
// A durable write shows in milliseconds, or when the worker gets on: then nobody may tell, because somebody else wrote behind it.
const LOOK_AGAIN_MS = 5000;

const headers = (it, more) => ({ Authorization: `Bearer ${it.token = who.token}`, 'Content-Type': 'application/json', ...more });
const hasFields = (todo, body) => Object.keys(body).every(name => todo[name] === body[name]);
const short = text => text.length > 60 ? `${text.slice(0, 60)}…` : text;

function write(kind, id, title, body, base = null) {
  const it = { kind, id, title, body, base, before: byId.get(id)?.updated_at, key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, state: 'queued', reason: '', since: performance.now() };
  writes.add(it);
  setTimeout(draw, SEEN_MS);
  follows(it);
  send(it);
  return it;
}

function follows(it) {
  if (!it.id) return;
  const line = writesOf.get(it.id) ?? [];
  if (!line.includes(it)) line.push(it);
  writesOf.set(it.id, line);
}

function settle(it) {
  writes.delete(it);
  const line = (writesOf.get(it.id) ?? []).filter(other => other !== it);
  if (line.length) writesOf.set(it.id, line); else writesOf.delete(it.id);
  draw();
}

const isUnderWay = it => it.state === 'queued' || it.state === 'durable';

async function send(it) {
  const before = (writesOf.get(it.id) ?? []).filter(other => other !== it && isUnderWay(other));
  it.done = new Promise(resolve => { it.resolve = resolve; });
  become(it, 'queued');
  await Promise.all(before.map(other => other.done));
  try {
    const response = await request(it);
    if (!response) return;
    if (!response.ok) return refuse(it, response);
    it.id ??= (await response.json()).id;
    follows(it);
    become(it, 'durable');
    const known = byId.get(it.id);
    if (it.kind === 'delete' ? !known : known && hasFields(known, it.body)) shownNow(it); else setTimeout(lookAgain, LOOK_AGAIN_MS, it);
  } catch {
    become(it, 'refused', 'The server did not answer. It may have taken the write all the same; trying again does no harm.');
  }
}

async function request(it) {
  if (it.kind === 'create') {
    return fetch('/todos', { method: 'POST', headers: headers(it, { 'Idempotency-Key': it.key }), body: JSON.stringify(it.body) });
  }
  const url = `/todos/${it.id}`;
  if (it.kind === 'delete') return fetch(url, { method: 'DELETE', headers: headers(it) });
  const put = tag => fetch(url, { method: 'PUT', headers: headers(it, tag && { 'If-Match': tag }), body: JSON.stringify(it.body) });
  if (!it.base) return put();
  // An edit holds for the text that was seen. Other members, and tags of before a restart, may have changed beside it.
  for (let rounds = 5; ; rounds--) {
    const current = await get(url);
    if (current.status === 404) return become(it, 'overtaken', 'Somebody has deleted it meanwhile.');
    if (!current.ok) return current;
    const todo = await current.json();
    if (hasFields(todo, it.body)) return shownNow(it);
    if (!hasFields(todo, it.base)) {
      it.theirs = { title: todo.title, description: todo.description };
      return become(it, 'overtaken', 'Somebody else has changed it meanwhile. It is now:');
    }
    // A proxy that compresses weakens the tag; a weak one would never match.
    const answer = await put(current.headers.get('ETag')?.replace('W/', ''));
    if (answer.status !== 412 || !rounds) return answer;
  }
}

async function refuse(it, response) {
  const { detail } = await problemOf(response);
  become(it, 'refused', detail);
  // Another token may have come meanwhile.
  if (response.status !== 401 || it.token !== who.token) return;
  signOut();
  whoTrouble(`The token is not taken: ${detail}`);
}

function become(it, state, reason = '') {
  it.state = state;
  it.reason = reason;
  if (!isUnderWay(it)) it.resolve?.();
  if (reason) say(`${short(it.title)}: ${state}. ${reason}`);
  draw();
}

function shownNow(it) {
  become(it, 'shown');
  setTimeout(settle, SHOWN_MS, it);
}

function writesSaw(batch) {
  if (writesOf.size === 0) return;
  for (const change of batch) {
    for (const it of writesOf.get(change.id) ?? []) {
      if (it.state === 'durable' && (change.gone ? it.kind === 'delete' : it.kind !== 'delete' && hasFields(change, it.body))) shownNow(it);
    }
  }
}

async function lookAgain(it) {
  if (it.state !== 'durable') return;
  try {
    const response = await get(`/todos/${it.id}`);
    // What is there now is this write, or stands behind it.
    if (response.ok ? (await response.json()).updated_at !== it.before : it.kind === 'delete' && response.status === 404) shownNow(it);
  } catch {
    // The banner says that the server does not answer.
  }
  if (it.state === 'durable') setTimeout(lookAgain, LOOK_AGAIN_MS, it);
}

// The todo as it will be when all that is under way has come through.
function withWrites(todo) {
  const line = writesOf.get(todo.id);
  return line ? Object.assign({}, todo, ...line.filter(isUnderWay).map(it => it.body)) : todo;
}

const stateOf = id => writesOf.get(id)?.at(-1);

// Creates until they show, and whatever was not taken.
function drawOutbox() {
  const list = [...writes].filter(it => !isUnderWay(it) && it.state !== 'shown' || it.kind === 'create' && isUnderWay(it) && performance.now() - it.since >= SEEN_MS);
  const items = new Map([...$('outbox').children].map(item => [item.write, item]));
  for (const it of list) {
    let item = items.get(it);
    items.delete(it);
    if (!item) {
      item = document.createElement('li');
      item.write = it;
      $('outbox').append(item);
    }
    if (item.drawn !== it.state + it.reason) drawOutboxItem(item, it);
  }
  for (const item of items.values()) item.remove();
}

function drawOutboxItem(item, it) {
  const hadFocus = item.contains(document.activeElement);
  item.drawn = it.state + it.reason;
  item.dataset.state = it.state;
  const text = element('span', 'what', it.kind === 'update' ? 'Change of ' : it.kind === 'delete' ? 'Deletion of ' : '');
  text.append(bdi(it.body?.title ?? it.title));
  item.replaceChildren(text, element('span', 'state', it.state));
  if (it.reason) item.append(element('p', 'trouble', it.reason));
  if (it.theirs) {
    const theirs = element('p', 'theirs', '');
    theirs.append(bdi(`${it.theirs.title}${it.theirs.description && ` – ${it.theirs.description}`}`));
    item.append(theirs);
  }
  const actions = element('div', 'actions', '');
  const action = (name, act) => {
    const button = element('button', actions.childElementCount ? 'quiet' : '', name);
    button.type = 'button';
    button.setAttribute('aria-label', `${name}: ${short(it.title)}`);
    button.addEventListener('click', act);
    actions.append(button);
  };
  if (it.state === 'refused') {
    action('Try again', () => mayWrite() && send(it));
    if (it.kind !== 'delete') action('Change', () => takeUp(it) && settle(it));
    action('Discard', () => settle(it));
  } else if (it.theirs) {
    action('Keep mine', () => { if (mayWrite()) { it.base = it.theirs; it.theirs = null; send(it); } });
    action('Take theirs', () => settle(it));
  } else if (it.state === 'overtaken') {
    action('Add it again', () => { if (mayWrite()) { settle(it); write('create', null, it.body.title, it.body); } });
    action('Discard', () => settle(it));
  }
  item.append(actions);
  if (hadFocus) (actions.firstElementChild ?? $('title')).focus();
}

// Brings the text of a refused write back to where it can be changed; false: it cannot be, and stays where it is.
function takeUp(it) {
  if (it.kind !== 'create') {
    if (edit(it.id, it.body)) return true;
    if (who.token && !editing) become(it, 'refused', 'It is not shown below, or not yours.');
  } else if ($('title').value.trim()) {
    become(it, 'refused', 'First add what is typed above.');
  } else {
    $('title').value = it.body.title;
    $('title').focus();
    return true;
  }
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// Text of a user stands by itself: its direction is its own.
function bdi(text) {
  const made = document.createElement('bdi');
  made.textContent = text;
  return made;
}
