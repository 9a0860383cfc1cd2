'use strict';
// Who writes: a token, kept for as long as this tab is open.

const who = { token: null, user: null };
// The server prints it in the address of the page: whoever has it may be given tokens.
const pageKey = location.hash.split('#key=')[1];

function claimsOf(token) {
  const part = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), letter => letter.charCodeAt(0))));
}

function signIn(token) {
  try {
    const { sub, exp } = claimsOf(token);
    if (typeof sub !== 'string') throw new Error();
    who.token = token;
    who.user = sub;
    $('user').textContent = sub;
    $('until').textContent = exp ? `until ${timeOf(new Date(1000 * exp))}` : '';
    sessionStorage.setItem('token', token);
  } catch {
    return whoTrouble('That is no token: it has three parts, with dots between.');
  }
  $('token').value = '';
  whoTrouble('');
  showWho();
}

function signOut() {
  who.token = who.user = null;
  sessionStorage.removeItem('token');
  showWho();
  askWho();
}

const askWho = () => ($('mint').hidden ? $('token') : $('mint-name')).focus();

function showWho() {
  $('signed-in').hidden = !who.token;
  $('signed-out').hidden = !!who.token;
  filter.list = null;
  draw();
}

function whoTrouble(text) {
  $('who-trouble').textContent = text;
  $('who-trouble').hidden = !text;
}

// Whether there is somebody to write as; else says how there will be.
function mayWrite() {
  if (who.token) return true;
  whoTrouble('Say who you are before you write.');
  askWho();
  return false;
}

function mayChange(todo) {
  if (who.token && todo.user_id !== who.user) return say(`Only ${todo.user_id} may change this todo.`);
  return mayWrite();
}

async function mint(name) {
  try {
    const response = await fetch('/page/token', {
      method: 'POST', headers: { 'Page-Token': pageKey, 'Content-Type': 'application/json' }, body: JSON.stringify({ sub: name }),
    });
    if (!response.ok) return whoTrouble((await problemOf(response)).detail);
    signIn((await response.json()).token);
    $('title').focus();
  } catch {
    whoTrouble('The server does not answer.');
  }
}

async function startWho() {
  const kept = sessionStorage.getItem('token');
  if (kept) signIn(kept);
  $('mint').addEventListener('submit', event => { event.preventDefault(); mint($('mint-name').value); });
  $('paste').addEventListener('submit', event => { event.preventDefault(); signIn($('token').value.trim()); if (who.token) $('title').focus(); });
  $('sign-out').addEventListener('click', signOut);
  try {
    $('mint').hidden = !pageKey || !(await (await get('/page/token')).json()).makes_tokens;
  } catch {
    // A token can be pasted.
  }
  $('paste').classList.toggle('second', !$('mint').hidden);
  showWho();
}
