'use strict';
// The change feed, read as a stream: unlike EventSource this shows heartbeats, so a feed that has died in silence is noticed.

const FIRST_PAGE = 100;
// Some heartbeats may be late; connecting again costs little.
const silenceMs = () => 5000 + 3000 * desk.heartbeat_s;

const feed = { state: 'connecting', reason: '', position: '', retryMs: 2000 };
let arrived = [];
let isAwaited = false;

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

async function follow() {
  for (;;) {
    let wait = feed.retryMs;
    try {
      await followOnce();
      feed.reason = 'the server has ended the feed';
    } catch (error) {
      feed.reason = error.detail ?? 'the server does not answer';
      wait = error.retryAfterMs || wait;
    }
    setFeed('lost');
    // So that pages that were cut off together do not come back together.
    await pause(wait * (0.75 + Math.random() / 2));
    // It may be another process by now, with other settings.
    askDesk();
  }
}

async function followOnce() {
  const abort = new AbortController();
  let heard = performance.now();
  const watch = setInterval(() => performance.now() - heard > silenceMs() && abort.abort(), 1000);
  try {
    const response = await fetch(`/todos/events?limit=${FIRST_PAGE}`, {
      cache: 'no-store', signal: abort.signal, headers: feed.position ? { 'Last-Event-ID': feed.position } : {},
    });
    if (!response.ok) {
      const problem = await problemOf(response);
      problem.retryAfterMs = 1000 * response.headers.get('Retry-After');
      throw problem;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    setFeed('live');
    for (let text = '';;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard = performance.now();
      text += value;
      const end = text.lastIndexOf('\n\n');
      if (end < 0) continue;
      for (const event of text.slice(0, end).split('\n\n')) takeEvent(event);
      text = text.slice(end + 2);
    }
  } finally {
    clearInterval(watch);
    abort.abort();
  }
}

function takeEvent(text) {
  let kind = '', data = '', id = null;
  for (const line of text.split('\n')) {
    if (line.startsWith('data: ')) data = line.slice(6);
    else if (line.startsWith('event: ')) kind = line.slice(7);
    else if (line.startsWith('id')) id = line.slice(4);
    else if (line.startsWith('retry: ')) feed.retryMs = +line.slice(7);
  }
  if (kind) {
    const value = JSON.parse(data);
    if (kind === 'put') arrived.push(value);
    else if (kind === 'delete') arrived.push({ id: value.id, gone: true });
    else if (kind === 'list') { takeArrived(); takeList(value); }
    else if (kind === 'reset') say('The list was read again.');
    draw();
  }
  if (id !== null) feed.position = id;
}

function takeArrived() {
  if (arrived.length === 0) return;
  const batch = arrived;
  arrived = [];
  takeChanges(batch);
  writesSaw(batch);
}

// Everything that has come is drawn once, with the next frame; a page that nobody sees has no frames.
function draw() {
  if (isAwaited) return;
  isAwaited = true;
  if (document.hidden) setTimeout(drawNow, 250); else requestAnimationFrame(drawNow);
}

function drawNow() {
  isAwaited = false;
  const anchor = anchorRow();
  takeArrived();
  drawRows(anchor);
}

function setFeed(state) {
  feed.state = state;
  $('live').dataset.state = state;
  $('live-text').textContent = state === 'live' ? 'Live' : 'Reconnecting';
  judge();
}
