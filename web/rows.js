'use strict';
// The rows that can be seen. No others exist, however long the list is.

// Browsers end a page at 17 to 33 million pixels: a longer list is shown in stretches, each at an offset of its own.
const HEIGHT_MAX = 8e6;
const SPARE_ROWS = 6;
// So many rows before the end of what is here, the next page is fetched.
const AHEAD_ROWS = 200;

const view = { rowHeight: 60, room: 0, height: 0, total: 0, offset: 0, stretch: 0, jump: 0, last: 0 };
const rows = new Map();
const spare = [];
// The row that Tab comes to: the one that had the focus last, else the first that can be seen.
let current = null, chosen = null;
let editing = null;
const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
const timeOf = date => (date.toDateString() === new Date().toDateString() ? timeFormat : dateFormat).format(date);
const count = new Intl.NumberFormat();
const todoAt = (list, index) => list[list.length - 1 - index];
const indexOf = (list, todo) => list.length - 1 - placeIn(list, todo);

const top_ = () => view.last + view.offset;

// Reading sizes has the browser lay the page out: it is done when they may be others, and not in each frame.
function resized() {
  view.rowHeight = parseFloat(getComputedStyle($('list')).getPropertyValue('--row')) * parseFloat(getComputedStyle(document.documentElement).fontSize);
  view.room = $('list').clientHeight;
  draw();
}

// Sets how long the list is, in pixels.
function measure(length) {
  view.total = length * view.rowHeight;
  const height = Math.min(view.total, HEIGHT_MAX);
  view.stretch = height / 100;
  const stretches = Math.max(1, Math.floor(view.total / view.stretch));
  view.jump = stretches > 1 ? (view.total - height) / (stretches - 1) : 0;
  if (height !== view.height) {
    view.height = height;
    $('rows').style.height = `${height}px`;
  }
}

// Shows the list from this pixel on.
function scrollTo_(top) {
  top = Math.max(0, Math.min(top, view.total - view.room));
  view.offset = Math.round(Math.floor(top / view.stretch) * view.jump) || 0;
  // Rounded as the browser does it, which need not be asked then.
  $('list').scrollTop = view.last = Math.round(top - view.offset);
}

// A scroll of less than a screen moves by pixels; a longer one, by the scroll bar, by the share of the whole.
function scrolled() {
  const now = $('list').scrollTop, room = view.room;
  if (view.jump > 0 && Math.abs(now - view.last) > 0) {
    if (Math.abs(now - view.last) < room) scrollTo_(now + view.offset);
    else scrollTo_(now * (view.total - room) / (view.height - room));
  }
  view.last = $('list').scrollTop;
  draw();
}

// What keeps its place on the screen while todos come and go above it.
function anchorRow() {
  if (top_() <= 0) return null;
  const list = shown(), index = Math.floor(top_() / view.rowHeight);
  const todo = todoAt(list, index);
  return todo && { todo, rest: top_() - index * view.rowHeight };
}

function drawRows(anchor) {
  const list = shown(), isWhole = !isFiltered();
  if (isWhole && (order.length >= ghosts || next === null)) ghosts = 0;
  const length = Math.max(list.length, isWhole ? ghosts : 0);
  measure(length);
  if (anchor) {
    const top = indexOf(list, anchor.todo) * view.rowHeight + anchor.rest;
    if (Math.abs(top - top_()) >= 1) scrollTo_(top);
  } else if (view.jump === 0 && view.offset !== 0) scrollTo_(0);
  const first = Math.max(0, Math.floor(top_() / view.rowHeight) - SPARE_ROWS);
  const end = Math.min(list.length, Math.ceil((top_() + view.room) / view.rowHeight) + SPARE_ROWS);
  if (isWhole && performance.now() >= loadAgainAt && Math.min(length, end + AHEAD_ROWS) > list.length - 1) loadMore(Math.max(0, Math.ceil(top_() / view.rowHeight) - list.length)).catch(error => say(error.message));

  const wanted = new Map();
  for (let index = first; index < end; index++) wanted.set(todoAt(list, index).id, index);
  // Who is being edited, or has the focus, stays where it is in the list, seen or not.
  for (const id of [editing?.id, rowOf(document.activeElement)?.id_]) {
    const todo = byId.get(id);
    if (todo && !wanted.has(id)) {
      const index = indexOf(list, todo);
      if (todoAt(list, index) === todo) wanted.set(id, index);
    }
  }
  current = wanted.has(chosen) ? chosen : todoAt(list, Math.ceil(top_() / view.rowHeight))?.id;
  let lostFocus = false;
  view.flashes = 0;
  for (const [id, row] of rows) {
    if (wanted.has(id) || id === editing?.id) continue;
    lostFocus ||= row.contains(document.activeElement);
    row.remove();
    rows.delete(id);
    spare.push(row);
  }
  let before = $('rows').firstElementChild;
  for (const [id, index] of [...wanted].sort((one, other) => one[1] - other[1])) {
    let row = rows.get(id);
    if (!row) {
      row = spare.pop() ?? $('row').content.firstElementChild.cloneNode(true);
      row.id_ = id;
      row.drawn = row.change = null;
      rows.set(id, row);
    }
    drawRow(row, byId.get(id), index, length);
    if (row === before) before = before.nextElementSibling; else $('rows').insertBefore(row, before);
  }
  if (lostFocus) rows.get(current)?.querySelector('.tick').focus({ preventScroll: true });
  drawOutbox();
  drawCount(list, isWhole);
}

function drawRow(row, todo, index, length) {
  const place = `translateY(${index * view.rowHeight - view.offset}px)`;
  if (row.place !== place) row.style.transform = row.place = place;
  const it = stateOf(todo.id), isCurrent = todo.id === current;
  const drawn = [todo.change, it?.state, it?.kind, who.user, isCurrent, index, length].join();
  if (row.drawn === drawn) return;
  const isChanged = row.change && row.change !== todo.change;
  row.drawn = drawn;
  row.change = todo.change;
  const seen = withWrites(todo), isMine = todo.user_id === who.user;
  const [tick, name, more, state, edit, remove] = row.parts ??= ['.tick', '.name', '.more', '.state', '.edit', '.delete'].map(part => row.querySelector(part));
  row.setAttribute('aria-posinset', index + 1);
  row.setAttribute('aria-setsize', length);
  row.classList.toggle('done', seen.completed);
  row.classList.toggle('mine', isMine);
  const isGoing = it?.kind === 'delete' && isUnderWay(it);
  row.classList.toggle('going', isGoing);
  tick.checked = seen.completed;
  name.firstElementChild.textContent = seen.title;
  tick.setAttribute('aria-label', `Done: ${seen.title}`);
  edit.setAttribute('aria-label', `Edit ${seen.title}`);
  remove.setAttribute('aria-label', `Delete ${seen.title}`);
  const whose = isMine ? 'mine' : todo.user_id;
  more.replaceChildren(...(seen.description ? [bdi(seen.description), ' · '] : []), bdi(whose), ` · ${timeOf(new Date(todo.updated_at))}`);
  state.textContent = it?.state ?? '';
  state.dataset.state = it?.state ?? '';
  for (const part of [tick, name, edit, remove]) part.tabIndex = isCurrent ? 0 : -1;
  // Nobody changes what is another's; the controls stay, so that a screen reader says so.
  for (const part of [tick, edit, remove]) part.disabled = !!who.token && !isMine || isGoing;
  // So that an eye finds what has changed; where everything does, nothing needs to be found.
  if (isChanged && ++view.flashes <= 3 && !matchMedia('(prefers-reduced-motion: reduce)').matches) {
    row.getAnimations().forEach(animation => animation.cancel());
    row.animate({ backgroundColor: ['var(--flash)', 'transparent'] }, 700);
  }
}

function drawCount(list, isWhole) {
  const loaded = count.format(order.length), all = machine.todos;
  const total = next === null ? '' : all ? ` of ${count.format(Math.max(all, order.length))}` : ' of more';
  $('count').textContent = !isLoaded ? '' : isWhole ? `${loaded}${total} loaded` : `${count.format(list.length)} match in the ${loaded}${total} loaded`;
  $('more').hidden = isWhole || next === null;
  $('empty').hidden = list.length > 0 || !isLoaded;
  $('empty').textContent = isWhole ? 'Nothing to do. Add the first todo above.' : 'Nothing that is loaded matches.';
}

const rowOf = target => target?.closest?.('.row');

// Brings a todo into sight and the focus to it.
function goTo(index, part) {
  const list = shown(), todo = todoAt(list, Math.max(0, Math.min(index, list.length - 1)));
  if (!todo) return;
  chosen = todo.id;
  const top = indexOf(list, todo) * view.rowHeight, room = view.room;
  if (top < top_()) scrollTo_(top); else if (top + view.rowHeight > top_() + room) scrollTo_(top + view.rowHeight - room);
  drawRows(null);
  const row = rows.get(todo.id), target = row.querySelector(part);
  (target.disabled ? row.querySelector('.name') : target).focus({ preventScroll: true });
}

function edit(id, text = null) {
  const todo = byId.get(id);
  if (!todo || !mayChange(todo) || editing && !saveEdit()) return;
  if (!rows.has(id)) goTo(indexOf(shown(), todo), '.name');
  const row = rows.get(id);
  if (!row) return;
  const seen = withWrites(todo), form = $('editor').content.firstElementChild.cloneNode(true);
  const { title, description } = form.elements;
  title.value = text?.title ?? seen.title;
  description.value = text?.description ?? seen.description;
  editing = { id, form, base: { title: seen.title, description: seen.description } };
  form.addEventListener('submit', event => { event.preventDefault(); saveEdit(); });
  form.querySelector('.cancel').addEventListener('click', () => stopEdit());
  form.addEventListener('keydown', event => {
    event.stopPropagation();
    if (event.key === 'Escape') stopEdit();
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) saveEdit();
  });
  row.classList.add('editing');
  row.append(form);
  title.focus({ preventScroll: true });
  title.select();
  form.scrollIntoView({ block: 'nearest' });
  return true;
}

// Whether what is typed is on its way, or is what was there.
function saveEdit() {
  const { id, form, base } = editing;
  if (!form.reportValidity()) return;
  const text = { title: form.elements.title.value, description: form.elements.description.value };
  const body = Object.fromEntries(Object.entries(text).filter(([name, value]) => value !== base[name]));
  stopEdit();
  if (Object.keys(body).length) write('update', id, base.title, body, base);
  return true;
}

function stopEdit() {
  if (!editing) return;
  const row = rows.get(editing.id);
  editing.form.remove();
  row?.classList.remove('editing');
  editing = null;
  row?.querySelector('.name').focus({ preventScroll: true });
}

function tick(todo) {
  // What is shown follows the write, and goes back where that is refused.
  const completed = !withWrites(todo).completed;
  if (mayChange(todo)) write('update', todo.id, todo.title, { completed });
}

function remove(todo) {
  if (mayChange(todo)) write('delete', todo.id, todo.title, {});
}

function startRows() {
  const list = $('list');
  list.addEventListener('scroll', scrolled, { passive: true });
  new ResizeObserver(resized).observe(list);
  list.addEventListener('focusin', event => {
    const row = rowOf(event.target);
    if (row && row.id_ !== chosen) { chosen = row.id_; draw(); }
  });
  list.addEventListener('click', event => {
    const row = rowOf(event.target), todo = byId.get(row?.id_);
    if (!todo || event.target.closest('.editor')) return;
    const button = event.target.closest('button, input');
    if (button?.matches('.tick')) { event.preventDefault(); setTimeout(tick, 0, todo); }
    else if (button?.matches('.name, .edit')) edit(todo.id);
    else if (button?.matches('.delete')) remove(todo);
  });
  list.addEventListener('keydown', event => {
    const row = rowOf(event.target), todo = byId.get(row?.id_);
    if (!todo || event.target.closest('.editor')) return;
    const part = ['.tick', '.name', '.edit', '.delete'].find(part => event.target.matches(part)) ?? '.name';
    const index = indexOf(shown(), todo);
    const to = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: shown().length - 1 }[event.key];
    if (to !== undefined) goTo(to, part);
    else if (event.key === 'Delete') remove(todo);
    else if (event.key === 'Enter' && part === '.tick') edit(todo.id);
    else return;
    event.preventDefault();
  });
}
